"""The metrics and figures of an experiment, written beside its records.

    summarise(Path("results/RUN"), "prosody")        # patching_metrics_prosody.csv and two PNGs

Called at the end of every experiment and by `python cli.py report`.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import plots
from analysis.metrics import layer_metrics, read_records

SHOWN = ["layer", "n_pairs", "eligible_count", "flip_to_target_rate", "flip_from_base_rate", "delta_logit_target_mean"]
# What a curve counts, in words, in the order of the legend. For the last two what matters is that nothing changes.
COUNTED = {
    "patch": ("flip_to_target_rate", "gives B's label: the main experiment"),
    "suffix": ("flip_to_target_rate", "gives B's label: the positions after the span are patched"),
    "no-conflict": ("flip_to_target_rate", "gives B's label: A's words and voice agree"),
    "random": ("flip_to_target_rate", "gives the main pair's target: a random clip is the donor"),
    "non-audio": ("flip_to_target_rate", "gives B's label: prompt text is patched, not the span"),
    "same-label": ("flip_from_base_rate", "leaves its own answer: the donor has A's labels"),
    "self": ("flip_from_base_rate", "leaves its own answer: A is its own donor"),
}


def summarise(run: Path, name: str) -> tuple[pd.DataFrame, list[Path]]:
    """Write metrics and figures of experiment `name` in the run directory; gives the table and the figures' files.

    Where the run has the main experiment of that kind and controls, their figure `controls_PAIRS.png` is drawn too.
    """
    config = json.loads((run / "patching_config.json").read_text(encoding="utf-8"))
    metrics = layer_metrics(read_records(run / f"patching_records_{name}.jsonl"))
    metrics.to_csv(run / f"patching_metrics_{name}.csv", index=False, float_format="%.6g")
    title, subtitle = _heading(config, name, metrics)
    full_dose = metrics[metrics["patch_alpha"] == metrics["patch_alpha"].max()]
    charts = {
        f"flip_rate_curve_{name}.png": plots.flip_rate_curve(full_dose, title, subtitle),
        f"delta_logit_curve_{name}.png": plots.delta_logit_curve(full_dose, title, subtitle),
    }
    if metrics["patch_alpha"].nunique() > 1:
        charts[f"dose_response_{name}.png"] = plots.dose_response(
            metrics, title.replace("layer by layer", "dose response"), subtitle
        )
    kind = config["experiments"][name]["kind"]
    curves = _with_controls(run, config, kind)
    if curves is not None:
        what = f"{kind.capitalize()} pairs: the main curve and its controls"
        charts[f"controls_{kind}.png"] = plots.control_curves(curves, what, [_of_what(config)])
    for filename, chart in charts.items():
        plots.save(chart, run / filename)
    return metrics, [run / filename for filename in charts]


def shown(metrics: pd.DataFrame) -> str:
    """The fixed columns as text, for the terminal."""
    doses = ["patch_alpha"] if metrics["patch_alpha"].nunique() > 1 else []
    return metrics[[*SHOWN, *doses]].to_string(index=False, float_format="{:.3f}".format)


def _with_controls(run: Path, config: dict[str, Any], kind: str) -> pd.DataFrame | None:
    """The curves of the main experiment and the finished controls of one kind, as layer, rate, series, intervention."""
    tables = []
    experiments = {name: e for name, e in config["experiments"].items() if e["kind"] == kind and e["finished"]}
    order = list(COUNTED)
    for name, experiment in sorted(
        experiments.items(), key=lambda item: order.index(i) if (i := item[1]["intervention"]) in order else len(order)
    ):
        if not experiment["control"] and experiment["intervention"] != "patch":
            continue
        default = ("flip_to_target_rate", f"gives the target: {experiment['intervention']}")
        column, words = COUNTED.get(experiment["intervention"], default)
        metrics = layer_metrics(read_records(run / f"patching_records_{name}.jsonl"))
        words = f"{words} (n = {metrics['n_pairs'].max()})"
        curve = metrics[["layer", column]].rename(columns={column: "rate"})
        tables.append(curve.assign(series=words, intervention=experiment["intervention"]))
    return pd.concat(tables) if kind in experiments and len(tables) > 1 else None


def _heading(config: dict[str, Any], name: str, metrics: pd.DataFrame) -> tuple[str, list[str]]:
    experiment = config["experiments"][name]
    n_pairs, eligible = int(metrics["n_pairs"].max()), int(metrics["eligible_count"].max())
    kind, intervention = experiment["kind"], experiment["intervention"]
    what = "patching the audio span" if intervention == "patch" else f"intervention “{intervention}”"
    unfinished = "" if experiment["finished"] else ", interrupted: not all pairs are in"
    alpha = metrics["patch_alpha"].max()
    dose = "" if alpha == 1 else f", alpha {alpha:g}"
    return f"{kind.capitalize()} pairs: {what}, layer by layer{dose}", [
        f"n = {n_pairs} pairs, {eligible} of them eligible (A's own answer is not the target){unfinished}",
        _of_what(config),
    ]


def _of_what(config: dict[str, Any]) -> str:
    return f"model {config['model']['name']}, data {config['data']['name']}"
