"""Does the model do the task of a run's pairs? B's own rate, against chance.

    found = behaviour(results, "prosody")       # None where the run has no such pairs
    found.check                                 # in words
    warnings(results)                           # what to read before any curve
    unpatched_of(results).table                 # what the unpatched answers follow

Where B, unpatched, gives the target no more often than by chance, a low curve says nothing about the layers.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from voicepatch.analysis.answers import answered_clips, shares_of, what_answers_follow
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.logits import logits_of
from voicepatch.analysis.results import KINDS, Results
from voicepatch.analysis.rounding import with_interval
from voicepatch.analysis.samples import sample_of
from voicepatch.analysis.tables import unpatched
from voicepatch.errors import UserError
from voicepatch.text import counted
from voicepatch.types.check import Check


@dataclass(frozen=True)
class Behaviour:
    """B's own rate: the share of pairs whose B, unpatched, answers with the target.

    `low` and `high` are its 95 % limits, NaN where the pairs have fewer than two texts. Of pairs that were `selected`
    by the model's answers the rate says nothing of the model.
    """

    kind: str
    rate: float
    low: float
    high: float
    chance: float
    n_pairs: int
    selected: bool = False

    @property
    def is_above_chance(self) -> bool:
        """Whether the lower limit is above chance; false where there is none, true of selected pairs."""
        return self.selected or self.low > self.chance

    @property
    def check(self) -> Check:
        """The rate in one sentence; a note where it is not above chance."""
        name = f"B's own rate is above chance in {self.kind} pairs"
        if self.selected:
            text = (
                f"only {self.kind} pairs that the model answers were taken (--only answered): B's own rate is "
                f"{self.rate:.0%} by this selection, and the results hold for such pairs alone"
            )
            return Check(name, True, text, note=True)
        low, high = (None if np.isnan(limit) else 100 * limit for limit in (self.low, self.high))
        value, interval = with_interval(100 * self.rate, low, high)
        text = f"B, unpatched, answers with the target in {value} % of {counted(self.n_pairs, f'{self.kind} pair')}"
        text += f" ({interval})" if interval else ""
        text += f"; chance is {100 * self.chance:.3g} %"
        if not interval:
            text += "; there is no interval, since these pairs have one text"
        if not self.is_above_chance:
            text += (
                f". The model is not shown to do the task above chance, so a low {self.kind} curve says nothing about "
                "the layers"
            )
        return Check(name, True, text, note=not self.is_above_chance)

    @property
    def line(self) -> str:
        """The check on the terminal."""
        return f"{'' if self.is_above_chance else 'warning: '}{self.check.text}"


def behaviour(results: Results, kind: str) -> Behaviour | None:
    """B's own rate in the pairs of a main experiment that gave records."""
    return results.cached(_behaviour, kind)


def _behaviour(results: Results, kind: str) -> Behaviour | None:
    mains = [one for one in results.valid if one.is_main and one.kind == kind and one.records is not None]
    if not mains:
        return None
    main = mains[0]
    first = main.records.drop_duplicates("pair_id").set_index("pair_id")
    pairs = main.measured_pairs.sort_values("pair_id")
    answers = pd.Series(logits_of(first["logits_donor"]).answers(), first.index)
    is_target = answers.reindex(pairs["pair_id"]).to_numpy() == pairs["target"].to_numpy()
    (rate,), (low,), (high,) = shares_of(is_target[:, None].astype(float), sample_of(pairs).sharing, main.seed)
    return Behaviour(kind, rate, low, high, 1 / len(results.task.labels), len(pairs), _is_selected(main))


def _is_selected(main: ExperimentResults) -> bool:
    return main.settings["only"] == "answered"


def checks(results: Results) -> list[Check]:
    """B's own rate in each kind of pair that the run has, and stored answers that do not hold together."""
    error = unpatched_of(results).error
    found = [found.check for kind in KINDS if (found := behaviour(results, kind))]
    return [*found, *([Check("The answers cannot be shown", False, error)] if error else [])]


def warnings(results: Results) -> list[str]:
    """The sentences to read before any curve.

    They say in which kinds of pair the model is not shown to do the task, or the pairs were selected by its answers,
    and where the labels hold little of its probability.
    """
    mains = [one for one in results.valid if one.is_main and one.records is not None]
    little = [f"{one.kind.capitalize()} pairs: {one.little_mass}" for one in mains if one.little_mass]
    return [*(check.text for check in checks(results) if check.note), *little]


@dataclass(frozen=True)
class Unpatched:
    """What the unpatched answers of a run follow (`what_answers_follow`), and whose answers they are, in words.

    `table` is None where the run has none, or where its answers do not hold together, as `error` then says.
    """

    table: pd.DataFrame | None
    of: str = ""
    error: str = ""


def unpatched_of(results: Results) -> Unpatched:
    """Of the clips that `answers` has asked about; without it, of the clips of the main experiments' pairs.

    With `--only answered` these pairs are those that were tried, whether they passed or not.
    """
    return results.cached(_unpatched_of)


def _unpatched_of(results: Results) -> Unpatched:
    labels = results.task.labels
    mains = [one for one in results.valid if one.is_main and one.records is not None]
    has_run = results.config.get("answers", {}).get("finished")
    if has_run or any(map(_is_selected, mains)):
        try:
            clips = answered_clips(results.run, results.config)
        except UserError as error:
            return Unpatched(None, error=str(error))
        asked = ("that was" if len(clips) == 1 else "that were") + " asked about"
        of = f"the {counted(len(clips), 'clip')} {asked if has_run else 'of the pairs that were tried'}"
        return Unpatched(what_answers_follow(clips, labels), of)
    if not mains:
        return Unpatched(None)
    clips = pd.concat([unpatched(main.records, main.pairs) for main in mains]).drop_duplicates("clip_id")
    kinds = " and ".join(main.kind for main in mains)
    return Unpatched(what_answers_follow(clips, labels), f"the {counted(len(clips), 'clip')} of the {kinds} pairs")
