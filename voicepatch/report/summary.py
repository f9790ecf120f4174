"""The metrics, statistics and figures of an experiment, written beside its records.

    results = Results(Path("results/RUN"))
    summarise(results, "prosody")                    # patching_metrics_prosody.csv, figures, …

Called at the end of every experiment and by `python cli.py report`.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from voicepatch.analysis import words_and_voice
from voicepatch.analysis.cells import DOSE, with_all_digits
from voicepatch.analysis.contrasts import Contrast
from voicepatch.analysis.csv_file import write_table
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.results import Results
from voicepatch.errors import UserError
from voicepatch.figures import figure_style
from voicepatch.figures.charts import charts_of
from voicepatch.figures.own import own, replaces_common
from voicepatch.files import cannot_be_written, open_regular, write_whole
from voicepatch.text import for_xml

SHOWN = ["layer", "n_pairs", "eligible_count", "flip_to_target_rate", "flip_from_base_rate", "delta_logit_target_mean"]
WITHOUT_DONOR = ["layer", "n_pairs", "flip_from_base_rate"]
MOST_SHOWN = 150
BEST_SHOWN = 20


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
    main = results.main(kind)
    if main is not None:
        content = {"hand_over": results.hand_over(kind), "seed": main.seed}
        write_whole(run / f"statistics_{kind}.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        _write_contrasts(results, main, None if experiment is main else name)
    if experiment.is_main:
        _write_words_and_voice(results)
    columns = SHOWN if experiment.has_donor else WITHOUT_DONOR
    metrics.attrs["shown"] = [columns[0], *experiment.swept, *columns[1:]]
    tables = own(results, experiment, "tables", results, experiment)
    for stem, table in tables.items():
        write_table(run / f"{stem}.csv", table)
    if tables and replaces_common(results, experiment):
        metrics = next(iter(tables.values()))
    metrics.attrs["gone"] = gone
    figures = []
    for stem, chart in charts_of(results, name).items():
        figures += figure_style.save(chart, run / stem)
    return metrics, [figure for figure in figures if figure.suffix == ".png"]


def as_text(metrics: pd.DataFrame) -> str:
    """Some columns of what `summarise` gave as text, for the terminal; of many cells those with the most flips."""
    few, note = metrics, ""
    if len(metrics) > MOST_SHOWN and "flip_to_target_rate" in metrics:
        few = metrics.nlargest(BEST_SHOWN, "flip_to_target_rate")
        note = f"\n({BEST_SHOWN} of {len(metrics)} cells, those with the highest flip_to_target_rate)"
    columns = metrics.attrs.get("shown", list(metrics))
    swept = [name for name in columns if name not in SHOWN] if "flip_to_target_rate" in metrics else []
    few = with_all_digits(few[columns], swept)
    few = few.map(lambda value: for_xml(value) if isinstance(value, str) else value)
    return few.to_string(index=False, float_format="{:.3f}".format) + note


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
