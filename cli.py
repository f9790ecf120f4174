"""Causal layer-by-layer experiments on speech language models, from the command line.

Each command calls pairs, interventions and analysis, and prints paths. Imports that need torch are inside the
commands, so that help, `pairs` and `report` start at once.
"""

import sys

if sys.flags.optimize > 1:  # before the imports below, which need docstrings
    print(
        "error: python -OO leaves out docstrings, which transformers and the help need; use python -O", file=sys.stderr
    )
    sys.exit(2)
if __name__ == "__main__":  # before the imports below, which take a moment
    from voicepatch.runs.interrupt import open_standard_streams, quiet_from_the_start

    open_standard_streams()
    quiet_from_the_start()

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from voicepatch.commandline import (
    answering,
    comparing,
    confirming,
    listings,
    loading,
    measuring,
    paper,
    running,
    showing,
)
from voicepatch.commandline.dry_run import show as show_memory
from voicepatch.commandline.options import (
    answer_options,
    beside_option,
    check_options,
    check_plugin,
    experiment_options,
    intervention_options,
    kind_option,
    main_options,
    own_pair_kind_option,
    pair_kind_option,
    pair_options,
    plugin_option,
    report_options,
)
from voicepatch.commandline.param_types import ControlCommand, InterventionName, ParamType, controls
from voicepatch.commandline.program import Program, debug_option, starting
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.registry.intervention import command_name
from voicepatch.registry.syntax import Entry
from voicepatch.registry.template import write_template
from voicepatch.store.directory import RunDir
from voicepatch.store.experiment import read_pair_list
from voicepatch.store.reading import COMPLETE
from voicepatch.types.dataset import dataset_identity
from voicepatch.types.pair import clips_of, construction_report, pair_row
from voicepatch.types.record import pair_row_type
from voicepatch.types.setting import path


@click.group(cls=Program, context_settings={"max_content_width": 110})
@debug_option
def cli() -> None:
    """Until which layer of a speech LLM can another voice change the answer, and until which can other words?

    Clip B's residual stream over the audio positions is written into clip A's run, one decoder layer at a time. The
    result is the share of pairs whose answer then is B's label (flip_to_target_rate), beside the share in which it was
    so before. Without options, the demo's small model and synthesised clips are used:

    \b
      python cli.py patch --kind prosody        same words, another voice
      python cli.py patch --kind semantic       same voice, other words
      python cli.py control --kind self         a control in which no answer may change
    """


@cli.command(cls=ControlCommand)
@click.option("--kind", "name", type=InterventionName(), required=True, help="Control to run; all runs each of them.")
@pair_kind_option
@main_options
@experiment_options
def control(name: str, **options: Any) -> None:
    """Run a control, or another intervention, on the recipients and targets of the main experiment.

    `python cli.py NAME --help` describes it and its own options.
    """
    running.run_each(controls() if name == "all" else [name], options)


PATCH_HELP = """Run the main experiment: patch the audio span at every layer, count the flips, draw the curves.

Runs the checks first and stops if one fails. A finished experiment is not run again; an interrupted one continues
where it stopped.
"""


def intervention_command(entry: Entry) -> click.Command:
    """`python cli.py NAME`: one intervention with its own options, its docstring as the help."""
    is_main = entry.main

    @click.command(entry.name, help=PATCH_HELP if is_main else f"{entry.text}\n\nFrom {entry.path.name}.")
    @(kind_option if is_main else own_pair_kind_option)
    @intervention_options(entry)
    @(beside_option if is_main else lambda command: command)
    @experiment_options
    def command(**options: Any) -> None:
        running.run_each([entry.name], options)

    return command


cli.make_command, cli.check = intervention_command, check_plugin


@cli.command()
@click.argument("run_dir", metavar="RUN_DIR", type=ParamType(path(may_be_file=False, must_exist=True)))
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Number of ranked parts.")
@click.option("--draws", type=click.IntRange(min=1), default=5, show_default=True, help="Random sets of each size.")
@own_pair_kind_option
@experiment_options
def confirm(run_dir: Path, top: int, draws: int, **options: Any) -> None:
    """Patch exactly the heads and MLPs that the estimates of a run rank highest.

    They are ranked by `attribution` on one half of the texts. On the other half the best are patched each alone and
    jointly, then all parts but them, and random sets from the same layers. The curves show how many parts carry the
    effect, and whether others stand in for them.
    """
    confirming.confirm(run_dir, top, draws, options)


@cli.command()
@click.argument("name")
@click.option("--in", "folder", type=ParamType(path(may_be_file=False, must_exist=True)), help="Folder for the file.")
def new(name: str, folder: Path | None) -> None:
    """Write a starting file for a new intervention called NAME, which runs as it is."""
    name = command_name(name)
    if name in cli.commands or name == "all":
        raise UserError(f"{name}: is already a name of the program; choose another name", BAD_USAGE)
    file = write_template(name, folder)
    plugin = f" --plugin {shlex.quote(str(file))}" if folder else ""
    click.echo(f"written: {file}\ntry it:  python cli.py {name}{plugin} --max-pairs 5 --out results/try-{name}")


@cli.command()
@click.option(
    "--planted",
    is_flag=True,
    help="Also let the span be read in one layer alone, and recover that layer by patching. It takes up to five "
    "layers and eight pairs of its own; --layers and --max-pairs do not change them.",
)
@click.option("--natural", is_flag=True, help="Also measure how far patched states are from those of unpatched clips.")
@click.option("--dry-run", is_flag=True, help="Only show how much memory a run takes; reads config.json, no weights.")
@click.option(
    "--seconds", type=click.FloatRange(0, 3600, min_open=True), default=10, help="Length of a clip for --dry-run."
)
@check_options
def check(planted: bool, natural: bool, dry_run: bool, seconds: float, **options: Any) -> None:
    """Run only the checks: the model, the position of the audio span, and that self-patching changes nothing."""
    settings = running.settings_of(options)
    if dry_run:
        loading.check_model(settings)
        show_memory(settings, len(running.load_data(settings).clips), seconds)
        return
    if natural:
        running.refuse_answered(settings, "check --natural")
    dataset = running.load_data(settings)
    run = running.run_dir(settings, dataset)
    pairs_of = running.pairs_by_kind(dataset, settings) if natural else {}
    if natural:  # before the model is loaded
        from voicepatch.analysis.distances import check_number

        for kind, drawn in pairs_of.items():
            check_number(kind, len(clips_of(drawn)))
    loading.check_model(settings)
    with starting():
        subject = loading.load_model(settings)

        from voicepatch.runs.executor import LocalExecutor
        from voicepatch.runs.experiment import run_identity
        from voicepatch.runs.preflight import check_natural, check_planted, run_checks
        from voicepatch.runs.recorded import layers_of

    layers, skip = layers_of(subject.engine.n_layers, settings.layers), settings.skip_bad_clips
    executor = LocalExecutor(subject)
    executor.expect(dataset.hashes)
    run.claim(run_identity(executor, dataset, skip))
    subject.clips.sounds.max_seconds = settings.max_seconds
    run_checks(subject, dataset, run, settings.seed, layers, click.echo, skip)
    failed = None
    try:
        if planted:
            check_planted(subject, dataset, run, settings.seed, click.echo, skip)
        if natural:
            table = check_natural(subject, pairs_of, run, settings.seed, click.echo, skip)
            showing.natural(run.path, run.config(), table)
    except UserError as error:
        failed = error
    if planted or natural:
        running.renew_report(run)
    if failed:  # after the report, which shows a check that failed
        raise failed
    click.echo(f"all checks passed: {run.path}")


@cli.command()
@answer_options
def answers(**options: Any) -> None:
    """Ask about each clip of the data once, unpatched: does the model do the task?

    The answers are in answers.csv. The summary says how many follow the voice, the words, both or neither, with 95 %
    intervals by text, beside the share of random answers. It is by text_type wherever the data have that column.
    Interrupted, the same command goes on where it stopped.
    """
    answering.answer_all(running.settings_of(options))


@cli.command()
@kind_option
@pair_options
@click.option("--acoustics", is_flag=True, help="Also measure how much the clips of a pair differ in sound.")
def pairs(acoustics: bool, **options: Any) -> None:
    """Build the pairs and report on them, without a model."""
    settings = running.settings_of(options, kind_required=True)
    running.refuse_answered(settings, "pairs")
    dataset, kind = running.load_data(settings), settings.kind
    sample = running.sample_pairs(dataset, settings)
    run = running.run_dir(settings, dataset)
    run.check({"task": dataset.task.identity(), "data": dataset_identity(dataset, skip_bad_clips=True)})
    ran = kind in run.experiments()  # then the files there say what it ran with
    if not ran:
        run.update_json("pair_construction_report.json", kind, construction_report(sample, dataset))
        rows = [pair_row(pair, dataset.columns) for pair in sample.pairs]
        run.write_pairs(kind, rows, pair_row_type(dataset.task.labels, dataset.columns))
    possible = sample.report["pairs_possible"]
    click.echo(f"{sample.report['n_clips']} clips, {possible} {kind} pairs possible, {len(sample.pairs)} drawn:")
    for transition, count in sample.report["per_transition"].items():
        click.echo(f"  {count:4d}  {transition}")
    report = run.path / "pair_construction_report.json"
    click.echo(f"{report}: unchanged, because the {kind} experiment uses it" if ran else f"report: {report}")
    if acoustics:
        from pairs.acoustics import write_acoustics

        if ran:
            listed = [(one.pair_id, one.clip_a, one.clip_b) for one in read_pair_list(run.path, run.config(), kind)]
        else:
            listed = [(one.pair_id, one.a.clip_id, one.b.clip_id) for one in sample.pairs]
        for line in write_acoustics(run.path, kind, dataset.clips, listed, of_experiment=ran):
            click.echo(line)


@cli.command()
@click.argument("run_dir", type=ParamType(path(may_be_file=False, must_exist=True)))
@report_options
@plugin_option
@debug_option
def report(run_dir: Path, pairs_in_report: int | str | None, by: Sequence[str]) -> None:
    """Make the tables and figures of a run again from its records and its answers, without a model."""
    config, results = RunDir(run_dir).config(), None
    has_answers = config.get("answers", {}).get("finished", False)
    if "answers" in config and not config["experiments"]:
        if by:
            raise UserError(f"--by: {run_dir} has answers and no experiment; leave --by out", BAD_USAGE)
        if not has_answers:
            raise UserError(f"{run_dir}: the command `answers` is not finished; {COMPLETE}")
        showing.answers(run_dir)
        return
    # A run that goes on may have finished meanwhile, with other records.
    while results is None or results.config != RunDir(run_dir).config():
        results = running.results_of(run_dir, by=by)
        showing.check_by(results)
        for one in results.valid:
            n_pairs = len(one.pairs)
            if not one.finished:
                click.echo(f"{one.name} is not finished: {one.n_measured} of {n_pairs} pairs are in")
            if one.records is not None:
                showing.summary(results, one.name)
        if results.valid:
            showing.report(results, pairs_in_report)
    if has_answers:  # last, since it is an error where they do not hold together
        showing.answers(run_dir)
    showing.exit_if_invalid(results)


for command in (comparing.compare, paper.figure, paper.table, measuring.bench, *listings.commands):
    cli.add_command(command)


def main() -> None:
    """The installed command `voicepatch`."""
    cli(prog_name="voicepatch")


if __name__ == "__main__":
    cli()
