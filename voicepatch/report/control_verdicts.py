"""Whether a control came out as its declaration expects, for the terminal and the report.

verdict = verdict_of(results, results.experiment("self"))        # a Check; None where nothing is expected
control_verdicts(results)           # ["Control self: as expected. Expected: no answer changes …; found: …"]
"""

from voicepatch.analysis.cells import at_highest_dose
from voicepatch.analysis.experiment_results import FROM_BASE, TO_TARGET_ELIGIBLE, ExperimentResults
from voicepatch.analysis.logits import logits_of
from voicepatch.analysis.results import Results
from voicepatch.registry.catalogue import catalogue
from voicepatch.report.answer import rate_in
from voicepatch.types.check import Check

LEVEL = 0.05  # of p_max, which is corrected for all layers
AS_EXPECTED, OTHERWISE, OPEN = "as expected", "not as expected", "the data do not show it"
EFFECTS = {FROM_BASE: "changed answers", TO_TARGET_ELIGIBLE: "flips to the target among eligible pairs"}


def verdict_of(results: Results, experiment: ExperimentResults) -> Check | None:
    """What was expected, what was found, and whether they agree; None where nothing that can be judged is expected.

    It fails where a control shows an error of the instrument; of a curve that is not as expected it is a note.
    """
    entry = catalogue().get(experiment.settings["intervention"])
    expected = entry.expected if entry else ""
    if experiment.records is None:
        return None
    if experiment.settings["must_change_nothing"]:
        return _check(experiment, expected or "no answer changes", *_unchanged(experiment), is_error=True)
    if not entry or not expected or not experiment.settings["control"]:
        return None
    if results.writes_suffix(experiment):
        return _check(experiment, expected, *_ends_at_donor(results, experiment), is_error=True)
    if entry.most_of_main is None:
        return None
    return _check(experiment, expected, *_below_main(results, experiment, entry.most_of_main))


def control_verdicts(results: Results) -> list[str]:
    """The verdicts of all controls of a run, a line each, for the terminal."""
    found = [verdict_of(results, one) for one in results.valid if one.settings["control"]]
    return [f"{verdict.name}: {verdict.text}" for verdict in found if verdict]


def _check(experiment: ExperimentResults, expected: str, found: str, verdict: str, is_error: bool = False) -> Check:
    failed = is_error and verdict == OTHERWISE
    text = f"{verdict}. Expected: {expected}; found: {found}."
    return Check(f"Control {experiment.name}", not failed, text, note=not failed and verdict != AS_EXPECTED)


def _unchanged(experiment: ExperimentResults) -> tuple[str, str]:
    changed, n = int(experiment.records["flip_from_base"].sum()), len(experiment.records)
    return f"{changed or 'none'} of {n} patched answers changed", OTHERWISE if changed else AS_EXPECTED


def _ends_at_donor(results: Results, experiment: ExperimentResults) -> tuple[str, str]:
    """With B's stream at all later positions of the last layer, the answer is B's, whatever the model does."""
    last = results.config["model"]["n_layers"] - 1
    records = experiment.records[experiment.records["layer"] == last]
    records = records[records["patch_alpha"] == 1]
    if records.empty:
        return f"layer {last}, the model's last, did not run at alpha 1", OPEN
    answers, donor = (logits_of(records[column]).answers() for column in ("logits_patch", "logits_donor"))
    n_other = int((answers != donor).sum())
    curve = experiment.curve
    first = curve.iloc[0]
    rises = f"{rate_in(first, 'flip_to_target_rate')} of answers are the target at layer {int(first['layer'])} and "
    rises += f"{rate_in(curve.iloc[-1], 'flip_to_target_rate')} at layer {int(curve.iloc[-1]['layer'])}"
    found = f"{n_other or 'none'} of {len(records)} answers at layer {last} differ from B's own; {rises}"
    if n_other:
        return found, OTHERWISE
    return found, AS_EXPECTED if curve["flip_to_target_rate"].iloc[-1] > first["flip_to_target_rate"] else OPEN


def _below_main(results: Results, experiment: ExperimentResults, most: float) -> tuple[str, str]:
    """Below the main curve at some layer, above it at none, and its highest rate at most `most` of the main one's."""
    main, (comparable, others) = results.main(experiment.kind), results.controls(experiment.kind)
    if main is None:
        return f"there is no finished {experiment.kind} experiment to compare it with", OPEN
    if experiment not in comparable:
        return f"it cannot be compared with {main.name}: {others.get(experiment.name, 'it is not finished')}", OPEN
    rate = experiment.rate
    side, curve = results.beside_main(experiment), experiment.curve
    if len(side.records) < len(experiment.records):  # without the congruent pairs, as the main curve
        curve = at_highest_dose(experiment.metrics_of(side.records, side.pairs)) if len(side.records) else curve[:0]
    curves = (curve, main.compared_curve)
    tops = [one.loc[one[rate].idxmax()] if one[rate].notna().any() else None for one in curves]
    mine, theirs = tops
    if mine is None or theirs is None:
        return "no pair was eligible", OPEN
    found = f"at most {rate_in(mine, rate)} {EFFECTS[rate]} ({main.name}: at most {rate_in(theirs, rate)})"
    table = results.contrast(experiment)
    table = table[table["rate"] == experiment.judged_by] if len(table) else table
    if not len(table) or table["p_max"].isna().all():
        reason = next((str(why) for why in table.get("reason", []) if why), "no pairs are left")
        return f"{found}; no test ({reason})", OPEN
    told_apart = table[table["p_max"] < LEVEL].sort_values("p_max")
    if told_apart.empty:
        return f"{found}; no layer has a difference with p over all layers below {LEVEL:g}", OPEN
    higher = told_apart[told_apart["difference"] < 0]
    best = (higher if len(higher) else told_apart).iloc[0]
    which = "higher" if len(higher) else "lower"
    found += f"; {which} at layer {int(best['layer'])} (p over all layers {best['p_max']:.2g})"
    if len(higher):
        return found, OTHERWISE
    return found, AS_EXPECTED if mine[rate] <= most * theirs[rate] else OPEN
