"""Run directories that were made and not run, and their report as a browser would see it.

run = make_run(tmp_path / "run", ("prosody", "random-prosody"), n_pairs=6)
page = Page(write_report(run))
light(page, ENGINE), figures(page, ENGINE)      # what the card of a check shows
"""

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

from pairs import build_pairs, dataset_identity, load_dataset, pair_row
from pairs.load import find_clips
from tests.recorded import recorded
from tests.store.made import SETTINGS
from voicepatch import report
from voicepatch.analysis.results import Results
from voicepatch.program import VERSION
from voicepatch.types.check import Check, as_stored
from voicepatch.types.pair import construction_report
from voicepatch.types.task import default_task

ENGINE = "The engine computes what stepwise does"
SPANS = "The audio span is in the right place"
LABEL_TOKENS = "Each label has a token of its own"
LAST_LAYER = "Patching the last layer changes no logit of the readout"
SOUNDS = "Every clip can be read and holds sound"
LOST = "Every pair is measured"
NEAR_TIES = "Answers that are near-ties"
ALIKE = "Controls ran with the settings of the main experiment"
DEMO = Path(__file__).resolve().parents[2] / "demo" / "synthetic-clips"
LABELS = ["neutral", "happy", "sad", "angry", "surprised"]
VERSIONS = {"voicepatch": VERSION, "python": "3.11.7", "torch": "2.13.0", "nnsight": "0.8.1"}


def write_report(run):
    return report.write_report(Results(run, find_clips=find_clips))


def records_in(run, name):
    return Results(run).experiment(name).records


class Page(HTMLParser):
    """What a browser would make of the page: its text, its scripts, its embedded data, and every address in it."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.text, self.scripts, self.data, self.addresses, self.tags = "", [], {}, [], []
        self._in = None
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.addresses += [attributes[name] for name in ("src", "href", "action", "data") if name in attributes]
        if tag in ("script", "style"):
            self._in = attributes.get("id", tag)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._in = None

    def handle_data(self, data):
        if self._in is None:
            self.text += data
        elif self._in == "script":
            self.scripts.append(data)
        elif self._in != "style":
            self.data[self._in] = json.loads(data)


def experiment(name, n_layers, n_pairs, finished=True):
    intervention, _, kind = name.rpartition("-")
    settings = {key: value for key, value in SETTINGS.items() if not key.startswith("max_pairs_")}
    return settings | {
        "intervention": intervention or "patch",
        **recorded(intervention or "patch", control=bool(intervention)),
        "kind": kind,
        "layers_to_patch": list(range(n_layers)),
        f"max_pairs_{kind}": n_pairs,
        "engine": "sweep",
        "versions": VERSIONS,
        "finished": finished,
    }


def records_of(row, n_layers, draw):
    """B's answer up to a layer of the pair's own, A's from there on; a clip answers what its voice says."""
    base, donor = (dict.fromkeys(LABELS, 0.0) | {row[f"prosody_label_{side}"]: 12.123456} for side in "ab")
    turn = draw.randrange(n_layers)
    for layer in range(n_layers):
        patch = {label: value + draw.gauss(0, 0.1) for label, value in (donor if layer < turn else base).items()}
        answer = max(patch, key=patch.get)
        before = max(base, key=base.get)
        yield {
            "pair_id": row["pair_id"],
            "clip_a": row["clip_a"],
            "clip_b": row["clip_b"],
            "layer": layer,
            "target": row["target"],
            "pred_base": before,
            "pred_patch": answer,
            "eligible": before != row["target"],
            "flip_to_target": answer == row["target"],
            "flip_from_base": answer != before,
            "delta_logit_target": patch[row["target"]] - base[row["target"]],
            "logits_base": base,
            "logits_patch": patch,
            "logits_donor": donor,
            "len_a": 12,
            "len_b": 12,
            "n_patched": 12,
            "patch_alpha": 1.0,
            "semantic_label_b": row["semantic_label_b"],
            "prosody_label_b": row["prosody_label_b"],
            "label_mass_base": 0.9,
            "label_mass_patch": 0.8,
            "stream_shift": 1.0,
            "patched_from": 15,
            "site": "output",
        }


def write_json(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_run(run, names=("prosody",), n_pairs=6, n_layers=4, data=DEMO, texts=None):
    """A run directory with synthetic records of real pairs."""
    run.mkdir()
    dataset, draw = load_dataset(data, texts), random.Random(0)
    construction = {}
    for name in names:
        kind = name.rpartition("-")[2]
        sample = build_pairs(dataset.clips, kind, n_pairs)
        construction[kind] = construction_report(sample, dataset)
        rows = [pair_row(pair, dataset.columns) for pair in sample.pairs]
        write_lines(run / f"pair_list_{name}.jsonl", rows)
        write_lines(
            run / f"patching_records_{name}.jsonl", [r for row in rows for r in records_of(row, n_layers, draw)]
        )
    write_json(run / "pair_construction_report.json", construction)
    write_json(
        run / "patching_config.json",
        {
            "model": {"name": "toy", "sha256": "0123456789abcdef", "n_layers": n_layers, "hidden_size": 8}
            | {"family": "Toy", "frames_per_second": 6.25},
            "data": dataset_identity(dataset),
            "task": default_task().identity(),
            "prompt": {"system": "Be kind.", "user": "Which emotion?", "text": "<|im_start|>", "tokens_after": ["?"]},
            "labels": {"order": LABELS, "token_ids": [1, 2, 3, 4, 5]},
            "experiments": {name: experiment(name, n_layers, n_pairs) for name in names},
        },
    )
    entries = {
        label: {
            "text": label,
            "token_ids": [1, 2] if label == "angry" else [1],
            "tokens": [label[:3], label[3:]] if label == "angry" else [label],
            "id_used": 1,
            "multi_token": label == "angry",
        }
        for label in LABELS
    }
    collision = {"found": False, "labels": []}
    write_json(
        run / "tokenization_report.json",
        {"labels": entries, "first_token_collision": collision, "note": "The first token stands for a label."}
        | as_stored(
            [Check(LABEL_TOKENS, True, "no two labels start with the same token; angry is several", note=True)]
        ),
    )
    spans = [
        {
            "clip_id": clip,
            "seconds": 2.5,
            "n_input_ids": 40,
            "span_start": 15,
            "span_end": 15 + n,
            "n_audio": n,
            "n_audio_expected": n,
            "tokens_before": ["<|im_audio_start|>"],
            "ids_in_span": [-200],
            "tokens_after": ["<|im_audio_end|>"],
            "ok": True,
        }
        for clip, n in (("a", 12), ("b", 19))
    ]
    write_json(
        run / "sanity_check_audio_span.json",
        {"clips": spans, "left_out": [], "held_against": "the tokens beside it"}
        | as_stored([Check(SPANS, True, "2 of 2 clips have one span, compared with the tokens beside it")]),
    )
    write_json(
        run / "sanity_check_self_patch.json",
        as_stored([Check(LAST_LAYER, True, "largest |Δlogit| 0, must be exactly 0")])
        | {
            "clips": ["a", "b"],
            "layers": list(range(n_layers)),
            "n_predictions": 8,
            "prediction_agreement": 1.0,
            "max_abs_delta_logit": 2e-5,
            "tolerance": 1e-3,
            "last_layer_max_abs_delta_logit": 0.0,
            "embeddings_max_abs_difference_from_donor": 3e-5,
            "largest_logit": 10.0,
        },
    )
    contract = [Check("No position depends on a later one", True, "largest |Δlogit| 1e-06, tolerance 0.001")]
    write_json(run / "sanity_check_model.json", as_stored(contract) | {"family": "Toy", "clip": "a"})
    return run


def change(run, filename, edit):
    content = json.loads((run / filename).read_text())
    edit(content)
    write_json(run / filename, content)


def light(page, name):
    return re.search(rf'<li class="(\w+)"><span class="light">\1</span><div><strong>{re.escape(name)}', page.source)[1]


def engine_found(passed=True, note=False, text="engine tail: 0 of 10 answers differ", **changes):
    found = as_stored([Check(ENGINE, passed, text, {"tolerance": 1e-3}, note)]) | {
        "engine": "tail",
        "reference": "stepwise",
        "pairs": ["p", "q"],
        "layers": [0, 1, 2, 3],
    }
    found |= {"n_predictions": 10, "n_differing_predictions": 0, "differing_predictions": []}
    found |= {"as_written": None, "reads_donor": True, "largest_logit": 10.0}
    found |= {"max_abs_logit_difference": 2e-6, "max_abs_logit_difference_when_repeated": 0.0, "tolerance": 1e-3}
    return found | changes


def sounds_found(unreadable=(), silent=()):
    """What the program finds of 12 clips of which some are bad."""
    entries = [{"clip_id": clip, "reason": reason} for clip, reason in unreadable]
    bad = [*(clip for clip, _ in unreadable), *silent]
    check = Check(
        SOUNDS, not entries, f"bad clips: {', '.join(bad)}" if bad else "all 12 clips were read", note=bool(bad)
    )
    return as_stored([check]) | {"n_clips": 12, "unreadable": entries, "silent": list(silent)}


def planted_found():
    """What the program finds of one planted layer."""
    layer = {"layer": 1, "recovered": 0.5, "area": 0.5, "recovered_by_flips": None, "n_answers_apart": 0}
    layer |= {"curve": [1.0, 0.0], "max_abs_logit_difference": 2e-6}
    found = as_stored([Check("A planted reading layer is recovered", True, "planted in layers 1")])
    return found | {"engine": "tail", "n_pairs": 2, "planted": [layer]}


def figures(page, name):
    """What the card of a check says."""
    return re.search(rf"{re.escape(name)}(.*)", page.text)[1]


def lose(run, name="prosody", pairs=(1,), reasons=True):
    """Take the records of some pairs away; gives their ids, which failed_pairs_NAME.jsonl lists with a reason."""
    ids = [json.loads(line)["pair_id"] for line in (run / f"pair_list_{name}.jsonl").read_text().splitlines()]
    ids = [ids[number] for number in pairs]
    path = run / f"patching_records_{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, [row for row in rows if row["pair_id"] not in ids])
    if reasons:
        failed = [{"pair_id": one, "reason": f"reason {n}: not finite", "skipped": False} for n, one in enumerate(ids)]
        write_lines(run / f"failed_pairs_{name}.jsonl", failed)
    return ids
