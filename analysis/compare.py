"""Several runs side by side: models, prompts, seeds or corpora, on relative depth.

    table, figures = compare([Path("results/A"), Path("results/B")], Path("results/comparison"))

Each run is taken as it was summarised: its metrics and its hand-over layers are read from its files.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis import curves, figure_style
from analysis.cells import at_highest_dose, is_one_curve, swept_columns
from analysis.charts import read_metrics
from analysis.contrast_runs import contrast_runs
from analysis.summary import write_table
from errors import UserError
from files import CONFIG, read_config, read_json
from pairs.shown import shown

KINDS = ("prosody", "semantic")


def compare(runs: list[Path], out: Path) -> tuple[pd.DataFrame, list[Path]]:
    """Write `hand_over.csv` and a figure for each kind of pair that a run has into `out`; gives the table and the PNGs.

    `attrs["contrasts"]` of the table are lines on how the runs differ.

    Raises `UserError` for a directory without a finished main experiment.
    """
    names = _names(runs)
    rows, tables = [], []
    for run, name in zip(runs, names, strict=True):
        config = _config(run)
        for kind in _finished(run, config):
            n_layers, metrics = config["model"]["n_layers"], at_highest_dose(read_metrics(run, kind))
            curve = curves.series(metrics, curves.TO_TARGET, curves.TO_TARGET, "n_pairs")
            curve = pd.concat([curve, curves.references(metrics)])
            tables.append(curve.assign(run=name, kind=kind, depth=curve["layer"] / max(1, n_layers - 1)))
            rows.append({"run": name, "kind": kind, "n_layers": n_layers} | _hand_over(run, kind, metrics, n_layers))
    table, tidy = pd.DataFrame(rows), pd.concat(tables)
    write_table(out / "hand_over.csv", table)
    figures = []
    for kind, mine in tidy.groupby("kind"):
        title = f"{str(kind).capitalize()} pairs in {mine['run'].nunique()} runs: flip_to_target_rate"
        sizes = [f"{run}: n = {group['n'].max()} pairs" for run, group in mine.groupby("run", sort=False)]
        figures += figure_style.save(curves.depth_curves(mine, title, sizes), out / f"compare_{kind}")
    table.attrs["contrasts"] = contrast_runs(dict(zip(names, runs, strict=True)), out)
    return table, [figure for figure in figures if figure.suffix == ".png"]


def _names(runs: list[Path]) -> list[str]:
    """The directories' names, with their parents' where two are alike."""
    names = [shown(run.resolve().name) for run in runs]
    return [
        f"{shown(run.resolve().parent.name)}/{name}" if names.count(name) > 1 else name
        for run, name in zip(runs, names, strict=True)
    ]


def _config(run: Path) -> dict[str, Any]:
    config = read_config(run)
    if not config:
        raise UserError(f"{run}: not a run directory, it has no {CONFIG}")
    return config


def _finished(run: Path, config: dict[str, Any]) -> list[str]:
    finished = [
        kind
        for kind in KINDS
        if config["experiments"].get(kind, {}).get("finished") and (run / f"patching_metrics_{kind}.csv").exists()
    ]
    kinds = [
        kind for kind in finished if is_one_curve(swept_columns(config["experiments"][kind], read_metrics(run, kind)))
    ]
    if not kinds:
        raise UserError(f"{run}: has no finished main experiment with one curve; run `python cli.py patch` there first")
    return kinds


def _hand_over(run: Path, kind: str, metrics: pd.DataFrame, n_layers: int) -> dict[str, Any]:
    found = read_json(run / f"statistics_{kind}.json").get("hand_over", {})
    layer = found.get("layer")
    return {
        "hand_over_layer": layer,
        "low": found.get("low"),
        "high": found.get("high"),
        "relative_depth": None if layer is None else layer / max(1, n_layers - 1),
        "flip_to_target_rate_first_layer": metrics["flip_to_target_rate"].iloc[0],
        "donor_is_target_rate": metrics["donor_is_target_rate"].iloc[0],
        "base_is_target_rate": metrics["base_is_target_rate"].iloc[0],
        "n_pairs": int(metrics["n_pairs"].max()),
    }
