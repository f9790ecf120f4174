"""The metrics, statistics and figures of an experiment, written beside its records.

    results = Results(Path("results/RUN"))
    summarise(results, "prosody")                    # patching_metrics_prosody.csv, figures, …

Called at the end of every experiment and by `python cli.py report`.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from voicepatch.analysis import words_and_voice
from voicepatch.analysis.behaviour import behaviour
from voicepatch.analysis.breakdown import (
    breakdown,
    breakdown_columns,
    breakdown_file,
    largest_difference,
    single_values,
)
from voicepatch.analysis.cells import DOSE, at_highest_dose, with_all_digits
from voicepatch.analysis.contrasts import Contrast
from voicepatch.analysis.csv_file import write_table
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.need import FOLLOW, LOST, need_by, need_of
from voicepatch.analysis.results import Results
from voicepatch.analysis.rounding import with_digits
from voicepatch.errors import UserError
from voicepatch.figures import figure_style
from voicepatch.figures.cell_map import CellMap, cell_map
from voicepatch.figures.charts import charts_of
from voicepatch.figures.curves import DELTA_LOGIT, FROM_BASE, TO_TARGET, TO_TARGET_ELIGIBLE
from voicepatch.figures.headings import ESTIMATES
from voicepatch.figures.own import own, replaces_common
from voicepatch.files import cannot_be_written, open_regular, write_whole
from voicepatch.report.details import hand_over
from voicepatch.text import for_xml

SHOWN = ["layer", "n_pairs", TO_TARGET, "eligible_count", TO_TARGET_ELIGIBLE, FROM_BASE, DELTA_LOGIT]
WITHOUT_DONOR = ["layer", "n_pairs", FROM_BASE]
OWN = f"{TO_TARGET} counts them, {TO_TARGET_ELIGIBLE} does not"
MOST_SHOWN = 150
MARKED_SHOWN = 20
MARKED = ["effect", "limit_low", "limit_high", "p_max"]


def summarise(results: Results, name: str) -> tuple[pd.DataFrame, list[Path]]:
    """Write tables and figures of experiment `name` in the run directory; gives the metrics and the PNG files.

    Where the experiment's own figures replace the common ones, it gives its first own table instead of the metrics.

    Where the run has the main experiment of that kind and controls with the same settings, the contrasts between them
    are written too. They and the hand-over layer are of curves: at the highest dose, and not where another option was
    swept. `UserError` where there is no record, or where the experiment's files do not hold together.
    """
    run, experiment = results.run, results.experiment(name)
    if experiment.records is None:
        raise UserError(f"{run}: {name} has no records yet ({len(experiment.pairs)} pairs are drawn); run it first")
    metrics, kind = experiment.metrics, experiment.kind
    path = run / f"patching_metrics_{name}.csv"
    gone = _gone(path, experiment)
    write_table(path, metrics, [DOSE, *experiment.swept])
    if experiment.is_main and kind == "semantic":
        path = run / f"patching_metrics_{name}_by_congruence.csv"
        write_table(path, experiment.metrics_by_congruence, [DOSE, *experiment.swept])
    by = {column: results.cached(breakdown, name, column) for column in breakdown_columns(results, experiment)}
    for column, table in by.items():
        write_table(run / f"patching_metrics_{breakdown_file(name, column)}.csv", table, [DOSE, *experiment.swept])
    main = results.main(kind)
    if main is not None:
        area = {key: results.area(kind)[key] for key in ("area", "low", "high", "reason")}
        content = {
            "hand_over": results.hand_over(kind),
            "area": area,
            "n_pairs": main.n_compared,
            "seed": main.seed,
        }
        write_whole(run / f"statistics_{kind}.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        _write_contrasts(results, main, None if experiment is main else name)
    if experiment.is_main:
        _write_words_and_voice(results)
    if experiment.settings["beside_main"] and (found := results.cached(need_of)):
        content = found.statistics | {"experiments": list(found.names), "left_out": found.left_out_lines}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_whole(run / "statistics_need.json", text)
    columns = SHOWN if experiment.has_donor else WITHOUT_DONOR
    metrics.attrs["shown"] = [columns[0], *experiment.swept, *columns[1:]]
    metrics.attrs["unit"] = experiment.unit
    tested = results.cached(cell_map, name)
    if tested is not None:
        write_table(run / f"map_cells_{name}.csv", tested.table, [DOSE, *experiment.swept])
    tables = own(results, experiment, "tables", results, experiment)
    for stem, table in tables.items():
        write_table(run / f"{stem}.csv", table)
    if tables and replaces_common(results, experiment):
        metrics = next(iter(tables.values()))
    metrics.attrs |= {
        "gone": gone,
        "tested": tested,
        "notes": [*_notes(results, experiment), *_differences(results, experiment, by)],
    }
    figures = []
    for stem, chart in charts_of(results, name).items():
        figures += figure_style.save(chart, run / stem)
    return metrics, [figure for figure in figures if figure.suffix == ".png"]


def as_text(metrics: pd.DataFrame) -> str:
    """Some columns of what `summarise` gave as text, for the terminal; of a map its marked cells too, or these alone.

    They are alone where the metrics have more than `MOST_SHOWN` rows.
    """
    tested = metrics.attrs.get("tested")
    columns = metrics.attrs.get("shown", list(metrics))
    swept = [name for name in columns if name not in SHOWN] if TO_TARGET in metrics else []
    parts = (
        []
        if tested and len(metrics) > MOST_SHOWN
        else [_rows(metrics, swept, columns, metrics.attrs.get("unit", "pair"))]
    )
    return "\n".join([*parts, *metrics.attrs.get("notes", []), *(_marked(tested) if tested else [])])


def _notes(results: Results, experiment: ExperimentResults) -> list[str]:
    """What a reader of the rates must know of them, and the hand-over layer of a main experiment."""
    own, found = experiment.metrics["base_is_target_rate"].mean(), results.hand_over(experiment.kind)
    lines = [ESTIMATES] if experiment.is_estimate else []
    lines += [hand_over(found, experiment.of_compared)] if found and experiment.is_main else []
    lines += single_values(results, experiment)
    lines += [experiment.congruence_note] if found and experiment.congruence_note else []
    if experiment.has_donor and own:
        lines.append(f"A's own rate: {own:.1%} of answers are the target before the change; {OWN}")
    if experiment.is_main and (of_b := behaviour(results, experiment.kind)):
        lines.append(of_b.line)
    return lines + ([f"warning: {experiment.little_mass}"] if experiment.little_mass else [])


def _differences(results: Results, experiment: ExperimentResults, by: Mapping[str, pd.DataFrame]) -> list[str]:
    """A line for each column by which a curve is broken down; of need, whose groups differ, a line for each group."""
    if experiment.settings["beside_main"]:
        return _differences_of_need(results, experiment, by)
    if not experiment.is_curve or not experiment.settings["by_layer"] or experiment.settings["reads_only"]:
        return []
    lines = [largest_difference(at_highest_dose(table), column, experiment.rate) for column, table in by.items()]
    return [line for line in lines if line]


def _differences_of_need(results: Results, experiment: ExperimentResults, by: Iterable[str]) -> list[str]:
    found, lines = results.cached(need_of), []
    if found is None or experiment.name not in found.names:
        return []
    for column in by:
        for group, mine in results.cached(need_by, column).groupby("follows", sort=False):
            line = largest_difference(mine.rename(columns={"n_clips": "n_pairs"}), column, LOST)
            lines += [f"{FOLLOW[str(group)]}: {line}"] if line else []
    return lines


def _marked(tested: CellMap) -> list[str]:
    """What marks a cell of a map, and the marked cells, strongest first."""
    marked = tested.marked
    if marked.empty:
        return [tested.note]
    first = f"\nthe strongest {MARKED_SHOWN}:" if len(marked) > MARKED_SHOWN else ""
    return [tested.note + first, _rows(marked[:MARKED_SHOWN], tested.cell, [*tested.cell, *MARKED])]


def _rows(table: pd.DataFrame, exact: list[str], columns: list[str], unit: str = "pair") -> str:
    table = with_digits(with_all_digits(table, exact))[columns]
    table = table.map(lambda value: for_xml(value) if isinstance(value, str) else value)
    table = table.rename(columns={"n_pairs": "n_clips"}) if unit == "clip" else table
    return table.to_string(index=False, na_rep="–", float_format="{:.3f}".format)


def _gone(path: Path, experiment: ExperimentResults) -> str:
    """Which columns of the file as it was are of metrics that are not there any more; "" where none are."""
    try:
        with open_regular(path) as file:
            before = file.readline().decode().strip().split(",")
    except (OSError, ValueError):  # there is none, or it is no text
        return ""
    known = {*experiment.metrics, *experiment.settings["options"]}
    gone = [name for name in before if name not in known and not name.endswith(("_low", "_high"))]
    return f"{path.name} no longer has {', '.join(map(for_xml, gone))}: name the metric's --plugin" if gone else ""


def _write_words_and_voice(results: Results) -> None:
    """The contrast of both main experiments; without it, the statistics say why, and no table stays."""
    found = results.cached(words_and_voice.contrast_of)
    if found is None:
        return
    path = results.run / f"{words_and_voice.STEM}.csv"
    content: dict[str, Any] = {"contrast": None, "reason": None}
    if isinstance(found, Contrast):
        write_table(path, found.table)
        content["contrast"] = found.statistics
    else:
        _remove(path)
        content["reason"] = found
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_whole(results.run / "statistics_prosody_vs_semantic.json", text)


def _write_contrasts(results: Results, main: ExperimentResults, only: str | None) -> None:
    """Those of one control, or of all; what was written of one that is not joined any more is removed."""
    comparable, others = results.controls(main.kind)
    for name in others:
        _remove(_contrast_file(results.run, main.name, name))
    for control in comparable:
        if only in (None, control.name):
            write_table(_contrast_file(results.run, main.name, control.name), results.contrast(control))


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_be_written(path, error) from None


def _contrast_file(run: Path, main: str, control: str) -> Path:
    return run / f"contrast_{main}_vs_{control}.csv"
