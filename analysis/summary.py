"""The metrics, statistics and figures of an experiment, written beside its records.

    summarise(Path("results/RUN"), "prosody")        # patching_metrics_prosody.csv, figures, …

Called at the end of every experiment and by `python cli.py report`.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import figure_style, lens, timeline, words_and_voice
from analysis.cells import is_one_curve, swept_columns
from analysis.charts import charts_of
from analysis.hand_over import hand_over
from analysis.intervals import contrast, layer_intervals
from analysis.metrics import layer_metrics, main_rate, near_tie_margin, read_pairs, read_records
from files import read_config, write_whole

SHOWN = ["layer", "n_pairs", "eligible_count", "flip_to_target_rate", "flip_from_base_rate", "delta_logit_target_mean"]
MOST_SHOWN = 150
BEST_SHOWN = 20


def summarise(run: Path, name: str) -> tuple[pd.DataFrame, list[Path]]:
    """Write tables and figures of experiment `name` in the run directory; gives the metrics and the PNG files.

    Where the run has the main experiment of that kind and controls, the contrasts between them are written too. They
    and the hand-over layer are of curves: at the highest dose, and not where another option was swept.
    """
    config = read_config(run)
    experiment = config["experiments"][name]
    records, pairs = _read(run, name)
    seed = experiment["pair_sampling_seed"]
    swept = swept_columns(experiment, records)
    intervals = layer_intervals(records, pairs, seed, swept=swept)
    metrics = layer_metrics(records, near_tie_margin(experiment), swept).merge(intervals, on=["layer", *swept])
    write_table(run / f"patching_metrics_{name}.csv", metrics)
    kind = experiment["kind"]
    if _can_be_read(run, config, kind):
        _write_statistics(run, config, kind, seed)
        if experiment["control"] and experiment["finished"]:
            _write_contrast(run, config, kind, name, seed)
    if experiment["intervention"] == "patch":
        words_and_voice.write(run, config)
    if lens.is_lens(experiment):
        lens.write_leads(run, name, records, pairs, seed)
    if timeline.is_map(experiment):
        timeline.write_levels(run, config, name, records)
    figures = []
    for stem, chart in charts_of(run, config, name).items():
        figures += figure_style.save(chart, run / stem)
    metrics.attrs["swept"] = swept
    return metrics, [figure for figure in figures if figure.suffix == ".png"]


def shown(metrics: pd.DataFrame) -> str:
    """The fixed columns of what `summarise` gave as text, for the terminal; of many cells those with the most flips."""
    few, note = metrics, ""
    if len(metrics) > MOST_SHOWN:
        few = metrics.nlargest(BEST_SHOWN, "flip_to_target_rate")
        note = f"\n({BEST_SHOWN} of {len(metrics)} cells, those with the highest flip_to_target_rate)"
    columns = [SHOWN[0], *metrics.attrs["swept"], *SHOWN[1:]]
    return few[columns].to_string(index=False, float_format="{:.3f}".format) + note


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV file with six digits, as a whole or not at all."""
    write_whole(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _is_curve(config: dict[str, Any], name: str, records: pd.DataFrame) -> bool:
    return is_one_curve(swept_columns(config["experiments"][name], records))


def _can_be_read(run: Path, config: dict[str, Any], name: str) -> bool:
    """Whether an experiment is finished, and not all of its pairs failed."""
    finished = config["experiments"].get(name, {}).get("finished")
    return bool(finished and (run / f"patching_records_{name}.jsonl").exists())


def _read(run: Path, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    return read_records(run / f"patching_records_{name}.jsonl"), read_pairs(run / f"pair_list_{name}.jsonl")


def _write_statistics(run: Path, config: dict[str, Any], kind: str, seed: int) -> None:
    suffix = f"suffix-{kind}"
    main, mirror = _read(run, kind), _read(run, suffix) if _can_be_read(run, config, suffix) else None
    if not _is_curve(config, kind, main[0]):
        return
    if mirror is not None and not _is_curve(config, suffix, mirror[0]):
        mirror = None
    content = {"hand_over": hand_over(*main, mirror, seed), "seed": seed}
    write_whole(run / f"statistics_{kind}.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write_contrast(run: Path, config: dict[str, Any], kind: str, name: str, seed: int) -> None:
    (main, main_pairs), (control, control_pairs) = _read(run, kind), _read(run, name)
    layers = sorted(set(main["layer"]) & set(control["layer"]))
    if not layers or not (_is_curve(config, kind, main) and _is_curve(config, name, control)):
        return
    main, control = (table[table["layer"].isin(layers)] for table in (main, control))
    column = main_rate(config["experiments"][name]["intervention"]).removesuffix("_rate")
    table = contrast(main, control, main_pairs, control_pairs, column, seed)
    write_table(run / f"contrast_{kind}_vs_{name}.csv", table)
