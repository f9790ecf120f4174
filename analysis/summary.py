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


def summarise(run: Path, name: str) -> pd.DataFrame:
    """Write metrics and figures of experiment `name` in the run directory; gives the table, one row a layer."""
    metrics = layer_metrics(read_records(run / f"patching_records_{name}.jsonl"))
    metrics.to_csv(run / f"patching_metrics_{name}.csv", index=False, float_format="%.6g")
    title, subtitle = _heading(json.loads((run / "patching_config.json").read_text(encoding="utf-8")), name, metrics)
    plots.save(plots.flip_rate_curve(metrics, title, subtitle), run / f"flip_rate_curve_{name}.png")
    plots.save(plots.delta_logit_curve(metrics, title, subtitle), run / f"delta_logit_curve_{name}.png")
    return metrics


def shown(metrics: pd.DataFrame) -> str:
    """The fixed columns as text, for the terminal."""
    return metrics[SHOWN].to_string(index=False, float_format="{:.3f}".format)


def _heading(config: dict[str, Any], name: str, metrics: pd.DataFrame) -> tuple[str, list[str]]:
    experiment = config["experiments"][name]
    n_pairs, eligible = int(metrics["n_pairs"].max()), int(metrics["eligible_count"].max())
    kind, intervention = experiment["kind"], experiment["intervention"]
    what = f"{kind.capitalize()} pairs" if intervention == "patch" else f"Control “{intervention}” on {kind} pairs"
    unfinished = "" if experiment["finished"] else ", interrupted: not all pairs are in"
    dose = "" if experiment["patch_alpha"] == 1 else f", alpha {experiment['patch_alpha']:g}"
    return f"{what}: patching the audio span, layer by layer{dose}", [
        f"n = {n_pairs} pairs, {eligible} of them eligible (A's own answer is not the target){unfinished}",
        f"model {config['model']['name']}, data {config['data']['name']}",
    ]
