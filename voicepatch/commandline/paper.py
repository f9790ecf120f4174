"""Commands for a paper: one figure of a run at the width of a column, and one table.

    python cli.py figure results/RUN controls_prosody --width 3.3in --format pdf
    python cli.py table results/RUN prosody --format latex

Both only read the run; what they write is beside it, or where --out says.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voicepatch.commandline import running
from voicepatch.commandline.options import plugin_option
from voicepatch.commandline.param_types import ParamType
from voicepatch.commandline.program import debug_option, starting
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.files import CONFIG, write_whole
from voicepatch.text import listing, short_repr
from voicepatch.types.setting import TEXT, ValueType, path

if TYPE_CHECKING:
    from voicepatch.analysis.results import Results

POINTS = {"in": 72.0, "cm": 72 / 2.54, "mm": 72 / 25.4, "pt": 1.0}
SMALLEST, LARGEST = 36, 2880  # points: half an inch, 40 inches
PICTURES = ("pdf", "svg", "png")
Charts = Callable[[str], Iterator[tuple[str, Mapping[str, Any]]]]  # for a wanted name: experiment, stem -> chart
FOLDER = "paper"  # in the run directory
SUFFIXES = {"latex": ".tex", "csv": ".csv", "markdown": ".md"}


def _read_length(value: Any) -> float:
    found = re.fullmatch(r"\s*(\d{1,5}(?:\.\d{1,6})?)\s*(in|cm|mm|pt)\s*", str(value))
    if found is None:
        raise ValueError(f"{short_repr(str(value))} is not a length; write for example 3.3in, 8.4cm, 84mm or 238pt")
    points = float(found[1]) * POINTS[found[2]]
    if not SMALLEST <= points <= LARGEST:
        raise ValueError(f"{value} is not between 0.5in and 40in")
    return points


def _read_label(value: Any) -> tuple[str, str]:
    old, equals, new = TEXT.read(value).partition("=")
    if not equals or not old.strip() or not new.isprintable():
        raise ValueError(f"{short_repr(str(value))} is not OLD=NEW; write for example prosody=Voice")
    return old.strip(), new.strip()


LENGTH, LABEL = ValueType("LENGTH", _read_length), ValueType("OLD=NEW", _read_label)
run_argument = click.argument("run_dir", metavar="RUN_DIR", type=ParamType(path(may_be_file=False, must_exist=True)))
out_option = click.option("--out", type=ParamType(path(may_be_folder=False)), help="File to write.")


@click.command()
@run_argument
@click.argument("name", required=False)
@click.option("--width", type=ParamType(LENGTH), default="3.3in", show_default=True, help="Width in in, cm, mm or pt.")
@click.option("--height", type=ParamType(LENGTH), help="Height.  [default: by the figure's rows]")
@click.option("--format", "form", type=click.Choice(PICTURES), help="[default: the suffix of --out, or pdf]")
@click.option("--font", type=ParamType(TEXT), default="sans-serif", show_default=True, help="An installed font.")
@click.option(
    "--label", "labels", type=ParamType(LABEL), multiple=True, help="Another name of a line, panel or axis; repeatable."
)
@out_option
@plugin_option
@debug_option
def figure(
    run_dir: Path,
    name: str | None,
    width: float,
    height: float | None,
    form: str | None,
    font: str,
    labels: tuple[tuple[str, str], ...],
    out: Path | None,
) -> None:
    """Draw one figure of a run for a paper: no title, letters of 8 pt, the caption in a text file beside it.

    NAME is a figure's name (the file's name without .png), or an experiment's name for its first figure. Without NAME,
    the figures are listed. RUN_DIR may be a folder that `compare` wrote. The default file is paper/NAME.pdf there.
    """
    form = form or (out.suffix.lstrip(".").lower() if out else "pdf")
    if out and (form not in PICTURES or out.suffix.lower() != f".{form}"):
        expected = f".{form}" if form in PICTURES else ".pdf, .svg or .png"
        raise UserError(f"--out {out}: its suffix must be {expected}", BAD_USAGE)
    charts = _charts_in(run_dir)
    with starting():
        from voicepatch.figures.captions import caption_of, short_title_of
        from voicepatch.figures.figure_style import why_not_drawn
        from voicepatch.figures.paper import Size, for_paper, picture, renamed, require_font

    if name is None:
        for stem, spec in _all_figures(charts):
            click.echo(f"{stem}: {short_title_of(spec)}")
        return
    if why := why_not_drawn():
        raise UserError(why.partition("; report.html")[0])
    require_font(font)
    stem, spec = _figure_named(run_dir, charts, name)
    spec = renamed(spec, dict(labels))
    file = out or run_dir / FOLDER / f"{stem}.{form}"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, picture(for_paper(spec, Size(width, height or 0), font), form, width))
    write_whole(file.with_suffix(".txt"), caption_of(spec) + "\n")
    click.echo(f"figure: {file}\ncaption: {file.with_suffix('.txt')}")


@click.command()
@run_argument
@click.argument("name", required=False)
@click.option("--format", "form", type=click.Choice(list(SUFFIXES)), default="latex", show_default=True)
@click.option(
    "--columns",
    type=ParamType(TEXT),
    help="Columns to show, as A,B,C: names in the file, or headings.  [default: those a paper shows]",
)
@out_option
@debug_option
def table(run_dir: Path, name: str | None, form: str, columns: str | None, out: Path | None) -> None:
    """Show one table of a run for a paper: estimates with their intervals, and a caption.

    NAME is a table's name (the file's name without .csv), or an experiment's name for its metrics. Without NAME, the
    tables are listed. RUN_DIR may be a folder that `compare` wrote. LaTeX needs the package booktabs.
    """
    with starting():
        from voicepatch.report.paper_table import (
            FORMATS,
            caption_of,
            experiment_of,
            intervals_of,
            paper_table,
            read_table,
            tables_in,
        )

    if name is None:
        for stem in tables_in(run_dir):
            click.echo(stem)
        return
    stem, content = read_table(run_dir, name)
    chosen = [column.strip() for column in columns.split(",")] if columns else []
    caption, intervals = caption_of(run_dir, stem), intervals_of(run_dir, stem)
    made = paper_table(content, caption, chosen, intervals, experiment_of(run_dir, stem))
    text = FORMATS[form](made, stem)
    if out is None:
        click.echo(text, nl=False)
        if form == "csv":
            click.echo(made.caption, err=True)
        return
    write_whole(out, text)
    click.echo(f"table: {out}")
    if form == "csv":
        write_whole(out.with_suffix(".txt"), made.caption + "\n")
        click.echo(f"caption: {out.with_suffix('.txt')}")


def _all_figures(charts: Charts) -> Iterator[tuple[str, dict[str, Any]]]:
    """The declarations of all figures, each once."""
    from voicepatch.figures.figure_style import spec_of

    seen = set()
    for _, mine in charts(""):
        for stem, chart in mine.items():
            if stem not in seen:
                seen.add(stem)
                yield stem, spec_of(chart)


def _figure_named(folder: Path, charts: Charts, name: str) -> tuple[str, dict[str, Any]]:
    """A figure, or the first one of an experiment; `UserError` with the nearest name where there is none."""
    from voicepatch.figures.figure_style import spec_of

    known: list[str] = []
    for experiment, mine in charts(name):
        if name in mine or (experiment == name and mine):
            stem = name if name in mine else next(iter(mine))
            return stem, spec_of(mine[stem])
        known += [experiment, *mine]
    close = difflib.get_close_matches(name[:80], known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it has {listing(dict.fromkeys(known), most=30)}"
    raise UserError(f"{folder}: has no figure {short_repr(name)}; {hint}", BAD_USAGE)


def _charts_in(folder: Path) -> Charts:
    """The figures of a run, or of a folder that `compare` wrote."""
    with starting():
        from voicepatch.report.compare import COMPARED, charts_in

    if (folder / COMPARED).exists() and not (folder / CONFIG).exists():
        compared = charts_in(folder)
        return lambda name: ((stem.removeprefix("compare_"), {stem: chart}) for stem, chart in compared.items())
    return partial(_charts_of_run, running.results_of(folder))


def _charts_of_run(results: "Results", name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each experiment with its figures; those that the name may mean come first, since figures take time."""
    from voicepatch.figures.charts import charts_of
    from voicepatch.report import answers

    if name in ("", answers.STEM) or not results.valid:
        yield answers.STEM, answers.charts(results)
    for one in sorted(results.valid, key=lambda one: one.name not in name):
        if one.records is not None:
            yield one.name, charts_of(results, one.name)
