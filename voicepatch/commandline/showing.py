"""What a command shows of its results: metrics and figures as they are written, and the report.

showing.summary(results, "prosody")
showing.report(results, pairs=500)
showing.exit_if_invalid(results)                      # ends with status 1 where an experiment does not hold together
"""

import shlex
from collections.abc import Collection, Iterable
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voicepatch.commandline.program import starting
from voicepatch.errors import BAD_INPUT
from voicepatch.models.family import Family

if TYPE_CHECKING:
    import pandas as pd

    from voicepatch.analysis.results import Results


def check_by(results: "Results") -> None:
    """`UserError` for a column that an experiment of the run lacks, before any table or figure is made."""
    from voicepatch.analysis.breakdown import breakdown_columns

    for one in results.valid:
        breakdown_columns(results, one)


def summary(results: "Results", name: str) -> None:
    """Write an experiment's tables and figures, and show its metrics and where the figures are."""
    with starting():
        from voicepatch.figures.own import own
        from voicepatch.report.summary import as_text, summarise

    click.echo(f"{name}: statistics and figures ...", err=True)
    metrics, drawn = summarise(results, name)
    experiment = results.experiment(name)
    click.echo(f"\n{name}{', by layer' if experiment.settings['by_layer'] else ''}:\n{as_text(metrics)}")
    for line in own(results, experiment, "sentences", results, experiment):
        click.echo(line)
    if metrics.attrs["gone"]:
        click.echo(f"warning: {metrics.attrs['gone']}", err=True)
    figures(drawn)


def report(results: "Results", pairs: int | str | None = None) -> None:
    """Write report.html with `pairs` pairs of each experiment.

    The terminal shows where it is, what was left out of it, and what the run found.
    """
    with starting():
        from voicepatch.analysis.results import left_out
        from voicepatch.report import write_report
        from voicepatch.report.answer import answer
        from voicepatch.report.control_verdicts import control_verdicts

    click.echo("report ...", err=True)
    for line in answer(results):
        click.echo(line)
    for line in control_verdicts(results):
        click.echo(line)
    for line in left_out(results):
        click.echo(f"left out: {line}")
    click.echo(f"report: {_relative(write_report(results, pairs))}")


def natural(run: Path, config: dict[str, Any], table: "pd.DataFrame") -> None:
    """Write natural.csv and its figure, and show where they are."""
    from voicepatch.figures.natural import LIMIT
    from voicepatch.report.natural import FILE, write_natural

    drawn = write_natural(run, config, table)
    click.echo(f"{LIMIT}\ntable: {_relative(run / FILE)}")
    figures(drawn)


def answers(run: Path, clip_ids: Collection[str] | None = None) -> None:
    """Write the tables and the figure of a run's answers, and show the summary and where they are.

    They are the answers to some clips, or to all that the run holds.
    """
    from voicepatch.report.answers import verdict, write_answers

    table, drawn, warning = write_answers(run, clip_ids)
    click.echo(table.to_string(index=False, na_rep="–", float_format="{:.3f}".format))
    click.echo(verdict(table))
    if warning:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"answers: {_relative(run / 'answers.csv')}\nsummary: {_relative(run / 'answers_summary.csv')}")
    figures(drawn)


def only_records(run: Path) -> None:
    """Show where the records are, and the command that makes figures and the report of them."""
    path = _relative(run)
    click.echo(f"records: {path}\nfigures and report: python cli.py report {shlex.quote(path)}")


def exit_if_invalid(results: "Results") -> None:
    """End with status 1 where experiments do not hold together, which are in no table and figure; a line for each."""
    for error in results.invalid.values():
        click.echo(f"error: {error}", err=True)
    if results.invalid:
        click.get_current_context().exit(BAD_INPUT)


def figures(paths: list[Path]) -> None:
    """Show where the figures are, or why there are none."""
    from voicepatch.figures.figure_style import why_not_drawn

    if why := why_not_drawn():
        click.echo(f"warning: {why}", err=True)
    for figure in paths:
        click.echo(f"figure: {_relative(figure)}")


def _relative(path: Path) -> str:
    return relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def family_list(families: Iterable[Family]) -> str:
    """The families of models, each with what is known of it; no checkpoint is looked at."""
    return "\n\n".join(map(_listed, families))


def _listed(family: Family) -> str:
    lines = [f"{family.name}: {family.summary}" if family.summary else family.name]
    facts = {
        "frames per second": family.frames_per_second and f"{family.frames_per_second:g}",
        "maximum audio length": family.max_audio_length,
        "layers": family.layers,
        "exact engines": " ".join(family.engines),
        "licence": family.licence,
        "hub ids": " ".join(family.hub_ids),
        "plugin": None if family.is_builtin else str(family.path),
    }
    return "\n  ".join(lines + [f"{what:<21} {fact}" for what, fact in facts.items() if fact])
