"""What was checked before and after measuring. A check that the run stores is shown in the words that are stored.

for check in checks_of(run):
    check.light, check.name, check.text     # the light is "passed", "note" or "failed"
"""

from collections.abc import Iterator
from typing import Any

import msgspec
import pandas as pd

from voicepatch.analysis import behaviour
from voicepatch.analysis.experiment_results import ENOUGH_MASS, ExperimentResults
from voicepatch.analysis.layer_metrics import near_ties
from voicepatch.analysis.results import REPORTS, Results, left_out
from voicepatch.analysis.tables import lengths_apart
from voicepatch.figures.captions import sentence
from voicepatch.figures.own import why_missing
from voicepatch.report.control_verdicts import verdict_of
from voicepatch.report.experiments import Run
from voicepatch.report.table import Table, table_of
from voicepatch.text import counted, escape
from voicepatch.types.check import Check
from voicepatch.types.dataset import spelling_lines

MOST_APART = 0.5  # of the longer span; with a shorter other span the two clips are hardly the same words
MOST_FAILED = 50
OF_RUN = ("spans", "tokens", "model", "self_patch")  # files with the checks of the whole run
ON_REQUEST = ("planted", "natural")  # only where `check --planted` or `check --natural` ran
OF_EXPERIMENT = ("engines", "sounds")  # files with the checks of each experiment


def checks_of(run: Run) -> list[Check]:
    """Every check of the run, first those that must pass before an experiment starts (SPEC section 7)."""
    invalid = run.results.invalid
    return [
        *(Check(f"{name} cannot be shown", False, _short(str(why), most=1200)) for name, why in invalid.items()),
        *(check for part in OF_RUN for check in _stored(part, run.documents[part])),
        *(check for part in ON_REQUEST if run.documents[part] for check in _stored(part, run.documents[part])),
        *_joined(run),
        *_pairs(run),
        *behaviour.checks(run.results),
        *_controls(run),
        _data(run),
    ]


def warnings(results: Results, checks: list[Check]) -> list[str]:
    """What a reader must know before anything else: failed checks, and pairs that the model does not do."""
    failed = sum(not check.passed for check in checks)
    n = "A check" if failed == 1 else f"{failed} checks"
    lines = [f"{n} failed, so the results may be wrong; see “Checks” below"] if failed else []
    return [sentence(line) for line in (*lines, *behaviour.warnings(results))]


def by_experiment(run: Run) -> Table:
    """The checks of each experiment, one row each."""
    rows = [
        {"experiment": experiment.name, "check": check.name, "result": check.light, "found": check.text}
        for experiment in run.experiments
        for check in _of_experiment(run, experiment)
    ]
    return table_of("Checks by experiment", pd.DataFrame(rows))


def failed_pairs(run: Run) -> Table | None:
    """The first pairs without a record, each with its reason; None where every pair gave one."""
    rows = [
        {"experiment": experiment.name, "pair": escape(pair), "reason": _short(why)}
        for experiment in run.experiments
        for pair, why in experiment.failed.items()
    ]
    more = len(rows) - MOST_FAILED
    caption = "Pairs without a record" + (f": the first {MOST_FAILED}, and {more} more" if more > 0 else "")
    return table_of(caption, pd.DataFrame(rows[:MOST_FAILED])) if rows else None


def _stored(part: str, document: dict[str, Any]) -> list[Check]:
    if not document:
        return [Check(REPORTS[part], True, "this file is missing, so its checks are not shown", note=True)]
    checks = msgspec.convert(document["checks"], list[Check])
    return [msgspec.structs.replace(check, name=escape(check.name), text=_short(check.text)) for check in checks]


def _joined(run: Run) -> Iterator[Check]:
    """The checks of all experiments by name, with the text of each experiment that did not simply pass."""
    found: dict[str, dict[str, Check]] = {}
    for experiment in run.experiments:
        for check in _of_experiment(run, experiment):
            found.setdefault(check.name, {})[experiment.name] = check
    for name, checks in found.items():
        parts = [f"{experiment}: {check.text}" for experiment, check in checks.items() if check.light != "passed"]
        if parts:
            text = "; ".join(_first(parts))
        elif len(checks) == 1:
            text = next(iter(checks.values())).text
        else:
            text = f"passed in {len(checks)} experiments; their numbers are under “Checks by experiment”"
        passed = all(check.passed for check in checks.values())
        yield Check(name, passed, text, note=bool(parts))


def _of_experiment(run: Run, experiment: ExperimentResults) -> list[Check]:
    stored = [check for part in OF_EXPERIMENT for check in _stored(part, run.documents[part].get(experiment.name, {}))]
    of_records = [] if experiment.records is None else _of_records(run, experiment)
    return [*stored, _pairs_measured(experiment), *of_records]


def _pairs_measured(experiment: ExperimentResults) -> Check:
    n, n_failed, n_measured = len(experiment.pairs), len(experiment.failed), experiment.n_measured
    text = f"{n_measured} of {counted(n, experiment.unit)} {'is' if n == 1 else 'are'} measured"
    text += f", {n_failed} gave no record; the reasons are below" if n_failed else ""
    text += "" if experiment.finished else "; not finished, the same command continues"
    return Check("Every pair is measured", True, text, note=n_measured < n or not experiment.finished)


def _of_records(run: Run, experiment: ExperimentResults) -> list[Check]:
    """Checks of an experiment's records, those of its own module among them."""
    checks = [*run.own(experiment, "checks"), _near_ties(experiment)]
    checks += [_lengths(experiment)] if experiment.has_donor else []
    mass = experiment.label_mass
    held = f"unpatched they hold {mass.mean():.1%} of it on average and {mass.min():.1%} at least"
    text = f"{held}; {counted(len(mass), 'clip')}"
    checks.append(Check("The labels hold the model's probability", True, text, note=mass.mean() < ENOUGH_MASS))
    if missing := why_missing(run.results, experiment):
        checks.append(Check("The figures of the experiment alone are there", True, missing, note=True))
    verdict = verdict_of(run.results, experiment)
    return [*checks, *([verdict] if verdict else [])]


def _near_ties(experiment: ExperimentResults) -> Check:
    """How many answers have their best two labels within the noise of the arithmetic."""
    records, margin = experiment.records, experiment.settings["near_tie_margin"]
    clips = records.drop_duplicates("clip_a")
    unpatched, patched = (int(near_ties(of, margin).sum()) for of in (clips["logits_base"], records["logits_patch"]))
    text = (
        f"{unpatched} of {len(clips)} unpatched and {patched} of {len(records)} other answers are near-ties (best two "
        f"labels less than {margin:g} logits apart); with another engine, device or dtype, rounding can change them"
    )
    return Check("Answers that are near-ties", True, text, note=unpatched + patched > 0)


def _lengths(experiment: ExperimentResults) -> Check:
    """Whether the two spans of each pair have similar lengths."""
    pairs = experiment.records.drop_duplicates("pair_id")
    apart = lengths_apart(pairs).abs()
    unlike = apart > MOST_APART
    of = f"{unlike.sum()} of {counted(len(pairs), 'pair')}"
    text = f"{of} {'has' if len(pairs) == 1 else 'have'} a span less than half as long as the other"
    if unlike.any():
        worst = pairs.loc[apart.idxmax()]
        text += (
            f". They count like any other pair. The lengths differ most in {escape(worst['clip_a'])} ← "
            f"{escape(worst['clip_b'])} ({worst['len_a']} and {worst['len_b']} positions)"
        )
    return Check("The spans of a pair have similar lengths", True, text, note=bool(unlike.any()))


def _pairs(run: Run) -> list[Check]:
    found = []
    for kind, report in run.documents["construction"].items():
        drawn = (
            f"{report['pairs_sampled']} drawn of {report['pairs_possible']} possible, from "
            f"{counted(report['n_clips'], 'clip')}"
        )
        text = "; ".join([drawn, *_first(report["warnings"])])
        found.append(Check(f"{kind.capitalize()} pairs", True, text, note=bool(report["warnings"])))
    return found


def _controls(run: Run) -> list[Check]:
    name, kinds = "Controls ran with the settings of the main experiment", {main.kind for main in run.mains}
    if lines := left_out(run.results):
        return [Check(name, True, "; ".join(lines), note=True)]
    joined = [one.name for one in run.others if one.settings["control"] and one.finished and one.kind in kinds]
    same = "the same dose, layers, alignment, dtype, sampling of pairs and seed"
    return [Check(name, True, f"{', '.join(joined)}: {same}")] if joined else []


def _data(run: Run) -> Check:
    data = run.config["data"]
    of_clips: dict[str, Any] = next(iter(run.documents["construction"].values()), {})
    count = f"{data['name']}: {counted(data['n_clips'], 'clip')}, {counted(len(data['warnings']), 'warning')}"
    lines = [count, *_first(data["warnings"]), *spelling_lines(of_clips.get("label_spellings", {}))]
    return Check("Data", True, "; ".join(lines), note=bool(data["warnings"]))


def _short(text: str, most: int = 400) -> str:
    """Text on one line of at most `most` characters, those that cannot be printed escaped."""
    parts = [escape(text[start : start + 100]) for start in range(0, min(len(text), most), 100)]
    return "".join(parts) + ("…" if len(text) > most else "")


def _first(lines: list[str], most: int = 8) -> list[str]:
    return [*lines[:most], *([f"and {len(lines) - most} more"] if len(lines) > most else [])]
