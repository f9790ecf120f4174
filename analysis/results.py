"""The experiments of a run that hold together, read once by the one reader, and what follows from their records.

    results = Results(Path("results/RUN"))
    prosody = results.experiment("prosody")     # UserError where its files do not hold together
    prosody.metrics, prosody.hand_over

Nothing here comes from a table that was written before: metrics and statistics are computed from the records.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from analysis.alike import differences
from analysis.cells import DOSE, at_highest_dose, is_one_curve, swept_columns
from analysis.hand_over import hand_over
from analysis.intervals import contrast, layer_intervals
from analysis.logits import Logits
from analysis.metrics import layer_metrics, main_rate, near_tie_margin
from errors import UserError
from files import REPLACING
from runs.kept import Kept, read_experiment
from runs.lock import writer
from runs.reader import read_config, read_document
from runs.record_blocks import LOGITS, Columns
from runs.row_types import PairRow

Made = TypeVar("Made")
KINDS = ("prosody", "semantic")
SUFFIX = "suffix"
REPORTS = {
    "tokens": "tokenization_report.json",
    "spans": "sanity_check_audio_span.json",
    "silent": "sanity_check_self_patch.json",
    "engines": "sanity_check_engine.json",
    "sounds": "sanity_check_sounds.json",
    "construction": "pair_construction_report.json",
}


class Measured:
    """One experiment: settings, pairs and records, and the metrics that follow; `records` is None with no whole pair.

    `lost` are the pairs that are listed as failed, as pair_id → reason.
    """

    def __init__(self, kept: Kept):
        self.name, self.settings, self.lost = kept.name, kept.settings, kept.failed
        self.n_measured = kept.n_measured
        self.pairs = pd.DataFrame(
            {name: [getattr(pair, name) for pair in kept.pairs] for name in PairRow.__struct_fields__}
        )
        self.records = _table(kept.columns) if kept.columns else None
        self.swept = [] if self.records is None else swept_columns(self.settings, self.records)

    @property
    def kind(self) -> str:
        return self.settings["kind"]

    @property
    def finished(self) -> bool:
        return self.settings["finished"]

    @property
    def seed(self) -> int:
        return self.settings["pair_sampling_seed"]

    @property
    def is_main(self) -> bool:
        return self.settings["intervention"] == "patch"

    @property
    def is_curve(self) -> bool:
        """Whether it is finished, with one row a layer at its highest dose."""
        return self.finished and self.records is not None and is_one_curve(self.swept)

    @property
    def measured_pairs(self) -> pd.DataFrame:
        """The pairs that gave records."""
        return self.pairs[self.pairs["pair_id"].isin(self.records["pair_id"])]

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row a cell, with 95 % limits, in six digits; see `analysis.metrics` and `analysis.intervals`.

        The swept values and the dose have all their digits, by which cells are told apart.
        """
        intervals = layer_intervals(self.records, self.pairs, self.seed, swept=self.swept)
        metrics = layer_metrics(self.records, near_tie_margin(self.settings), self.swept)
        metrics = metrics.merge(intervals, on=["layer", *self.swept])
        floats = metrics.select_dtypes("float").columns.difference([DOSE, *self.swept])
        return metrics.assign(**{column: metrics[column].map(lambda x: float(f"{x:.6g}")) for column in floats})

    @cached_property
    def curve(self) -> pd.DataFrame:
        """The metrics at the highest dose."""
        return at_highest_dose(self.metrics)


class Results:
    """A run directory; each experiment is read when it is first asked for, and kept.

    `before` are earlier results of the same run, by the process that writes there, of which the finished experiments
    but `done` are taken over. `UserError` where the run's configuration, or a report of its checks, is damaged.
    """

    def __init__(self, run: Path, before: "Results | None" = None, done: str = ""):
        self.run, self.config = run, read_config(run)
        if not self.config.get("experiments"):
            raise _holds_nothing(run)
        self.documents = {part: read_document(run / file) for part, file in REPORTS.items()}
        self._read: dict[str, Measured | UserError] = {}
        for name, one in (before._read if before else {}).items():
            if name != done and isinstance(one, Measured) and one.finished:
                self._read[name] = one
        self._hand_over: dict[str, dict[str, Any]] = {}
        self._contrasts: dict[str, pd.DataFrame] = {}
        self._made: dict[tuple[Callable, tuple], Any] = {}

    def once(self, make: "Callable[..., Made]", *of: Any) -> Made:
        """What `make(results, *of)` gives, made once: figures, and the tables behind them."""
        if (make, of) not in self._made:
            self._made[make, of] = make(self, *of)
        return self._made[make, of]

    @property
    def names(self) -> list[str]:
        """The experiments begun, in order."""
        return list(self.config["experiments"])

    def experiment(self, name: str) -> Measured:
        """An experiment of the run; `UserError` where its files do not hold together."""
        if name not in self._read:
            try:
                self._read[name] = Measured(read_experiment(self.run, self.config, name))
            except UserError as error:
                self._read[name] = error
        found = self._read[name]
        if isinstance(found, UserError):
            raise found
        return found

    @property
    def refused(self) -> dict[str, UserError]:
        """The experiments whose files do not hold together, with the reason."""
        refused = {}
        for name in self.names:
            try:
                self.experiment(name)
            except UserError as error:
                refused[name] = error
        return refused

    @property
    def believed(self) -> list[Measured]:
        """The experiments whose files hold together, in the order in which they were begun."""
        refused = self.refused
        return [self.experiment(name) for name in self.names if name not in refused]

    def main(self, kind: str) -> Measured | None:
        """The main experiment of a kind of pair, where it is finished and one curve."""
        mine = [one for one in self.believed if one.is_main and one.kind == kind and one.is_curve]
        return mine[0] if mine else None

    def controls(self, kind: str) -> tuple[list[Measured], dict[str, str]]:
        """The finished controls of a kind that ran as its main experiment did; and the others, with what differs."""
        main, alike, others = self.main(kind), [], {}
        if main is None:
            return [], {}
        for one in self.believed:
            if one.settings["control"] and one.kind == kind and one.finished and one.records is not None:
                found = differences(main, one)
                if found:
                    others[one.name] = found
                else:
                    alike.append(one)
        return alike, others

    def contrast(self, control: Measured) -> pd.DataFrame:
        """Main experiment − one of `controls`, by layer; see `analysis.intervals`."""
        if control.name not in self._contrasts:
            main, column = self.main(control.kind), main_rate(control.settings["intervention"]).removesuffix("_rate")
            tables = (main.records, control.records, main.pairs, control.pairs)
            self._contrasts[control.name] = contrast(*tables, column, control.seed)
        return self._contrasts[control.name]

    def hand_over(self, kind: str) -> dict[str, Any] | None:
        """The hand-over layers of a main experiment that is one curve; see `analysis.hand_over`."""
        main = self.main(kind)
        if main is not None and kind not in self._hand_over:
            alike, _ = self.controls(kind)
            suffix = next(((c.records, c.pairs) for c in alike if c.settings["intervention"] == SUFFIX), None)
            self._hand_over[kind] = hand_over(main.records, main.pairs, suffix, main.seed)
        return self._hand_over.get(kind)


def _holds_nothing(run: Path) -> UserError:
    by, replaced = writer(run), [path.name.removeprefix(REPLACING) for path in sorted(run.glob(f"{REPLACING}*"))]
    if by:
        return UserError(f"{run}: holds no experiment yet; {by} is writing there, try again when it has begun")
    if replaced:
        what = f"experiment {replaced[0]} was being replaced when that was interrupted"
        return UserError(f"{run}: holds no experiment, since {what}; run the same command again")
    return UserError(f"{run}: holds no experiment; name a run directory that `patch` or `control` made")


def _table(columns: Columns) -> pd.DataFrame:
    """The records; the columns are taken over and not copied."""
    return pd.DataFrame({n: Logits(values) if n in LOGITS else values for n, values in columns.items()}, copy=False)


def left_out(results: Results) -> list[str]:
    """What was not joined with a main experiment since it ran in another way, a line each."""
    lines = []
    for kind in KINDS:
        _, others = results.controls(kind)
        lines += [f"{name} is in no figure or contrast with {kind}: {why}" for name, why in others.items()]
    return lines
