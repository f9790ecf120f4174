"""The metrics, statistics and figures of an experiment, written beside its records.

    results = Results(Path("results/RUN"))
    summarise(results, "prosody")                    # patching_metrics_prosody.csv, figures, …

Called at the end of every experiment and by `python cli.py report`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import figure_style, lens, timeline, words_and_voice
from analysis.cells import DOSE, with_all_digits
from analysis.charts import charts_of
from analysis.contrast_kinds import Contrast
from analysis.figure_style import escape
from analysis.results import Measured, Results
from errors import UserError
from files import cannot_be_written, write_whole

SHOWN = ["layer", "n_pairs", "eligible_count", "flip_to_target_rate", "flip_from_base_rate", "delta_logit_target_mean"]
MOST_SHOWN = 150
BEST_SHOWN = 20


def summarise(results: Results, name: str) -> tuple[pd.DataFrame, list[Path]]:
    """Write tables and figures of experiment `name` in the run directory; gives the metrics and the PNG files.

    Of a lens, which flips nothing, it gives the table of what leads by layer instead of the metrics.

    Where the run has the main experiment of that kind and controls that ran alike, the contrasts between them are
    written too. They and the hand-over layer are of curves: at the highest dose, and not where another option was
    swept. `UserError` where there is no record, or where the experiment's files do not hold together.
    """
    run, experiment = results.run, results.experiment(name)
    if experiment.records is None:
        raise UserError(f"{run}: {name} has no records yet ({len(experiment.pairs)} pairs are drawn); run it first")
    metrics, kind = experiment.metrics, experiment.kind
    write_table(run / f"patching_metrics_{name}.csv", metrics, [DOSE, *experiment.swept])
    main = results.main(kind)
    if main is not None:
        content = {"hand_over": results.hand_over(kind), "seed": main.seed}
        write_whole(run / f"statistics_{kind}.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        _write_contrasts(results, main, None if experiment is main else name)
    if experiment.is_main:
        _write_words_and_voice(results)
    metrics.attrs["shown"] = [SHOWN[0], *experiment.swept, *SHOWN[1:]]
    if lens.is_lens(experiment.settings):
        metrics = results.once(lens.leads_of, name)
        write_table(run / f"lens_{name}.csv", metrics)
        metrics.attrs["shown"] = lens.SHOWN
    if timeline.is_map(experiment.settings):
        levels = results.once(timeline.levels_of, name)
        if levels is not None:
            write_table(run / f"sound_level_{name}.csv", levels)
    figures = []
    for stem, chart in charts_of(results, name).items():
        figures += figure_style.save(chart, run / stem)
    return metrics, [figure for figure in figures if figure.suffix == ".png"]


def shown(metrics: pd.DataFrame) -> str:
    """Some columns of what `summarise` gave as text, for the terminal; of many cells those with the most flips."""
    few, note = metrics, ""
    if len(metrics) > MOST_SHOWN and "flip_to_target_rate" in metrics:
        few = metrics.nlargest(BEST_SHOWN, "flip_to_target_rate")
        note = f"\n({BEST_SHOWN} of {len(metrics)} cells, those with the highest flip_to_target_rate)"
    columns = metrics.attrs["shown"]
    few = with_all_digits(few[columns], [name for name in columns if name not in (*SHOWN, *lens.SHOWN)])
    few = few.map(lambda value: escape(value) if isinstance(value, str) else value)
    return few.to_string(index=False, float_format="{:.3f}".format) + note


def write_table(path: Path, table: pd.DataFrame, exact: Sequence[str] = ()) -> None:
    """Write a CSV file with six digits, those of the columns `exact` all, as a whole or not at all.

    A spreadsheet takes a text that begins with =, +, - or @ for a formula; an apostrophe stands before it.
    """
    texts = table.select_dtypes(exclude=["number", "bool"]).columns
    table = with_all_digits(table.assign(**{column: table[column].map(_cell) for column in texts}), exact)
    write_whole(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return f"'{escape(value)}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else escape(value)


def _write_words_and_voice(results: Results) -> None:
    """The contrast of both main experiments; without it, the statistics say why, and no table stays."""
    found = results.once(words_and_voice.contrast_of)
    if found is None:
        return
    path, is_there = results.run / f"{words_and_voice.STEM}.csv", isinstance(found, Contrast)
    if is_there:
        write_table(path, found.table)
    else:
        _remove(path)
    content = {"contrast": found.statistics if is_there else None, "reason": None if is_there else found}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_whole(results.run / "statistics_prosody_vs_semantic.json", text)


def _write_contrasts(results: Results, main: Measured, only: str | None) -> None:
    """Those of one control, or of all; what was written of one that is not joined any more is removed."""
    alike, others = results.controls(main.kind)
    for name in others:
        _remove(_contrast_file(results.run, main.name, name))
    for control in alike:
        if only in (None, control.name):
            write_table(_contrast_file(results.run, main.name, control.name), results.contrast(control))


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_be_written(path, error) from None


def _contrast_file(run: Path, main: str, control: str) -> Path:
    return run / f"contrast_{main}_vs_{control}.csv"
