"""A made run with both kinds of pairs, whose texts and flips are simulated ones.

run = make_both_kinds(tmp_path / "run", later=2.0)
"""

import json

import numpy as np

from tests.analysis.made_run import make_run
from tests.analysis.simulated_kinds import draw


def make_both_kinds(run, **how):
    make_run(run, ("prosody", "semantic"), n_pairs=30, n_layers=8)
    as_simulated(run, **how)
    return run


def as_simulated(run, seed=0, **how):
    """The pairs of both kinds are of simulated texts, each with clips of its own, and flip as the simulated ones."""
    for side in draw(np.random.default_rng(seed), n_pairs=30, n_texts=12, **how):
        pairs, records = (run / f"{stem}_{side.name}.jsonl" for stem in ("pair_list", "patching_records"))
        rows = [json.loads(line) for line in pairs.read_text().splitlines()]
        clips = {row["pair_id"]: {f"clip_{of}": f"{number}{of}" for of in "ab"} for number, row in enumerate(rows)}
        texts = side.pairs[["text_id_a", "text_id_b"]].astype(str).to_dict("records")
        if side.name == "semantic":  # no pair's voice is the target, so all are compared
            for row in rows:
                voice = "happy" if row["target"] == "sad" else "sad"
                clips[row["pair_id"]] |= {"prosody_label_a": voice, "prosody_label_b": voice}
        write(pairs, [row | text | clips[row["pair_id"]] for row, text in zip(rows, texts, strict=True)])
        simulated = side.records[["eligible", "flip_to_target"]].itertuples(index=False)
        rows = [json.loads(line) for line in records.read_text().splitlines()]
        write(
            records,
            [_as(row, *one) | _known(row, clips[row["pair_id"]]) for row, one in zip(rows, simulated, strict=True)],
        )


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _known(row, values):
    return {key: value for key, value in values.items() if key in row}


def _as(row, eligible, flips):
    target = row["target"]
    base = "happy" if target == "sad" else "sad"
    base = base if eligible else target
    patch = target if flips else base
    logits = {key: dict.fromkeys(row["logits_base"], 0.0) for key in ("logits_base", "logits_patch", "logits_donor")}
    for key, answer in zip(logits, (base, patch, target), strict=True):
        logits[key][answer] = 4.0
    answers = {"pred_base": base, "pred_patch": patch, "eligible": bool(eligible), "flip_to_target": bool(flips)}
    moved = logits["logits_patch"][target] - logits["logits_base"][target]
    return row | logits | answers | {"flip_from_base": base != patch, "delta_logit_target": moved}
