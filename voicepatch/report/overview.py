"""What ran and what came out, in tables: results at a glance, settings and versions.

glance(run), settings(run)
"""

import json

import pandas as pd

from voicepatch.analysis.cells import is_one_curve, ranges
from voicepatch.analysis.experiment_results import FROM_BASE, TO_TARGET_ELIGIBLE, ExperimentResults
from voicepatch.analysis.rounding import with_interval
from voicepatch.report.answer import rate_in
from voicepatch.report.experiments import Run
from voicepatch.report.table import Table, table_of

FLIPS, CHANGED = ("flips, first layer", "flips, most", "flips, last layer"), "changed answers, most"
HAND_OVER = "hand-over layer"
# Settings that the page shows elsewhere.
APART = ("versions", "finished", "control", "main", "doc", "describes", "places")


def glance(run: Run) -> Table:
    """A row for each experiment: flips among eligible pairs at its first and last layer, and the most.

    Over all pairs, the rate of an experiment without any effect is A's own rate.
    """
    lines = pd.DataFrame([_line(run, experiment) for experiment in run.experiments]).dropna(axis="columns", how="all")
    notes = ["flips are eligible pairs whose answer becomes the target"] if FLIPS[1] in lines else []
    notes += ["in brackets after a hand-over layer: its 95 % interval"] if HAND_OVER in lines else []
    notes += ["clips are those of the pairs, each once"] if any(one.unit == "clip" for one in run.experiments) else []
    return table_of("; ".join(["Every experiment of this run", *notes]), lines)


def _line(run: Run, experiment: ExperimentResults) -> dict[str, object]:
    line = {"experiment": f"{experiment.name} (estimates)" if experiment.is_estimate else experiment.name}
    n_pairs, n_measured = len(experiment.pairs), experiment.n_measured
    counted = str(n_pairs) if n_measured == n_pairs else f"{n_measured} of {n_pairs}"
    counted += " clips" if experiment.unit == "clip" else ""
    if experiment.records is None:
        return {**line, "pairs": f"none of {n_pairs}" if experiment.finished else "none yet"}
    if experiment.settings["reads_only"]:  # it patches nothing, so nothing flips
        return {**line, "pairs": counted}
    metrics = experiment.curve
    changed = rate_in(metrics.loc[metrics[FROM_BASE].idxmax()], FROM_BASE)
    if experiment.rate != TO_TARGET_ELIGIBLE:  # flips to a target are none of its effects
        return {**line, "pairs": counted, CHANGED: changed}
    by_layer = is_one_curve(experiment.swept) and experiment.settings["by_layer"]
    rates = metrics[TO_TARGET_ELIGIBLE]
    best = metrics.loc[rates.idxmax()] if rates.max() > 0 else None
    most = "0%" if best is None and rates.notna().any() else _rate(experiment, best)
    ends = [_rate(experiment, metrics.iloc[at]) if by_layer else None for at in (0, -1)]
    return {
        **line,
        "pairs": counted,
        "eligible": str(metrics["eligible_count"].max()),
        **dict(zip(FLIPS, (ends[0], most, ends[1]), strict=True)),
        CHANGED: changed,
        HAND_OVER: _hand_over(run.hand_over(experiment), experiment),
    }


def _rate(experiment: ExperimentResults, row: pd.Series | None) -> str | None:
    """The rate of flips to the target among eligible pairs, with its cell; None where there is no eligible pair."""
    if row is None or pd.isna(row[TO_TARGET_ELIGIBLE]):
        return None
    cell = experiment.cell(row).replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
    return f"{rate_in(row, TO_TARGET_ELIGIBLE)} ({cell})"


def _hand_over(found: dict[str, float | None], experiment: ExperimentResults) -> str | None:
    """The layer with its interval, and the number of its pairs where the row has another one."""
    if found.get("layer") is None:
        return None
    layer, interval = with_interval(found["layer"], found["low"], found["high"])
    limits = f" ({interval.removeprefix('95 % interval ')})" if interval else ""
    return f"{layer}{limits}{experiment.of_compared}"


def settings(run: Run) -> list[Table]:
    """The identity of model, data and prompt; the settings that all experiments share; those in which they differ."""
    identity = {
        f"{part}: {key}": value
        for part in ("model", "data", "prompt", "labels")
        for key, value in run.config[part].items()
        if key != "warnings"
    }
    each = {experiment.name: _flat(run, experiment) for experiment in run.experiments}
    keys = list(dict.fromkeys(key for values in each.values() for key in values))
    shared = {key: values[0] for key in keys if len(set(values := [each[name].get(key) for name in each])) == 1}
    tables = [
        _two_columns("Identity of the run", identity),
        _two_columns("Settings of every experiment", {key: json.loads(value) for key, value in shared.items()}),
    ]
    differing = [key for key in keys if key not in shared]
    if differing:
        rows = [
            {"experiment": name} | {key: _plain(json.loads(values[key])) for key in differing if key in values}
            for name, values in each.items()
        ]
        tables.append(table_of("Settings in which experiments differ", pd.DataFrame(rows)))
    return tables


def _flat(run: Run, experiment: ExperimentResults) -> dict[str, str]:
    """Settings as JSON, so that they can be compared; versions each on their own."""
    own = {key: value for key, value in experiment.settings.items() if key not in APART}
    own["engine"] += " (ran as written)" if run.as_written(experiment) else ""
    versions = {f"version of {name}": value for name, value in experiment.settings["versions"].items()}
    return {key: json.dumps(value) for key, value in {**own, **versions}.items()}


def _two_columns(caption: str, values: dict[str, object]) -> Table:
    return table_of(caption, pd.DataFrame({"setting": list(values), "value": [_plain(v) for v in values.values()]}))


def _plain(value: object) -> str:
    if (
        isinstance(value, list)
        and value
        and all(isinstance(part, int) and not isinstance(part, bool) for part in value)
    ):
        return ranges(value) if value == sorted(set(value)) else ", ".join(map(str, value))
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items()) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
