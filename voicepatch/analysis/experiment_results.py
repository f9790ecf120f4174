"""One experiment of a run, with the metrics that follow from its records."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from msgspec import to_builtins

from voicepatch.analysis import congruence
from voicepatch.analysis.cells import DOSE, at_highest_dose, combinations, is_one_curve
from voicepatch.analysis.contrasts import Side
from voicepatch.analysis.layer_metrics import layer_intervals, layer_metrics
from voicepatch.analysis.logits import Logits
from voicepatch.analysis.metrics import METRICS, Metric, with_metrics
from voicepatch.analysis.sites import BLOCK_OUTPUT, NOTHING, site_name, sites_of
from voicepatch.errors import UserError
from voicepatch.store.experiment import StoredExperiment
from voicepatch.store.table import Columns
from voicepatch.text import counted, escape
from voicepatch.types.record import LOGITS
from voicepatch.types.task import DONOR_TASK, load_task

TO_TARGET_ELIGIBLE, FROM_BASE = "flip_to_target_rate_eligible", "flip_from_base_rate"
ENOUGH_MASS = 0.5  # with less of the model's probability on the labels, the answer among them means little
# Columns of the metrics that mean something where there is no donor, and so no target.
OF_CLIPS = (
    *("layer", "n_pairs", FROM_BASE, "label_mass_patch_mean", "stream_shift_mean"),
    *("patch_alpha", "near_tie_count", "site"),
)
SPAN, OTHER_TASK = "over the audio span", "another task"  # as the docstrings of experiments say it
PLACES = {
    "after": "at all positions after the audio span",
    "question": "over the question",
    "last": "at the last position",
    "shared": "at the tokens that both prompts end with",
    "differing": "at the tokens between the audio span and those that both prompts end with",
}


class ExperimentResults:
    """One experiment of a run: settings, pairs and records, and the metrics that follow.

    `records` is None while no pair is complete; they have a column for each of the further `metrics`. `failed` is
    pair_id → reason.
    """

    def __init__(self, stored: StoredExperiment, labels: Sequence[str], metrics: Sequence[Metric] = ()):
        self.name, self.settings, self.failed = stored.name, stored.settings, stored.failed
        self.n_measured, self.further_metrics = stored.n_measured, metrics
        self.pairs = pd.DataFrame(to_builtins(stored.pairs))
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
    def rate(self) -> str:
        """The rate of its effect: 0 where it does nothing, so A's own rate is no part of it."""
        judged_by_target = self.has_donor and self.judged_by == "flip_to_target_rate"
        return TO_TARGET_ELIGIBLE if judged_by_target else FROM_BASE

    @property
    def unit(self) -> str:
        """What `pairs` counts: a pair of clips, or one clip where no other clip is the donor."""
        return "pair" if self.pairs_of_clips else "clip"

    @property
    def is_estimate(self) -> bool:
        """Whether its logits are estimates."""
        return self.settings["approximate"]

    @property
    def has_donor(self) -> bool:
        """Whether any pair has another clip, or another question, as B; without one there is no target either."""
        return DONOR_TASK in self.settings["options"] or self.pairs_of_clips

    @property
    def pairs_of_clips(self) -> bool:
        """Whether any pair has another clip as B."""
        return bool((self.pairs["clip_a"] != self.pairs["clip_b"]).any())

    def meaningful(self, columns: Iterable[str]) -> list[str]:
        """Those columns of its metrics that mean something: without a donor, none that is of a target."""
        of_target = set() if self.has_donor else {*METRICS} - {*OF_CLIPS}
        return [name for name in columns if name.removesuffix("_low").removesuffix("_high") not in of_target]

    @property
    def what(self) -> str:
        """What it does, in one sentence, with the positions that its option `at` chose and the donor's task."""
        return what_it_does(self.settings)

    @property
    def site(self) -> str:
        """What was written in the block, in words; "" without records."""
        return "" if self.records is None else site_name(self.records)

    @property
    def writes(self) -> bool:
        """Whether it changes A's run; true without records."""
        return self.records is None or sites_of(self.records) != [NOTHING]

    @property
    def doses(self) -> list[float]:
        """Every alpha that ran."""
        if self.records is not None:
            return sorted(self.records[DOSE].unique().tolist())
        alpha = self.settings["patch_alpha"]
        return alpha if isinstance(alpha, list) else [alpha]

    def cell(self, row: pd.Series) -> str:
        """The cell of a row of its metrics, as "layer 3, head 2"; without the layer where all have one row."""
        values = combinations(row.to_frame().T.infer_objects(), [c for c in self.swept if c != DOSE]).iloc[0]
        layer = f"layer {int(row['layer'])}" if self.settings["by_layer"] else ""
        return ", ".join(filter(None, [layer, values])) or "all layers"

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

        The swept values and the dose have all their digits, which distinguish the cells.
        """
        return self.metrics_of(self.records, self.pairs)

    def metrics_of(self, records: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
        """The metrics of some of its pairs."""
        swept, further = self.swept, self.further_metrics
        intervals = layer_intervals(records, pairs, self.seed, swept=swept, metrics=further)
        metrics = layer_metrics(records, self.settings["near_tie_margin"], swept=swept, metrics=further)
        metrics = metrics.merge(intervals, on=["layer", *swept])
        floats = metrics.select_dtypes("float").columns.difference([DOSE, *self.swept])
        return metrics.assign(**{column: metrics[column].map(lambda x: float(f"{x:.6g}")) for column in floats})

    @cached_property
    def curve(self) -> pd.DataFrame:
        """The metrics at the highest dose."""
        return at_highest_dose(self.metrics)

    @cached_property
    def congruent(self) -> np.ndarray:
        """Of each pair of a main experiment, whether the shared voice is the target (`analysis.congruence`)."""
        return congruence.is_congruent_in(self.pairs)

    @cached_property
    def congruence_note(self) -> str:
        """How many pairs `side` has and leaves out; "" where it leaves none out."""
        return congruence.note(self.congruent) if self.is_main else ""

    @cached_property
    def n_compared(self) -> int:
        """How many measured pairs `side` has: those behind the hand-over layer, the area and every comparison."""
        return self.side.records["pair_id"].nunique()

    @property
    def of_compared(self) -> str:
        """What follows a number of the compared pairs, as ", of 14 pairs"; "" where they are all that were measured."""
        return "" if self.n_compared == self.n_measured else f", of {counted(self.n_compared, 'pair')}"

    @property
    def compared_counts(self) -> str:
        """The number of compared pairs, as "14 of 20 pairs", or "20 pairs" where these are all that were measured."""
        all_pairs = counted(self.n_measured, "pair")
        return all_pairs if self.n_compared == self.n_measured else f"{self.n_compared} of {all_pairs}"

    @cached_property
    def side(self) -> Side:
        """A main experiment as one side of a contrast, without its congruent pairs."""
        return self.side_without(self.congruent)

    def side_without(self, left_out: np.ndarray) -> Side:
        """The experiment as one side of a contrast, without the pairs `left_out`."""
        return Side(self.kind, *congruence.without(self.records, self.pairs, left_out))

    @cached_property
    def metrics_by_congruence(self) -> pd.DataFrame:
        """The metrics of the pairs that are not congruent and of those that are, after a column `congruent`."""
        parts = {is_so: self.side_without(self.congruent != is_so) for is_so in (False, True)}
        tables = {is_so: self.metrics_of(one.records, one.pairs) for is_so, one in parts.items() if len(one.records)}
        return pd.concat(tables, names=["congruent", None]).reset_index("congruent").reset_index(drop=True)

    @cached_property
    def compared_curve(self) -> pd.DataFrame:
        """The `curve` of the pairs of `side`, which is compared with other curves."""
        if not self.congruent.any():
            return self.curve
        table = self.metrics_by_congruence
        return at_highest_dose(table[~table["congruent"]].drop(columns="congruent"))

    @property
    def label_mass(self) -> pd.Series:
        """Of each clip whose run is changed, the probability that the unpatched model gives to the labels together."""
        return self.records.groupby("clip_a")["label_mass_base"].first()

    @property
    def little_mass(self) -> str:
        """What to know where the labels hold little of the model's probability; "" where they hold enough."""
        return little_mass(self.label_mass)

    def writes_suffix_of(self, main: "ExperimentResults", n_suffix: int) -> bool:
        """Whether B's streams were written at all `n_suffix` positions after A's span, in the pairs of `main`."""
        clips = ["clip_a", "clip_b"]
        if not np.array_equal(self.pairs[clips], main.pairs[clips]) or sites_of(self.records) != [BLOCK_OUTPUT]:
            return False
        ends = (main.records["patched_from"] + main.records["len_a"]).groupby(main.records["clip_a"]).first()
        starts_there = self.records["patched_from"] == self.records["clip_a"].map(ends)
        return bool((starts_there & (self.records["n_patched"] == n_suffix)).all())


def little_mass(mass: pd.Series) -> str:
    """What to know where labels hold this `mass` of each clip's probability; "" where they hold enough of it."""
    if not mass.mean() < ENOUGH_MASS:
        return ""
    return (
        f"the labels hold {mass.mean():.1%} of the unpatched model's probability on average, so the answers among them "
        "mean little (docs/tasks.md)"
    )


def _table(columns: Columns, labels: Sequence[str]) -> pd.DataFrame:
    """The records; the columns are not copied."""
    table = {name: Logits(values, labels) if name in LOGITS else values for name, values in columns.items()}
    return pd.DataFrame(table, copy=False)


def what_it_does(settings: Mapping[str, Any]) -> str:
    """What an experiment with these settings does, in one sentence, with its positions and the donor's task."""
    words, options = inspect.cleandoc(settings["describes"]).split("\n\n")[0].split(), settings["options"]
    sentence = " ".join(map(escape, words))
    if isinstance(options.get("k"), int):  # and not several values
        sentence = sentence.replace(" k consecutive layers", f" {options['k']} consecutive layers")
    if DONOR_TASK in options:
        sentence = sentence.replace(OTHER_TASK, f"task {escape(str(options[DONOR_TASK]))}")
    where = PLACES.get(str(options.get("at")))
    if where and SPAN in sentence:
        return sentence.replace(SPAN, where)
    if where and sentence:
        return f"{sentence.removesuffix('.')}, {where}."
    return sentence or f'intervention "{escape(settings["intervention"])}"'


def donor_question(experiment: ExperimentResults) -> str:
    """The question that B is asked where it is another one; "" where its task is not known any more."""
    name, files = experiment.settings["options"].get(DONOR_TASK), experiment.settings.get("option_files", {})
    try:
        task = load_task(name) if name in files else None
    except UserError:
        return ""
    return task.asked() if task and task.sha256 == files[name] else ""
