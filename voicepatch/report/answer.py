"""What a run found, in the sentences at the top of its report and on the terminal.

answer(results)                  # ["B's words stop overriding A's answer 1.0 layers (95 % …) earlier …", …]
outcome(experiment)              # "at most 80% of the 25 eligible clips (layer 9; 95 % …) flipped to the target; …"
"""

import pandas as pd

from voicepatch.analysis.experiment_results import FROM_BASE, TO_TARGET_ELIGIBLE, ExperimentResults
from voicepatch.analysis.results import Results
from voicepatch.analysis.rounding import rate_text
from voicepatch.analysis.words_and_voice import headline
from voicepatch.figures.own import own
from voicepatch.text import counted


def answer(results: Results) -> list[str]:
    """The headline on overriding and need; without one, what each experiment found.

    Controls count there only where the run has nothing else.
    """
    finished = [one for one in results.valid if one.finished and one.records is not None]
    further = [one for one in finished if not one.settings["control"]] or finished
    return headline(results) or [found(results, one) for one in further]


def found(results: Results, experiment: ExperimentResults) -> str:
    """What came out of an experiment, with its own finding first, and what it did."""
    did = experiment.what.rstrip(".") + (" (its logits are estimates)" if experiment.is_estimate else "")
    sentences = own(results, experiment, "sentences", results, experiment)
    if experiment.settings["reads_only"]:
        return " ".join([f"{did}.", *sentences])
    of = outcome(experiment)
    return " ".join([*sentences, f"{did}. {of[0].upper()}{of[1:]}."])


def outcome(experiment: ExperimentResults) -> str:
    """How often A's answer became the target among eligible pairs, and how often it changed at all."""
    metrics, unit = experiment.curve, experiment.unit
    top = metrics.loc[metrics[FROM_BASE].idxmax()]
    of = f"of {counted(int(top['n_pairs']), unit)}"
    would = "by the estimates, " if experiment.is_estimate else ""
    most = _at_most(experiment, top, FROM_BASE, of) if top[FROM_BASE] else f"none {of}"
    changed = f"{would}A's answer changed in {most}"
    eligible = metrics[TO_TARGET_ELIGIBLE]
    if experiment.rate == FROM_BASE:
        return changed
    if eligible.isna().all():
        return f"no {unit} was eligible; {changed}"
    top = metrics.loc[eligible.idxmax()]
    of = f"of the {counted(int(top['eligible_count']), f'eligible {unit}')}"
    if top[TO_TARGET_ELIGIBLE]:
        return f"{_at_most(experiment, top, TO_TARGET_ELIGIBLE, of)} flipped to the target; {changed}"
    return f"none {of} flipped to the target; {changed}"


def _at_most(experiment: ExperimentResults, row: pd.Series, column: str, of: str) -> str:
    """The highest rate, its cell and its interval, as "at most 80% of 25 clips (layer 9; 95 % interval 60% to 92%)"."""
    where = filter(None, [experiment.cell(row), interval_in(row, column)])
    return f"at most {rate_in(row, column)} {of} ({'; '.join(where)})"


def rate_in(row: pd.Series, column: str) -> str:
    """A rate of a row of metrics in percent, with the digits that its limits allow."""
    return rate_text(row[column], row.get(f"{column}_low"), row.get(f"{column}_high"))


def interval_in(row: pd.Series, column: str) -> str:
    """The interval of a rate of a row of metrics; "" where it has none."""
    low, high = (row.get(f"{column}_{side}") for side in ("low", "high"))
    return f"95 % interval {rate_text(low, low, high)} to {rate_text(high, low, high)}" if pd.notna(low) else ""
