"""The numbers behind the checks, a row for each experiment, and the pairs that gave no record.

by_experiment(run), failed_pairs(run)
"""

import pandas as pd

from voicepatch.report.checks import of_experiments, reason
from voicepatch.report.experiments import Experiment, Run
from voicepatch.report.table import Table, table_of
from voicepatch.text import escape

MOST_FAILED = 50


def by_experiment(run: Run) -> list[Table]:
    """The engine's check where it was made; then pairs, sounds and near-ties."""
    engines = [
        {
            "experiment": name,
            "engine": f"ran as written: {reason(found['as_written'])}" if found.get("as_written") else found["engine"],
            "compared with": found["reference"],
            "pairs compared": len(found["pairs"]),
            "answers that differ": _of(found["n_differing_predictions"], found["n_predictions"]),
            "largest |Δlogit|": f"{found['max_abs_logit_difference']:.2g}",
            "tolerance": f"{found['tolerance']:g}",
            "passed": "yes" if found["passed"] else "no",
        }
        for name, found in of_experiments(run, run.engines).items()
    ]
    lines = pd.DataFrame([_line(run, experiment) for experiment in run.experiments]).dropna(axis="columns", how="all")
    tables = [table_of("Engine against its reference", pd.DataFrame(engines))] if engines else []
    return [*tables, table_of("Pairs, sounds and near-ties", lines)]


def _line(run: Run, experiment: Experiment) -> dict[str, object]:
    sounds, ties = run.sounds.get(experiment.name), experiment.near_ties
    return {
        "experiment": experiment.name,
        "written": experiment.site or None,
        "pairs in the list": str(len(experiment.pairs)),
        "without a record": str(len(experiment.failed)),
        "clips": str(sounds["n_clips"]) if sounds else None,
        "unreadable": str(len(sounds["unreadable"])) if sounds else None,
        "silent": str(len(sounds["silent"])) if sounds else None,
        "near-ties, unpatched": _of(len(ties.tied_clips), len(ties.clips)) if ties else None,
        "near-ties, patched": _of(ties.tied, ties.answers) if ties else None,
        "margin under": f"{experiment.settings['near_tie_margin']:g}",
    }


def _of(count: int, total: int) -> str:
    return f"{count} of {total}"


def failed_pairs(run: Run) -> Table | None:
    """The first pairs without a record, each with its reason; None where every pair gave one."""
    rows = [
        {"experiment": experiment.name, "pair": escape(pair), "reason": reason(why)}
        for experiment in run.experiments
        for pair, why in experiment.failed.items()
    ]
    more = len(rows) - MOST_FAILED
    caption = "Pairs without a record" + (f": the first {MOST_FAILED}, and {more} more" if more > 0 else "")
    return table_of(caption, pd.DataFrame(rows[:MOST_FAILED])) if rows else None
