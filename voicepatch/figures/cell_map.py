"""A map of cells with its test: which layer and swept value has an effect, marked in figures and listed in a table.

    found = results.cached(cell_map, "heads-prosody")    # None where the experiment is no map
    found.table                                          # map_cells_heads-prosody.csv
    found.marked, found.note                             # the marked cells, strongest first, and what a mark means

The effect is what the experiment's own module measures, or else delta_logit_target; less the same cell with a random
donor, where the run has such a control. Without a donor it is whether the answer changes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from voicepatch.analysis.cell_tests import cell_tests
from voicepatch.analysis.cells import by_cell, combinations
from voicepatch.analysis.comparable import curve_differences
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.results import Results
from voicepatch.analysis.samples import sample_of
from voicepatch.analysis.sites import sites_of
from voicepatch.figures.own import map_of, own

MOST_LINES = 6  # of a sweep; more values are drawn as a map
LEVEL, SMALLEST_SHARE = 0.05, 0.05  # of p_max, and of the whole span's effect: a smaller effect is not marked
LOGIT, CHANGED = "delta_logit_target", "flip_from_base"
COLUMNS = {LOGIT: "delta_logit_target_mean", CHANGED: "flip_from_base_rate"}  # of the metrics


@dataclass(frozen=True)
class CellMap:
    """`table` has a row a cell.

    Its columns are layer, the swept options, effect (mean of `measure`), se, limit_low and limit_high (simultaneous
    95 %), p_max, q, marked, n_pairs, n_texts and reason (why there is no test). `scale` is the whole span's effect,
    where the run has it, or else the map's largest; `note` is a sentence on the marks.
    """

    table: pd.DataFrame
    cell: list[str]
    measure: str
    scale: float
    note: str

    @property
    def column(self) -> str:
        """The column of the metrics that has the effect; "" if none has."""
        return COLUMNS.get(self.measure, "")

    @property
    def reason(self) -> str:
        """Why there is no test; "" if there is one."""
        return self.table["reason"].iloc[0]

    @property
    def marked(self) -> pd.DataFrame:
        """The marked cells, those with the largest effects first."""
        return self.table[self.table["marked"]].sort_values("effect", key=lambda effect: -effect.abs(), kind="stable")

    def mark(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table with a row a cell, and whether each is marked."""
        return table.merge(self.table[[*self.cell, "marked"]], on=self.cell)


def cell_map(results: Results, name: str) -> CellMap | None:
    """The cells of an experiment with their test; None where it has no records, or is drawn as curves."""
    experiment = results.experiment(name)
    if experiment.records is None or not _is_map(results, experiment):
        return None
    measured, cell = _effects(results, experiment), ["layer", *experiment.swept]
    pairs, control, less = experiment.measured_pairs, _random_donors(results, experiment), ""
    values, donors = _by_cell(experiment, measured, pairs), [pairs]
    if control is not None and measured.name == LOGIT:
        its_pairs = control.pairs.loc[pairs.index]
        values -= _by_cell(control, control.records[LOGIT], its_pairs).to_numpy()
        there = values.notna().all(axis=1).to_numpy()
        values, donors = values[there], [pairs[there], its_pairs[there]]
        less = f" less that of {control.name}"
    sample = sample_of(*donors)  # one table below the other; of a pair, the names in both
    texts, speakers = (
        None if names is None else np.hstack(np.split(names, len(donors))) for names in (sample.texts, sample.speakers)
    )
    found = cell_tests(values.to_numpy(), texts, experiment.seed, speakers)
    scale, of_what = _scale(results, experiment, measured, found.effect)
    large = np.abs(found.effect) >= SMALLEST_SHARE * scale
    columns: dict[str, Any] = {"effect": found.effect, "se": found.se, "limit_low": found.low, "limit_high": found.high}
    columns |= {"p_max": found.p_max, "q": found.q, "marked": (found.p_max < LEVEL) & large}
    columns |= {"n_pairs": len(values), "n_texts": found.n_texts, "reason": found.reason}
    table = values.columns.to_frame(index=False).assign(**columns)
    table = experiment.metrics[cell].merge(table, on=cell)
    note = (
        f"marked with a dot: {table['marked'].sum()} of {len(table)} cells, whose mean {measured.name}{less} has p_max "
        f"below .05 (corrected for all cells) and is at least 5 % of {of_what}"
    )
    if found.reason:
        note = f"no cell is marked: the mean {measured.name}{less} is not tested, because {found.reason}"
    return CellMap(table, cell, str(measured.name), scale, note)


def _is_map(results: Results, experiment: ExperimentResults) -> bool:
    swept = experiment.swept
    if not experiment.settings["by_layer"]:
        return False
    return map_of(results, experiment) in swept or combinations(experiment.metrics, swept).nunique() > MOST_LINES


def _effects(results: Results, experiment: ExperimentResults) -> pd.Series:
    """The effect in each record, with its name."""
    mine = own(results, experiment, "effects", experiment.records)
    if mine is None:
        return experiment.records[LOGIT if experiment.has_donor else CHANGED]
    return mine


def _by_cell(experiment: ExperimentResults, effects: pd.Series, pairs: pd.DataFrame) -> pd.DataFrame:
    cell = ["layer", *experiment.swept]
    return by_cell(experiment.records[["pair_id", *cell]].assign(effect=effects), pairs, "effect", cell)


def _random_donors(results: Results, experiment: ExperimentResults) -> ExperimentResults | None:
    """A control with the same cells, recipients and targets, and donors none of whose labels are the target."""
    if experiment.settings["control"] or not experiment.has_donor:
        return None
    for one in results.valid:
        usable = one.settings["control"] and one.finished and one.records is not None
        if usable and _has_other_donors(one.pairs, experiment) and _has_same_cells(one, experiment):
            return one
    return None


def _has_same_cells(one: ExperimentResults, other: ExperimentResults) -> bool:
    """Whether the swept values, the sites and the first position written are the same."""
    options, others = one.settings["options"], other.settings["options"]
    starts = [each.records.groupby("clip_a")["patched_from"].first() for each in (one, other)]
    return (
        one.swept == other.swept
        and one.doses == other.doses
        and all(options[name] == others[name] for name in options if name in others)
        and not curve_differences(other, one)
        and sites_of(one.records) == sites_of(other.records)
        and starts[0].equals(starts[1])
    )


def _has_other_donors(pairs: pd.DataFrame, experiment: ExperimentResults) -> bool:
    same = ["kind", "clip_a", "target"]
    if not np.array_equal(pairs[same], experiment.pairs[same]):
        return False
    donors_label = pairs[f"{experiment.kind}_label_b"]
    return bool(((pairs["clip_b"] != pairs["clip_a"]) & (donors_label != pairs["target"])).all())


def _scale(
    results: Results, experiment: ExperimentResults, measured: pd.Series, effects: np.ndarray
) -> tuple[float, str]:
    """What 5 % is of, and its name: the largest mean of the main experiment, or else of the map."""
    main, largest = results.main(experiment.kind), float(np.abs(effects).max())
    if "whole" in measured.attrs:
        return measured.attrs["whole"]
    if measured.name != LOGIT:
        return largest, f"the map's largest ({largest:.3g})"
    if main is None:
        return largest, f"the map's largest ({largest:.3g}, since the run has no finished main experiment)"
    scale = float(main.curve[f"{LOGIT}_mean"].abs().max())
    return scale, f"the whole span's effect ({scale:.3g})"
