"""The metrics, statistics and figures of an experiment, written beside its records.

    summarise(Path("results/RUN"), "prosody")        # patching_metrics_prosody.csv, figures, …

Called at the end of every experiment and by `python cli.py report`.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import plots
from analysis.charts import COUNTED, charts_of
from analysis.metrics import layer_metrics, near_tie_margin, read_pairs, read_records
from analysis.statistics import contrast, hand_over, layer_intervals
from files import read_config, write_whole

SHOWN = ["layer", "n_pairs", "eligible_count", "flip_to_target_rate", "flip_from_base_rate", "delta_logit_target_mean"]
COLUMN_OF_RATE = {"flip_to_target_rate": "flip_to_target", "flip_from_base_rate": "flip_from_base"}


def summarise(run: Path, name: str) -> tuple[pd.DataFrame, list[Path]]:
    """Write tables and figures of experiment `name` in the run directory; gives the metrics and the PNG files.

    Where the run has the main experiment of that kind and controls, the contrasts between them are written too.
    """
    config = read_config(run)
    experiment = config["experiments"][name]
    records, pairs = _read(run, name)
    seed = experiment["pair_sampling_seed"]
    metrics = layer_metrics(records, near_tie_margin(experiment))
    metrics = metrics.merge(layer_intervals(records, pairs, seed), on=["layer", "patch_alpha"])
    write_table(run / f"patching_metrics_{name}.csv", metrics)
    kind = experiment["kind"]
    if _can_be_read(run, config, kind):
        _write_statistics(run, config, kind, seed)
        if experiment["control"] and experiment["finished"]:
            _write_contrast(run, kind, name, experiment["intervention"], seed)
    figures = []
    for stem, chart in charts_of(run, config, name).items():
        figures += plots.save(chart, run / stem)
    return metrics, [figure for figure in figures if figure.suffix == ".png"]


def shown(metrics: pd.DataFrame) -> str:
    """The fixed columns as text, for the terminal."""
    doses = ["patch_alpha"] if metrics["patch_alpha"].nunique() > 1 else []
    return metrics[[*SHOWN, *doses]].to_string(index=False, float_format="{:.3f}".format)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV file with six digits, as a whole or not at all."""
    write_whole(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _can_be_read(run: Path, config: dict[str, Any], name: str) -> bool:
    """Whether an experiment is finished, and not all of its pairs failed."""
    finished = config["experiments"].get(name, {}).get("finished")
    return bool(finished and (run / f"patching_records_{name}.jsonl").exists())


def _read(run: Path, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    return read_records(run / f"patching_records_{name}.jsonl"), read_pairs(run / f"pair_list_{name}.jsonl")


def _write_statistics(run: Path, config: dict[str, Any], kind: str, seed: int) -> None:
    suffix = f"suffix-{kind}"
    mirror = _read(run, suffix) if _can_be_read(run, config, suffix) else None
    content = {"hand_over": hand_over(*_read(run, kind), mirror, seed), "seed": seed}
    write_whole(run / f"statistics_{kind}.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write_contrast(run: Path, kind: str, name: str, intervention: str, seed: int) -> None:
    column = COLUMN_OF_RATE[COUNTED.get(intervention, ("flip_to_target_rate",))[0]]
    (main, main_pairs), (control, control_pairs) = _read(run, kind), _read(run, name)
    layers = sorted(set(main["layer"]) & set(control["layer"]))
    if not layers or control["patch_alpha"].nunique() > 1:
        return
    main, control = (table[table["layer"].isin(layers)] for table in (main, control))
    table = contrast(main, control, main_pairs, control_pairs, column, seed)
    write_table(run / f"contrast_{kind}_vs_{name}.csv", table)
