"""Curves of several runs, or of parts of one, against each other, two by two.

    whole = of_experiment("A", results, results.experiment("noise-prosody"))
    lines = contrast_groups({"noise-prosody": by_value(whole, "text_type")}, out)

Writes contrast_NAME_A_vs_B.csv where both were patched at the same layers, and contrasts.json with the differences of
the areas under the curves; of models with different numbers of layers, on relative depth.
"""

import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from voicepatch.analysis.breakdown import largest, ordered, pair_values
from voicepatch.analysis.cells import at_highest_dose
from voicepatch.analysis.congruence import NONE_LEFT
from voicepatch.analysis.contrasts import ALL, Side, contrast
from voicepatch.analysis.csv_file import write_table
from voicepatch.analysis.experiment_results import FROM_BASE, ExperimentResults
from voicepatch.analysis.results import Results, area_of_side, hand_over_of_side
from voicepatch.analysis.rounding import p_text, with_interval
from voicepatch.errors import UserError
from voicepatch.files import write_whole
from voicepatch.text import escape


@dataclass(frozen=True)
class Compared:
    """One curve of a comparison: an experiment of a run, or those of its pairs that have one value of a column.

    `side` holds its pairs and records; of a main experiment, without the congruent pairs. `part` says whether these are
    the pairs of one value. `run` is the name of the run.
    """

    name: str
    run: str
    results: Results
    experiment: ExperimentResults
    side: Side
    part: bool = False

    @property
    def n_layers(self) -> int:
        return self.results.config["model"]["n_layers"]

    @cached_property
    def curve(self) -> pd.DataFrame:
        """The metrics by layer, at the highest dose."""
        if not self.part:
            return self.experiment.compared_curve if self.experiment.is_main else self.experiment.curve
        return at_highest_dose(self.experiment.metrics_of(self.side.records, self.side.pairs))

    @cached_property
    def flips(self) -> Side:
        """The side with what counts as a flip: any change of the answer, where no answer is a target."""
        if self.experiment.rate != FROM_BASE:
            return self.side
        records = self.side.records
        return replace(self.side, records=records.assign(flip_to_target=records["flip_from_base"], eligible=True))

    @cached_property
    def hand_over(self) -> dict[str, Any]:
        """The layer at which the curve falls below its middle, as `analysis.hand_over` gives it."""
        if self.experiment.is_main and not self.part:
            return self.results.hand_over(self.experiment.kind) or {}
        return hand_over_of_side(self.flips, None, self.experiment.seed)

    @cached_property
    def area(self) -> dict[str, Any]:
        """The area under the curve."""
        return area_of_side(self.flips)


def of_experiment(name: str, results: Results, experiment: ExperimentResults) -> Compared:
    """An experiment as one curve; a main one without its congruent pairs."""
    whole = Side(experiment.name, experiment.records, experiment.measured_pairs)
    return Compared(name, name, results, experiment, experiment.side if experiment.is_main else whole)


def by_value(whole: Compared, column: str, before: str = "") -> list[Compared]:
    """The same experiment for each value of a column of its pairs, at most the values that a figure shows.

    A curve is called after its value, with the text `before` it.
    """
    pairs, records = whole.side.pairs, whole.side.records
    values = pair_values(pairs, column, whole.results.task)
    counts = pd.DataFrame({column: values, "n_pairs": values.map(values.value_counts())})
    shown = ordered(largest(counts.drop_duplicates(column), column)[column])
    return [
        replace(
            whole,
            name=f"{before}{escape(value)}",
            part=True,
            side=replace(whole.side, records=mine, pairs=pairs[values == value]),
        )
        for value in shown
        if len(mine := records[records["pair_id"].isin(set(pairs["pair_id"][values == value]))])
    ]


def contrast_groups(groups: dict[str, list[Compared]], out: Path) -> list[str]:
    """The curves of each group against each other, two by two; a line for each two."""
    found, lines = {}, []
    for group, curves in groups.items():
        for one, other in combinations(curves, 2):
            key = f"{group}: {one.name} − {other.name}"
            try:
                first, second = sides = _sides(one, other)
                result = contrast(first, second, seed=one.experiment.seed)
            except UserError as error:
                found[key] = {"reason": str(error)}
                lines.append(f"{key}: not contrasted: {error}")
                continue
            lines.append(f"{key}: {_difference(result.statistics[ALL], relative=sides[0].depth != 1)}")
            if not result.table.empty:
                file = f"contrast_{_safe(group)}_{_safe(one.name)}_vs_{_safe(other.name)}.csv"
                write_table(out / file, result.table)
                lines.append(f"  {_largest(result.table)}; by layer: {file}")
            found[key] = result.statistics
    if found:
        write_whole(out / "contrasts.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return lines


def _largest(table: pd.DataFrame) -> str:
    """The layer at which the rates over all pairs differ most, in words."""
    rows = table[table["pairs"] == ALL]
    row = rows.loc[rows["difference"].abs().idxmax()]
    value, interval = with_interval(100 * row["difference"], 100 * row["low"], 100 * row["high"], "+")
    tested = f"; {p_text(row['p_max']).replace('p', 'p_max', 1)}" if pd.notna(row["p_max"]) else f"; {row['reason']}"
    return f"the rates differ most at layer {row['layer']}: {value} percentage points ({interval}{tested})"


def _sides(one: Compared, other: Compared) -> list[Side]:
    _require_all_layers(one, other)
    sides = []
    for each in (one, other):
        within = each.results.config["data"]["sha256"]  # the same texts and speakers only where the data are the same
        depth = 1.0 if one.n_layers == other.n_layers else max(1, each.n_layers - 1)
        if each.flips.records.empty:
            raise UserError(f"{each.name}: {NONE_LEFT}")
        sides.append(replace(each.flips, name=each.name, within=within, depth=depth))
    return sides


def _require_all_layers(one: Compared, other: Compared) -> None:
    """Relative depth means the same only where every layer was patched."""
    if one.n_layers == other.n_layers:
        return
    for each in (one, other):
        if not each.experiment.settings["patch_all_layers"]:
            raise UserError(f"{each.name} was not patched at all layers, and the models have different numbers of them")


def _difference(found: dict[str, Any], relative: bool) -> str:
    if found["difference"] is None:
        return f"the difference of the areas under the curves cannot be computed: {found['reason']}"
    unit = "of the relative depth" if relative else "layers"
    value, interval = with_interval(found["difference"], found["low"], found["high"], "+")
    remark = f"{interval}, {p_text(found['p'])}" if interval else found["reason"]
    return f"difference of the areas under the curves {value} {unit} ({remark})"


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)[:64]
