"""What the pair browser shows, as compact as JSON can be: labels once, clips once, logits as flat lists.

browser_data(run, clips)["experiments"][0]["pairs"][0]["patch"]   # rows x labels, row by row
"""

import json
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import DOSE, combinations
from analysis.lens import is_lens
from analysis.report.experiments import Experiment, Run
from analysis.timeline import PART, is_map
from models.sound import seconds_of
from pairs import Clip

# Characters that all experiments share; the pairs that do not fit are counted in `left_out`.
BUDGET = 1_500_000


def browser_data(run: Run, clips: dict[str, Clip]) -> dict[str, Any]:
    """Labels, clips, and for each experiment its pairs with the logits of A, of B, and of A patched at each row.

    The answers are those of the records: logits are rounded here, and two labels of a near-tie may round to one value.

    A row is a layer and the number of a combination of the swept values, the highest dose first; `combinations` has
    their names. Pairs whose records are not all there yet are left out.
    """
    labels = run.config["labels"]["order"]
    numbers: dict[str, int] = {}
    shown: list[dict[str, Any]] = []
    experiments: list[dict[str, Any]] = []
    left = BUDGET
    measured = [e for e in run.experiments if e.records is not None and not is_lens(e.settings)]
    for number, experiment in enumerate(measured):
        pairs = []
        complete = _pairs(experiment, labels)
        share = left // (len(measured) - number)
        for row, pair in complete:
            size = len(json.dumps(pair, separators=(",", ":")))
            if size > share:
                break
            share, left = share - size, left - size
            for side in "ab":
                clip_id = row[f"clip_{side}"]
                if clip_id not in numbers:
                    numbers[clip_id] = len(shown)
                    shown.append(_clip(row, side, clips.get(clip_id)))
            pairs.append({"a": numbers[row["clip_a"]], "b": numbers[row["clip_b"]], **pair})
        rows, names = _rows(experiment)
        experiments.append(
            {
                "name": experiment.name,
                "kind": experiment.settings["kind"],
                "what": experiment.what,
                "site": experiment.site,
                "rows": rows,
                "combinations": names,
                **_map(experiment, names),
                "pairs": pairs,
                "left_out": len(complete) - len(pairs),
            }
        )
    return {"labels": labels, "clips": shown, "experiments": experiments}


def _of_first_pair(experiment: Experiment) -> pd.DataFrame:
    return experiment.records[experiment.records["pair_id"] == experiment.records["pair_id"].iloc[0]]


def _rows(experiment: Experiment) -> tuple[list[list[int]], list[str]]:
    """Layer and number of the combination of each row of a pair, and the combinations' names."""
    first = _of_first_pair(experiment)
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


def _pairs(experiment: Experiment, labels: list[str]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    n_rows = len(_of_first_pair(experiment))
    places = experiment.records.groupby("pair_id", sort=False).indices
    pairs = []
    for row in experiment.pairs:
        place = places.get(row["pair_id"], ())
        if len(place) != n_rows:
            continue
        records = experiment.records.iloc[place]
        first = records.iloc[0]
        pairs.append(
            (
                row,
                {
                    "target": labels.index(first["target"]),
                    "lengths": [int(first[column]) for column in ("len_a", "len_b", "n_patched")],
                    "base": _logits(first["logits_base"], labels),
                    "donor": _logits(first["logits_donor"], labels),
                    "patch": [value for logits in records["logits_patch"] for value in _logits(logits, labels)],
                    "answers": [
                        labels.index(first["pred_base"]),
                        labels.index(max(first["logits_donor"], key=first["logits_donor"].get)),
                        *map(labels.index, records["pred_patch"]),
                    ],
                },
            )
        )
    return pairs


def _logits(logits: dict[str, float], labels: list[str]) -> list[float]:
    return np.round([logits[label] for label in labels], 3).tolist()


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
