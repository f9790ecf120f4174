"""What the pair browser shows, as compact JSON: each label and clip once, logits as flat lists.

browser_data(run, clips)["experiments"][0]["pairs"][0]["patch"]   # rows x labels, row by row
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from voicepatch.analysis.cells import DOSE, combinations
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.logits import logits_of
from voicepatch.audio.decode import seconds_of
from voicepatch.figures.figure_style import label_colours
from voicepatch.report.experiments import Run
from voicepatch.types.clip import Clip

# Without a number from the user: pairs of an experiment, and characters that all experiments share.
MOST_PAIRS = 500
BUDGET = 1_500_000
SEED = 42


def browser_data(run: Run, clips: Mapping[str, Clip], pairs: int | str | None = None) -> dict[str, Any]:
    """Labels, clips, and for each experiment its pairs with the logits of A, of B, and of A patched at each row.

    The answers are those of the records: logits are rounded here, and two labels of a near-tie may round to one value.

    A row is a layer and the number of a combination of the swept values, the highest dose first; `combinations` has
    their names. Pairs without complete records are left out. `pairs` of each experiment are drawn, `"all"` of them, or
    for None at most `MOST_PAIRS` that fit into `BUDGET`; `left_out` is the number of the others.
    """
    numbers: dict[str, int] = {}
    listed: list[dict[str, Any]] = []
    experiments: list[dict[str, Any]] = []
    left = BUDGET if pairs is None else math.inf
    measured = [e for e in run.experiments if e.records is not None and not e.settings["reads_only"]]
    for number, experiment in enumerate(measured):
        n_rows = int((experiment.records["pair_id"] == experiment.records["pair_id"].iloc[0]).sum())
        drawn = _drawn(experiment, n_rows, MOST_PAIRS if pairs is None else pairs)
        share, fitting = left / (len(measured) - number), {}
        for place, pair in _pairs(experiment, run.labels, n_rows, drawn):
            size = len(json.dumps(pair, separators=(",", ":")))
            if size > share:
                break
            share, left = share - size, left - size
            fitting[place] = pair
        mine = []
        for place, row in zip(sorted(fitting), experiment.pairs.iloc[sorted(fitting)].to_dict("records"), strict=True):
            for side in "ab":
                clip_id = row[f"clip_{side}"]
                if clip_id not in numbers:
                    numbers[clip_id] = len(listed)
                    listed.append(_clip(row, side, clips.get(clip_id)))
            mine.append({"a": numbers[row["clip_a"]], "b": numbers[row["clip_b"]], **fitting[place]})
        rows, names = _rows(experiment, n_rows)
        experiments.append(
            {
                "name": experiment.name,
                "kind": experiment.kind,
                "what": f"{experiment.what} (estimates)" if experiment.is_estimate else experiment.what,
                "site": experiment.site,
                "has_donor": experiment.has_donor,
                "rows": rows,
                "combinations": names,
                **run.own(experiment, "pair_map", experiment, names),
                "pairs": mine,
                "left_out": len(experiment.records) // n_rows - len(mine),
            }
        )
    colours = label_colours(run.labels)
    return {"labels": run.labels, "colours": colours, "clips": listed, "experiments": experiments}


def _drawn(experiment: ExperimentResults, n_rows: int, most: int | str) -> np.ndarray:
    """The places in the pair list of the first `most` measured pairs, in a random order that all lists share.

    So the experiments of a run show the same recipients, and a larger number adds to the pairs of a smaller one.
    """
    measured = experiment.pairs["pair_id"].isin(experiment.records["pair_id"].iloc[::n_rows]).to_numpy()
    order = np.argsort(np.random.default_rng(SEED).random(len(measured)))
    drawn = order[measured[order]]
    return drawn if most == "all" else drawn[: int(most)]


def _rows(experiment: ExperimentResults, n_rows: int) -> tuple[list[list[int]], list[str]]:
    """Layer and number of the combination of each row of a pair, and the combinations' names."""
    first = experiment.records[:n_rows]
    names = combinations(first, experiment.swept)
    order = names[first[DOSE].sort_values(ascending=False, kind="stable").index].drop_duplicates().tolist()
    return [[int(layer), order.index(name)] for layer, name in zip(first["layer"], names, strict=True)], order


def _pairs(
    experiment: ExperimentResults, labels: list[str], n_rows: int, drawn: np.ndarray
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The pairs at the places `drawn`, each with its place; a pair's rows stand together in the records."""
    records = experiment.records
    base, patch, donor = (logits_of(records[f"logits_{which}"]).values for which in ("base", "patch", "donor"))
    answers = {name: records[name].to_numpy(object) for name in ("target", "pred_base", "pred_patch")}
    lengths = records[["len_a", "len_b", "n_patched"]].to_numpy()
    starts = pd.Index(records["pair_id"].iloc[::n_rows]).get_indexer(experiment.pairs["pair_id"].iloc[drawn]) * n_rows
    for place, first in zip(drawn.tolist(), starts.tolist(), strict=True):
        mine = slice(first, first + n_rows)
        own = [labels.index(answers["pred_base"][first]), int(donor[first].argmax())]
        pair = {
            "target": labels.index(answers["target"][first]),
            "lengths": lengths[first].tolist(),
            "base": np.round(base[first], 3).tolist(),
            "donor": np.round(donor[first], 3).tolist(),
            "patch": np.round(patch[mine], 3).ravel().tolist(),
            "answers": [*own, *map(labels.index, answers["pred_patch"][mine])],
        }
        yield place, pair


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
