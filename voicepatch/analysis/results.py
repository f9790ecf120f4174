"""The experiments of a run that hold together, read once by the one reader, and what follows from their records.

    results = Results(Path("results/RUN"))
    prosody = results.experiment("prosody")     # UserError where its files do not hold together
    prosody.metrics, prosody.hand_over

Nothing here comes from a table that was written before: metrics and statistics are computed from the records.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from voicepatch.analysis.areas import area_of
from voicepatch.analysis.comparable import control_differences
from voicepatch.analysis.congruence import NONE_LEFT
from voicepatch.analysis.contrasts import Side, contrast_with_control
from voicepatch.analysis.experiment_results import FROM_BASE, ExperimentResults
from voicepatch.analysis.hand_over import curve_of, hand_over, no_hand_over
from voicepatch.analysis.metrics import Metric
from voicepatch.analysis.samples import sample_of
from voicepatch.errors import UserError
from voicepatch.store.experiment import read_experiment
from voicepatch.store.lock import writer
from voicepatch.store.reading import read_config, read_document
from voicepatch.types.clip import Clip
from voicepatch.types.task import task_of

Made = TypeVar("Made")
# A run's configuration -> its clips by id, or none and the reason.
ClipFinder = Callable[[dict[str, Any]], tuple[Mapping[str, Clip], str]]
KINDS = ("prosody", "semantic")
REPORTS = {
    "tokens": "tokenization_report.json",
    "spans": "sanity_check_audio_span.json",
    "model": "sanity_check_model.json",
    "self_patch": "sanity_check_self_patch.json",
    "planted": "sanity_check_planted.json",
    "natural": "sanity_check_natural.json",
    "engines": "sanity_check_engine.json",
    "sounds": "sanity_check_sounds.json",
    "construction": "pair_construction_report.json",
}


def no_clips(config: dict[str, Any]) -> tuple[Mapping[str, Clip], str]:
    """The `ClipFinder` that looks for none."""
    return {}, "The data were not looked for when this page was made, so it has no texts and no sound."


class Results:
    """A run directory; each experiment is read when it is first asked for, and kept.

    `before` are earlier results of the same run, by the process that writes there; its finished experiments but `done`
    are not read again. `metrics` are measured beside the built-in ones, and
    `find_clips` finds the run's clips. `by` are columns to break the metrics down by, beside those that the run
    records. `UserError` where the run's configuration, or a report of its checks, is damaged.
    """

    def __init__(
        self,
        run: Path,
        before: "Results | None" = None,
        done: str = "",
        metrics: Sequence[Metric] = (),
        find_clips: ClipFinder = no_clips,
        by: Sequence[str] = (),
    ):
        self.run, self.config = run, read_config(run)
        self.further_metrics, self._find_clips, self.by = tuple(metrics), find_clips, tuple(by)
        has_answers = self.config.get("answers", {}).get("finished", False)
        if not self.config.get("experiments") and not has_answers:
            raise _holds_nothing(run)
        self.task = task_of(self.config["task"])
        self.documents = {part: read_document(run / file) for part, file in REPORTS.items()}
        self._read: dict[str, ExperimentResults | UserError] = {}
        for name, one in (before._read if before else {}).items():
            if name != done and isinstance(one, ExperimentResults) and one.finished:
                self._read[name] = one
        self._hand_over: dict[str, dict[str, Any]] = {}
        self._areas: dict[str, dict[str, Any]] = {}
        self._contrasts: dict[str, pd.DataFrame] = {}
        self._made: dict[tuple[Callable, tuple], Any] = {}

    def cached(self, make: "Callable[..., Made]", *of: Any) -> Made:
        """What `make(results, *of)` gives, made once: figures, and the tables behind them."""
        if (make, of) not in self._made:
            self._made[make, of] = make(self, *of)
        return self._made[make, of]

    @cached_property
    def clips(self) -> tuple[Mapping[str, Clip], str]:
        """The clips that the run was made from, by id; or none, and a sentence that says why."""
        return self._find_clips(self.config)

    @property
    def names(self) -> list[str]:
        """The experiments begun, in order."""
        return list(self.config["experiments"])

    def experiment(self, name: str) -> ExperimentResults:
        """An experiment of the run; `UserError` where its files do not hold together."""
        if name not in self._read:
            try:
                stored = read_experiment(self.run, self.config, name)
                self._read[name] = ExperimentResults(stored, self.task.labels, self.further_metrics)
            except UserError as error:
                self._read[name] = error
        found = self._read[name]
        if isinstance(found, UserError):
            raise found
        return found

    @property
    def invalid(self) -> dict[str, UserError]:
        """The experiments whose files do not hold together, with the reason."""
        invalid = {}
        for name in self.names:
            try:
                self.experiment(name)
            except UserError as error:
                invalid[name] = error
        return invalid

    @property
    def valid(self) -> list[ExperimentResults]:
        """The experiments whose files hold together, in the order in which they were begun."""
        invalid = self.invalid
        return [self.experiment(name) for name in self.names if name not in invalid]

    def main(self, kind: str) -> ExperimentResults | None:
        """The main experiment of a kind of pair, where it is finished and one curve."""
        mine = [one for one in self.valid if one.is_main and one.kind == kind and one.is_curve]
        return mine[0] if mine else None

    def controls(self, kind: str) -> tuple[list[ExperimentResults], dict[str, str]]:
        """The finished controls of a kind that ran as its main experiment did; and the others, with what differs."""
        main, comparable, others = self.main(kind), [], {}
        if main is None:
            return [], {}
        for one in self.valid:
            if one.settings["control"] and one.kind == kind and one.finished and one.records is not None:
                found = control_differences(main, one)
                if found:
                    others[one.name] = "; ".join(found)
                else:
                    comparable.append(one)
        return comparable, others

    def contrast(self, control: ExperimentResults) -> pd.DataFrame:
        """Main experiment − one of `controls`, by layer and `rate`; see `analysis.contrasts`. No row without pairs."""
        if control.name not in self._contrasts:
            sides = self.main(control.kind).side, self.beside_main(control)
            rates = self.rates_of(control) if all(len(side.records) for side in sides) else []
            tables = [
                contrast_with_control(*sides, rate.removesuffix("_rate"), control.seed).assign(rate=rate)
                for rate in rates
            ]
            self._contrasts[control.name] = pd.concat(tables) if tables else pd.DataFrame()
        return self._contrasts[control.name]

    def rates_of(self, control: ExperimentResults) -> list[str]:
        """The rates by which one of `controls` is compared with its main experiment.

        A donor that is another clip than B must not turn the answer to B's label, and yet can change it as often as B
        does. So a control with such donors for the same recipients has the flip-from-base rate as a second one.
        """
        main = self.main(control.kind)
        same_recipients, same_donors = (
            list(main.pairs[clip]) == list(control.pairs[clip]) for clip in ("clip_a", "clip_b")
        )
        return list(dict.fromkeys([control.judged_by, *([FROM_BASE] if same_recipients and not same_donors else [])]))

    def beside_main(self, control: ExperimentResults) -> Side:
        """One of `controls`, on the recipients of its main experiment's `side` where it has that one's recipients."""
        main = self.main(control.kind)
        if list(main.pairs["clip_a"]) == list(control.pairs["clip_a"]):
            return control.side_without(main.congruent)
        return control.side

    def hand_over(self, kind: str) -> dict[str, Any] | None:
        """The hand-over layers of a main experiment that is one curve; see `analysis.hand_over`."""
        main = self.main(kind)
        if main is not None and kind not in self._hand_over:
            comparable, _ = self.controls(kind)
            suffix = next((self.beside_main(c) for c in comparable if self.writes_suffix(c)), None)
            self._hand_over[kind] = hand_over_of_side(main.side, suffix, main.seed)
        return self._hand_over.get(kind)

    def area(self, kind: str) -> dict[str, Any] | None:
        """The area under the curve of a main experiment; see `analysis.areas`."""
        main = self.main(kind)
        if main is not None and kind not in self._areas:
            self._areas[kind] = area_of_side(main.side)
        return self._areas.get(kind)

    def writes_suffix(self, control: ExperimentResults) -> bool:
        """Whether it writes B's streams at all positions after the span, in the pairs of its main experiment."""
        main, spans = self.main(control.kind), self.documents["spans"]
        if main is None or not spans:
            return False
        clip = spans["clips"][0]  # the question is the same for every clip, so the suffix is as long
        return control.writes_suffix_of(main, clip["n_input_ids"] - clip["span_end"])


def hand_over_of_side(main: Side, suffix: Side | None, seed: int) -> dict[str, Any]:
    """The hand-over layers of one curve, and of the suffix where it was patched; none without pairs."""
    if main.records.empty:
        return no_hand_over(NONE_LEFT)
    return hand_over(main.records, main.pairs, (suffix.records, suffix.pairs) if suffix else None, seed)


def area_of_side(main: Side) -> dict[str, Any]:
    """The area under one curve; none without pairs."""
    if main.records.empty:
        return {"area": None, "low": None, "high": None, "reason": NONE_LEFT}
    return area_of(curve_of(main.records, main.pairs, sample_of(main.pairs), eligible=False))


def _holds_nothing(run: Path) -> UserError:
    by = writer(run)
    if by:
        return UserError(f"{run}: holds no experiment yet; {by} is writing there, try again when it has begun")
    return UserError(f"{run}: holds no experiment; name a run directory that `patch` or `control` made")


def left_out(results: Results) -> list[str]:
    """What was not joined with a main experiment since it ran in another way, a line each."""
    lines = []
    for kind in KINDS:
        _, others = results.controls(kind)
        lines += [f"{name} is in no figure or contrast with {kind}: {why}" for name, why in others.items()]
    return lines
