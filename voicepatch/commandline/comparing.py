"""The command `compare`: curves of several runs, or of parts of one."""

from pathlib import Path

import click

from voicepatch.commandline import showing
from voicepatch.commandline.param_types import ParamType
from voicepatch.commandline.program import debug_option
from voicepatch.paths import RESULTS
from voicepatch.store.lock import only_user
from voicepatch.types.setting import TEXT, path


@click.command()
@click.argument(
    "run_dirs",
    metavar="RUN_DIR...",
    nargs=-1,
    required=True,
    type=ParamType(path(may_be_file=False, must_exist=True)),
)
@click.option(
    "--by", type=ParamType(TEXT), help="Column of the data, such as text_type: a curve for each of its values."
)
@click.option(
    "--experiment", type=ParamType(TEXT), help="NAME of an experiment in the files.  [default: the main ones]"
)
@click.option("--out", type=ParamType(path(may_be_file=False)), default=RESULTS / "comparison", help="Result folder.")
@debug_option
def compare(run_dirs: tuple[Path, ...], by: str | None, experiment: str | None, out: Path) -> None:
    """Draw curves of several runs, or of parts of one, on relative depth, with a table of their hand-over layers."""
    from voicepatch.report.compare import as_text, differing
    from voicepatch.report.compare import compare as compare_runs

    with only_user(out):
        table, figures = compare_runs(list(run_dirs), out, by, experiment)
    click.echo(as_text(table))
    for line in table.attrs["contrasts"]:
        click.echo(line)
    for name, mine in table.groupby("experiment"):
        for line in differing(mine):
            click.echo(f"warning: {name}: {line}")
    showing.figures(figures)
