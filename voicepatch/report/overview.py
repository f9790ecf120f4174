"""What ran and what came out, in tables: results at a glance, settings, versions and the commands to repeat it.

glance(run), settings(run), commands(run)
"""

import json
import shlex

import pandas as pd

from voicepatch.analysis.cells import is_one_curve, ranges, value_text
from voicepatch.analysis.experiment_results import TO_TARGET_ELIGIBLE, ExperimentResults
from voicepatch.analysis.rounding import with_interval
from voicepatch.report.experiments import Run
from voicepatch.report.table import Table, table_of
from voicepatch.types.settings import DECLARED, stored_name

# Settings that the page shows elsewhere.
APART = ("versions", "finished", "control", "main", "doc", "describes")


def glance(run: Run) -> Table:
    """A row for each experiment: flip rates among eligible pairs at its first and last layer, and the highest.

    Over all pairs, the rate of an experiment without any effect is A's own rate.
    """
    lines = pd.DataFrame([_line(run, experiment) for experiment in run.experiments]).dropna(axis="columns", how="all")
    if "written" in lines and lines["written"].nunique() == 1:
        lines = lines.drop(columns="written")  # the results name it
    return table_of("Every experiment of this run", lines)


def _line(run: Run, experiment: ExperimentResults) -> dict[str, object]:
    what = f"{experiment.what} (estimates)" if experiment.is_estimate else experiment.what
    line = {"experiment": experiment.name, "what it does": what}
    line["written"] = experiment.site or None
    n_pairs, n_measured = len(experiment.pairs), experiment.n_measured
    counted = str(n_pairs) if n_measured == n_pairs else f"{n_measured} of {n_pairs}"
    counted += "" if experiment.has_donor else " clips"
    if experiment.records is None:
        return {**line, "pairs": f"none of {n_pairs}" if experiment.finished else "none yet"}
    if experiment.settings["reads_only"]:  # it patches nothing, so nothing flips
        return {**line, "pairs": counted}
    metrics = experiment.curve
    changed = f"{metrics['flip_from_base_rate'].max():.0%}"
    if experiment.rate != TO_TARGET_ELIGIBLE:  # flips to a target are none of its effects
        return {**line, "pairs": counted, "flip_from_base_rate, highest": changed}
    by_layer = is_one_curve(experiment.swept) and experiment.settings["by_layer"]
    rates = metrics[TO_TARGET_ELIGIBLE]
    best = metrics.loc[rates.idxmax()] if rates.max() > 0 else None
    return {
        **line,
        "pairs": counted,
        "eligible": str(metrics["eligible_count"].max()),
        "A's own rate": f"{metrics['base_is_target_rate'].max():.0%}",
        f"{TO_TARGET_ELIGIBLE}, first layer": _rate(experiment, metrics.iloc[0]) if by_layer else None,
        "highest": "0%" if best is None and rates.notna().any() else _rate(experiment, best),
        "last layer": _rate(experiment, metrics.iloc[-1]) if by_layer else None,
        "flip_from_base_rate, highest": changed,
        "hand-over layer": _hand_over(run.hand_over(experiment)),
    }


def _rate(experiment: ExperimentResults, row: pd.Series | None) -> str | None:
    """The rate of flips to the target among eligible pairs, with its cell; None where there is no eligible pair."""
    if row is None or pd.isna(row[TO_TARGET_ELIGIBLE]):
        return None
    cell = experiment.cell(row).replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
    return f"{row[TO_TARGET_ELIGIBLE]:.0%} ({cell})"


def _hand_over(found: dict[str, float | None]) -> str | None:
    if found.get("layer") is None:
        return None
    layer, interval = with_interval(found["layer"], found["low"], found["high"])
    return f"{layer} ({interval})" if interval else layer


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


def commands(run: Run) -> list[str]:
    """The command lines that make these experiments again, in the order in which they were begun."""
    begun = list(run.config["experiments"])
    kinds = {main.kind for main in run.mains}  # whose commands run the experiments beside them too
    shown = [one for one in run.experiments if not (one.settings["beside_main"] and one.kind in kinds)]
    in_order = sorted(shown, key=lambda experiment: begun.index(experiment.name))
    return [shlex.join(_command(run, experiment)) for experiment in in_order]


def _command(run: Run, experiment: ExperimentResults) -> list[str]:
    of, kind = experiment.settings, experiment.settings["kind"]
    if experiment.is_main:
        words = [of["intervention"], "--kind", kind]
    elif of["options"]:
        words = [of["intervention"], "--pairs", kind]
        for name, value in of["options"].items():
            values = ",".join(map(value_text, value)) if isinstance(value, list) else value_text(value)
            words += [f"--{name.replace('_', '-')}", values]
    else:
        words = ["control", "--kind", of["intervention"], "--pairs", kind]
    words += ["--plugin", of["plugin"]] if "plugin" in of else []
    words += ["--random-weights"] if "random_weights" in run.config["model"] else []
    words += ["--model", "MODEL", "--data", run.config["data"]["source"]]
    words += ["--texts", run.config["data"]["texts"]] if "texts" in run.config["data"] else []
    if not of["patch_all_layers"]:
        words += ["--layers", ranges(of["layers_to_patch"])]
    alpha = of["patch_alpha"]
    if alpha != of.get("default_alpha", 1):  # an experiment without this option records 1
        words += ["--alpha", ",".join(value_text(value) for value in (alpha if isinstance(alpha, list) else [alpha]))]
    for name, setting in DECLARED.items():
        value = of.get(stored_name(name, kind))
        if not setting.recorded or name in ("kind", "layers") or value in (None, setting.default):
            continue
        words += [setting.flag if value else setting.off_flag]
        words += [] if isinstance(value, bool) else [value_text(value)]
    return ["python", "cli.py", *words]
