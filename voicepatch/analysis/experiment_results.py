"""One experiment of a run, with the metrics that follow from its records."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from voicepatch.analysis.cells import DOSE, at_highest_dose, is_one_curve
from voicepatch.analysis.contrasts import Side
from voicepatch.analysis.layer_metrics import layer_intervals, layer_metrics
from voicepatch.analysis.logits import Logits
from voicepatch.analysis.metrics import Metric, with_metrics
from voicepatch.analysis.sites import BLOCK_OUTPUT, sites_of
from voicepatch.store.experiment import StoredExperiment
from voicepatch.store.table import Columns
from voicepatch.types.record import LOGITS, PairRow


class ExperimentResults:
    """One experiment of a run: settings, pairs and records, and the metrics that follow.

    `records` is None while no pair is complete; they have a column for each of the further `metrics`. `failed` is
    pair_id → reason.
    """

    def __init__(self, stored: StoredExperiment, labels: Sequence[str], metrics: Sequence[Metric] = ()):
        self.name, self.settings, self.failed = stored.name, stored.settings, stored.failed
        self.n_measured, self.further_metrics = stored.n_measured, metrics
        self.pairs = pd.DataFrame(
            {name: [getattr(pair, name) for pair in stored.pairs] for name in PairRow.__struct_fields__}
        )
        self.records = with_metrics(_table(stored.columns, labels), metrics) if stored.columns else None
        self.swept: list[str] = list(self.settings["swept"])

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
        return self.settings["main"]

    @property
    def judged_by(self) -> str:
        """The rate that counts, a column of the metrics."""
        return self.settings["judged_by"]

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
        """One row a cell, with 95 % limits, in six digits (`analysis.layer_metrics`).

        The swept values and the dose have all their digits, by which cells are told apart.
        """
        swept, further = self.swept, self.further_metrics
        intervals = layer_intervals(self.records, self.pairs, self.seed, swept=swept, metrics=further)
        metrics = layer_metrics(self.records, self.settings["near_tie_margin"], swept=swept, metrics=further)
        metrics = metrics.merge(intervals, on=["layer", *swept])
        floats = metrics.select_dtypes("float").columns.difference([DOSE, *self.swept])
        return metrics.assign(**{column: metrics[column].map(lambda x: float(f"{x:.6g}")) for column in floats})

    @cached_property
    def curve(self) -> pd.DataFrame:
        """The metrics at the highest dose."""
        return at_highest_dose(self.metrics)

    @cached_property
    def side(self) -> Side:
        """The experiment as one side of a contrast."""
        return Side(self.kind, self.records, self.pairs)

    def writes_suffix_of(self, main: "ExperimentResults", n_suffix: int) -> bool:
        """Whether B's streams were written at all `n_suffix` positions after A's span, in the pairs of `main`."""
        clips = ["clip_a", "clip_b"]
        if not np.array_equal(self.pairs[clips], main.pairs[clips]) or sites_of(self.records) != [BLOCK_OUTPUT]:
            return False
        ends = (main.records["patched_from"] + main.records["len_a"]).groupby(main.records["clip_a"]).first()
        starts_there = self.records["patched_from"] == self.records["clip_a"].map(ends)
        return bool((starts_there & (self.records["n_patched"] == n_suffix)).all())


def _table(columns: Columns, labels: Sequence[str]) -> pd.DataFrame:
    """The records; the columns are not copied."""
    table = {name: Logits(values, labels) if name in LOGITS else values for name, values in columns.items()}
    return pd.DataFrame(table, copy=False)
