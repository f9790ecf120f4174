"""Several runs side by side: models, prompts, seeds or corpora, on relative depth.

    table, figures = compare([Path("results/A"), Path("results/B")], Path("results/comparison"))

Metrics and hand-over layers are computed from each run's records; its dose and the layers patched stand beside them.
"""

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from voicepatch.analysis.cells import DOSE, ranges, value_name
from voicepatch.analysis.congruence import NONE_LEFT
from voicepatch.analysis.contrast_runs import contrast_runs
from voicepatch.analysis.csv_file import write_table
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.results import KINDS, Results
from voicepatch.analysis.rounding import with_interval
from voicepatch.analysis.samples import speakers_note
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.figures import curves, figure_style
from voicepatch.files import CONFIG
from voicepatch.text import escape


def compare(runs: list[Path], out: Path) -> tuple[pd.DataFrame, list[Path]]:
    """Write `hand_over.csv` and a figure for each kind of pair that a run has into `out`; gives the table and the PNGs.

    `attrs["contrasts"]` of the table are lines on how the runs differ.

    Raises `UserError` for a directory without a finished main experiment, for one whose files do not hold together, and
    for a directory that is named twice.
    """
    _require_each_once(runs)
    rows, tables, read, left_out = [], [], {}, []
    speakers: dict[str, list[str]] = defaultdict(list)
    for run, name in zip(runs, _names(runs), strict=True):
        read[name] = results = _results(run)
        if (main := results.main("semantic")) and main.side.records.empty:
            left_out.append(f"semantic: {name} is left out: {NONE_LEFT}")
        for main in _mains(run, results):
            n_layers, metrics = results.config["model"]["n_layers"], main.compared_curve
            curve = curves.series(metrics, curves.TO_TARGET, curves.TO_TARGET, "n_pairs")
            curve = pd.concat([curve, curves.references(metrics)])
            tables.append(curve.assign(run=name, kind=main.kind, depth=curve["layer"] / max(1, n_layers - 1)))
            speakers[main.kind] += [f"{name}: {note}" for note in [speakers_note(main.pairs)] if note]
            rows.append({"run": name, "kind": main.kind} | _row(results, main, n_layers))
    table, tidy = pd.DataFrame(rows), pd.concat(tables)
    write_table(out / "hand_over.csv", table, ["alpha"])
    figures = []
    for kind, mine in tidy.groupby("kind"):
        of_kind = table[table["kind"] == kind]
        title = f"{str(kind).capitalize()} pairs in {len(of_kind)} runs: flip_to_target_rate"
        notes = [_note(row) for row in of_kind.to_dict("records")] + speakers[str(kind)] + differing(of_kind)
        figures += figure_style.save(curves.depth_curves(mine, title, notes), out / f"compare_{kind}")
    table.attrs["contrasts"] = left_out + contrast_runs(read, out)
    return table, [figure for figure in figures if figure.suffix == ".png"]


def differing(table: pd.DataFrame) -> list[str]:
    """What else differs between the runs of a kind of pair than what they are compared for, and bears on the curves."""
    lines = []
    if table["model_sha256"].nunique() > 1:
        lines.append(f"the models differ: {_each(table, 'model')}")
    if table["data_sha256"].nunique() > 1:
        lines.append(f"the data differ: {_each(table, 'data')}")
    if table["task_sha256"].nunique() > 1:
        lines.append(f"the tasks differ: {_each(table, 'task')}")
    elif table["prompt"].nunique() > 1:
        lines.append("the prompts differ in more than the question; each is in its run's patching_config.json")
    if table["frames_per_second"].nunique() > 1:
        spans = "; ".join(
            f"{row['run']} {row['median_span']:g} positions at {row['frames_per_second']:g} a second"
            for row in table.to_dict("records")
        )
        lines.append(f"the spans differ (median): {spans}")
    if table["alpha"].nunique() > 1:
        lines.append("the doses differ, and with them the rates and the hand-over layers")
    if (table["layers"] != "all").any():
        lines.append(
            "not all layers were patched: a hand-over layer is relative to the rate at the first layer patched"
        )
    return lines


def _each(table: pd.DataFrame, column: str) -> str:
    return "; ".join(f"{row['run']} {row[column]}" for row in table.to_dict("records"))


def _note(row: dict[str, Any]) -> str:
    at, low, high = (None if pd.isna(row[column]) else row[column] for column in ("hand_over_layer", "low", "high"))
    found = "none" if at is None else "{} ({})".format(*with_interval(at, low, high, none="no interval"))
    frames = "" if pd.isna(row["frames_per_second"]) else f" at {row['frames_per_second']:g} frames a second"
    return (
        f"{row['run']}: n = {row['n_pairs']} pairs, {value_name(DOSE, row['alpha'])}, {_layers(row)}; "
        f"hand-over layer {found}; median span {row['median_span']:g} positions{frames}"
    )


def _layers(row: dict[str, Any]) -> str:
    return f"all {row['n_layers']} layers" if row["layers"] == "all" else f"layers {row['layers']} of {row['n_layers']}"


def _require_each_once(runs: list[Path]) -> None:
    seen: set[Path] = set()
    for run in runs:
        if run.resolve() in seen:
            raise UserError(f"{run}: is named twice; name each run once", BAD_USAGE)
        seen.add(run.resolve())


def _names(runs: list[Path]) -> list[str]:
    """The directories' names, with their parents' where two are equal."""
    names = [escape(run.resolve().name) for run in runs]
    return [
        f"{escape(run.resolve().parent.name)}/{name}" if names.count(name) > 1 else name
        for run, name in zip(runs, names, strict=True)
    ]


def _results(run: Path) -> Results:
    if not (run / CONFIG).exists():
        raise UserError(f"{run}: not a run directory, it has no {CONFIG}")
    return Results(run)


def _mains(run: Path, results: Results) -> list[ExperimentResults]:
    for kind in KINDS:
        if kind in results.names:
            results.experiment(kind)  # an error if its files contradict each other
    mains = [main for main in map(results.main, KINDS) if main is not None and not main.side.records.empty]
    if not mains:
        raise UserError(f"{run}: has no finished main experiment with one curve; run `python cli.py patch` there first")
    return mains


def _row(results: Results, main: ExperimentResults, n_layers: int) -> dict[str, Any]:
    found, area, metrics = results.hand_over(main.kind), results.area(main.kind), main.compared_curve
    layer = found["layer"]
    layers = main.settings["layers_to_patch"]
    model, data, prompt = (results.config[part] for part in ("model", "data", "prompt"))
    return {
        "model": " ".join(filter(None, [escape(model["name"]), model.get("family") and f"({model['family']})"])),
        "data": escape(data["name"]),
        "task": results.task.name,
        "n_layers": n_layers,
        "layers": "all" if len(layers) == n_layers else ranges(layers),
        "alpha": float(metrics[DOSE].iloc[0]),
        "hand_over_layer": layer,
        "low": found["low"],
        "high": found["high"],
        "area": area["area"],
        "area_low": area["low"],
        "area_high": area["high"],
        "relative_depth": None if layer is None else layer / max(1, n_layers - 1),
        "flip_to_target_rate_first_layer": metrics["flip_to_target_rate"].iloc[0],
        "donor_is_target_rate": metrics["donor_is_target_rate"].iloc[0],
        "base_is_target_rate": metrics["base_is_target_rate"].iloc[0],
        "n_pairs": int(metrics["n_pairs"].max()),
        "frames_per_second": model.get("frames_per_second"),
        "median_span": float(main.records["len_a"].median()),
        "model_sha256": model["sha256"][:12],
        "data_sha256": data["sha256"][:12],
        "task_sha256": results.task.sha256[:12],
        "prompt": hashlib.sha256(prompt["text"].encode()).hexdigest()[:12],
    }
