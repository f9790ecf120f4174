"""What the pair browser shows, as compact as JSON can be: labels once, clips once, logits as flat lists.

browser_data(run, clips)["experiments"][0]["pairs"][0]["patch"]   # rows x labels, row by row
"""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import DOSE, combinations
from analysis.lens import is_lens
from analysis.logits import matrix
from analysis.report.experiments import Experiment, Run
from analysis.timeline import PART, is_map
from models.labels import LABELS
from models.sound import seconds_of
from pairs import Clip

# Without a number from the user: pairs of an experiment, and characters that all experiments share.
MOST_PAIRS = 500
BUDGET = 1_500_000
SEED = 42


def browser_data(run: Run, clips: dict[str, Clip], pairs: int | str | None = None) -> dict[str, Any]:
    """Labels, clips, and for each experiment its pairs with the logits of A, of B, and of A patched at each row.

    The answers are those of the records: logits are rounded here, and two labels of a near-tie may round to one value.

    A row is a layer and the number of a combination of the swept values, the highest dose first; `combinations` has
    their names. Pairs whose records are not all there yet are left out. `pairs` of each experiment are drawn, `"all"`
    of them, or for None at most `MOST_PAIRS` that fit into `BUDGET`; `left_out` is the number of the others.
    """
    labels = run.config["labels"]["order"]
    numbers: dict[str, int] = {}
    shown: list[dict[str, Any]] = []
    experiments: list[dict[str, Any]] = []
    left = BUDGET if pairs is None else math.inf
    measured = [e for e in run.experiments if e.records is not None and not is_lens(e.settings)]
    for number, experiment in enumerate(measured):
        n_rows = int((experiment.records["pair_id"] == experiment.records["pair_id"].iloc[0]).sum())
        drawn = _drawn(experiment, n_rows, MOST_PAIRS if pairs is None else pairs)
        share, fitting = left / (len(measured) - number), []
        for place, pair in _pairs(experiment, labels, n_rows, drawn):
            size = len(json.dumps(pair, separators=(",", ":")))
            if size > share:
                break
            share, left = share - size, left - size
            fitting.append((place, pair))
        mine = []
        for row, pair in _with_rows(experiment, sorted(fitting, key=lambda one: one[0])):
            for side in "ab":
                clip_id = row[f"clip_{side}"]
                if clip_id not in numbers:
                    numbers[clip_id] = len(shown)
                    shown.append(_clip(row, side, clips.get(clip_id)))
            mine.append({"a": numbers[row["clip_a"]], "b": numbers[row["clip_b"]], **pair})
        rows, names = _rows(experiment, n_rows)
        experiments.append(
            {
                "name": experiment.name,
                "kind": experiment.settings["kind"],
                "what": experiment.what,
                "site": experiment.site,
                "rows": rows,
                "combinations": names,
                **_map(experiment, names),
                "pairs": mine,
                "left_out": len(experiment.records) // n_rows - len(mine),
            }
        )
    return {"labels": labels, "clips": shown, "experiments": experiments}


def _drawn(experiment: Experiment, n_rows: int, most: int | str) -> np.ndarray:
    """The places in the pair list of the first `most` measured pairs, in an order that every list draws alike.

    So the experiments of a run show the same recipients, and a larger number adds to the pairs of a smaller one.
    """
    measured = experiment.pairs["pair_id"].isin(experiment.records["pair_id"].iloc[::n_rows]).to_numpy()
    order = np.argsort(np.random.default_rng(SEED).random(len(measured)))
    drawn = order[measured[order]]
    return drawn if most == "all" else drawn[: int(most)]


def _rows(experiment: Experiment, n_rows: int) -> tuple[list[list[int]], list[str]]:
    """Layer and number of the combination of each row of a pair, and the combinations' names."""
    first = experiment.records[:n_rows]
    names = combinations(first, experiment.swept)
    order = names[first[DOSE].sort_values(ascending=False, kind="stable").index].drop_duplicates().tolist()
    return [[int(layer), order.index(name)] for layer, name in zip(first["layer"], names, strict=True)], order


def _map(experiment: Experiment, names: list[str]) -> dict[str, Any]:
    """For a timeline, of which the page draws a map of each pair: how many parts, and the part of each combination."""
    if not is_map(experiment.settings) or experiment.swept != [PART]:
        return {}
    options = experiment.settings["options"]
    whole = experiment.settings["align"] == "resample_linear"  # the aligned span is all of A's
    parts = [int(name.removeprefix(f"{PART} ")) for name in names]
    return {"map": {"slices": options["slices"], "parts": parts, "whole": whole}}


def _pairs(
    experiment: Experiment, labels: list[str], n_rows: int, drawn: np.ndarray
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The pairs at the places `drawn`, each with its place; a pair's rows stand together in the records."""
    records = experiment.records
    columns = [LABELS.index(label) for label in labels]
    base, patch, donor = (matrix(records[f"logits_{which}"]) for which in ("base", "patch", "donor"))
    answers = {name: records[name].to_numpy(object) for name in ("target", "pred_base", "pred_patch")}
    lengths = records[["len_a", "len_b", "n_patched"]].to_numpy()
    starts = pd.Index(records["pair_id"].iloc[::n_rows]).get_indexer(experiment.pairs["pair_id"].iloc[drawn]) * n_rows
    for place, first in zip(drawn.tolist(), starts.tolist(), strict=True):
        mine = slice(first, first + n_rows)
        yield (
            place,
            {
                "target": labels.index(answers["target"][first]),
                "lengths": lengths[first].tolist(),
                "base": np.round(base[first, columns], 3).tolist(),
                "donor": np.round(donor[first, columns], 3).tolist(),
                "patch": np.round(patch[mine][:, columns], 3).ravel().tolist(),
                "answers": [
                    labels.index(answers["pred_base"][first]),
                    int(donor[first, columns].argmax()),
                    *map(labels.index, answers["pred_patch"][mine]),
                ],
            },
        )


def _with_rows(
    experiment: Experiment, pairs: list[tuple[int, dict[str, Any]]]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    rows = experiment.pairs.iloc[[place for place, _ in pairs]].to_dict("records")
    return zip(rows, (pair for _, pair in pairs), strict=True)


def _clip(row: dict[str, Any], side: str, clip: Clip | None) -> dict[str, Any]:
    facts = {
        "id": row[f"clip_{side}"],
        "text": clip.text if clip else "",
        "words": row[f"semantic_label_{side}"],
        "voice": row[f"prosody_label_{side}"],
        "speaker": row.get(f"speaker_{side}") or "",
        "text_type": row.get(f"text_type_{side}") or "",
        "seconds": (round(seconds_of(clip.path), 2) or "") if clip else "",
    }
    return {key: value for key, value in facts.items() if value != ""}
