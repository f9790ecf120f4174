"""Causal layer-by-layer experiments on speech language models, from the command line.

Thin on purpose: options in, calls to pairs, interventions and analysis, paths out. What needs torch is imported inside
the commands, so that help, `pairs` and `report` come at once.
"""

if __name__ == "__main__":  # before the imports below, which take a moment
    from runs.interrupt import open_standard_streams, quiet_from_the_start

    open_standard_streams()
    quiet_from_the_start()

import json
import shlex
from pathlib import Path
from typing import Any

import click

from commandline import running, showing
from commandline.families import family_table
from commandline.options import (
    DTYPES,
    RESULTS,
    alpha_option,
    check_plugin,
    experiment_options,
    intervention_options,
    kind_option,
    own_pair_kind_option,
    pair_kind_option,
    pair_options,
    plugin_option,
    report_option,
    worker_options,
)
from commandline.program import Program, debug_option, starting
from commandline.words import SEED, DeviceName, InterventionName, ModelName, Place, Whole, controls
from errors import BAD_USAGE, UserError
from files import check_writable, write_whole
from models.families import family_of
from models.folder import checkpoint_folder, read_config
from pairs import construction_report, dataset_identity, pair_row
from pairs.corpora import listed
from registry.catalogue import MAIN, Entry, catalogue
from registry.intervention import command_name
from registry.template import write_template
from runs.directory import RunDir
from runs.lock import only_user


@click.group(cls=Program, context_settings={"max_content_width": 110})
@debug_option
def cli() -> None:
    """Until which layer of a speech LLM can another voice change the answer, and until which can other words?

    Clip B's residual stream over the audio positions is written into clip A's run, one decoder layer at a time; what
    counts is how often A's answer becomes B's label (flip_to_target_rate). Without options a small model and
    synthesised clips that come with the project are used:

    \b
      python cli.py patch --kind prosody        same words, another voice
      python cli.py patch --kind semantic       same voice, other words
      python cli.py control --kind self         a control in which no answer may change
    """


@cli.command()
@click.option("--kind", type=InterventionName(), required=True, help="Which one; all runs every control in turn.")
@pair_kind_option
@alpha_option
@experiment_options
@worker_options
def control(kind: str, pair_kind: str, **options: Any) -> None:
    """Run a control, or another intervention, on the recipients and targets of the main experiment.

    `python cli.py NAME --help` says what it does and which options of its own it takes.
    """
    running.run_each(controls() if kind == "all" else [kind], pair_kind, options)


PATCH_HELP = """Run the main experiment: patch the audio span at every layer, count the flips, draw the curves.

Runs the checks first and stops if one fails. A finished experiment is not run again, an interrupted one goes on where
it stopped.
"""


def intervention_command(entry: Entry) -> click.Command:
    """`python cli.py NAME`: one intervention with its own options, its docstring as the help."""
    is_main = entry.name == MAIN

    @click.command(entry.name, help=PATCH_HELP if is_main else f"{entry.doc}\n\nFrom {entry.path.name}.")
    @(kind_option if is_main else own_pair_kind_option)
    @intervention_options(entry)
    @experiment_options
    @worker_options
    def command(**options: Any) -> None:
        running.run_each([entry.name], options.pop("kind" if is_main else "pair_kind"), options)

    return command


cli.make_command, cli.check = intervention_command, check_plugin


@cli.command(name="list")
@plugin_option
def list_interventions() -> None:
    """Show all interventions, one line each."""
    for name, entry in catalogue().items():
        kind = "main" if name == MAIN else "control" if entry.control else "variant"
        click.echo(f"{name:<14}{kind:<9}{entry.summary}")


@cli.command()
@debug_option
def corpora() -> None:
    """Show the corpora that --data recognises, where they are to be had, and what a full download holds."""
    click.echo(listed())


@cli.command()
@debug_option
def models() -> None:
    """Show the families of models that can be studied; a checkpoint's is recognised from its config.json."""
    click.echo(family_table())


@cli.command()
@click.argument("name")
@click.option("--in", "folder", type=Place(file_okay=False, exists=True), help="Another folder.")
def new(name: str, folder: Path | None) -> None:
    """Write a starting file for a new intervention called NAME, which runs as it is."""
    name = command_name(name)
    if name in cli.commands or name == "all":
        raise UserError(f"{name}: is a word of the program already; choose another name", BAD_USAGE)
    path = write_template(name, folder)
    plugin = f" --plugin {shlex.quote(str(path))}" if folder else ""
    click.echo(f"written: {path}\ntry it:  python cli.py {name}{plugin} --max-pairs 5 --out results/try-{name}")


@cli.command()
@experiment_options
def check(**options: Any) -> None:
    """Run the checks alone: where the audio span lies, and that patching a clip with itself changes nothing."""
    dataset = running.load_data(options)
    run = running.run_dir(options, dataset)
    running.check_model(options)
    with starting():
        subject = running.load_model(options)

        from runs.experiment import identity
        from runs.gates import run_checks
        from runs.place import Local
        from runs.settings import layers_of

    layers, skip = layers_of(subject.engine.n_layers, options["layers"]), options["on_bad_clip"] == "skip"
    run.claim(identity(Local(subject), dataset, skip))
    subject.clips.max_seconds = options["max_seconds"]
    run_checks(subject, dataset, run, options["seed"], layers, click.echo, skip)
    click.echo(f"all checks passed: {run.path}")


@cli.command()
@kind_option
@pair_options
def pairs(kind: str, **options: Any) -> None:
    """Build the pairs and report on them, without a model."""
    dataset = running.load_data(options)
    sample = running.sample_pairs(dataset, kind, options)
    run = running.run_dir(options, dataset)
    run.check({"data": dataset_identity(dataset, skip_bad_clips=True)})
    ran = kind in run.experiments()  # then the files there say what it ran with
    if not ran:
        run.update_json("pair_construction_report.json", kind, construction_report(sample, dataset))
        run.write_pairs(kind, [pair_row(pair) for pair in sample.pairs])
    possible = sample.report["pairs_possible"]
    click.echo(f"{len(dataset.clips)} clips, {possible} {kind} pairs possible, {len(sample.pairs)} drawn:")
    for transition, count in sample.report["per_transition"].items():
        click.echo(f"  {count:4d}  {transition}")
    report = run.path / "pair_construction_report.json"
    click.echo(f"{report}: kept, that of the {kind} experiment there" if ran else f"report: {report}")


@cli.command()
@click.argument("run_dir", type=Place(exists=True, file_okay=False))
@report_option
@debug_option
def report(run_dir: Path, pairs_in_report: int | str | None) -> None:
    """Make the tables and figures of a run again from its records, without a model."""
    with starting():
        from analysis.results import Results

    results = None
    # A run that goes on may have finished meanwhile, with other records.
    while results is None or results.config != RunDir(run_dir).config():
        results = Results(run_dir)
        for one in results.believed:
            n_pairs = len(one.pairs)
            if not one.finished:
                click.echo(f"{one.name} is not finished: {one.n_measured} of {n_pairs} pairs are in")
            if one.records is not None:
                showing.summary(results, one.name)
        if results.believed:
            showing.report(results, pairs_in_report)
    showing.refused(results)


@cli.command()
@click.argument("run_dirs", nargs=-1, required=True, type=Place(exists=True, file_okay=False))
@click.option("--out", type=Place(file_okay=False), default=RESULTS / "comparison", help="Where to.")
@debug_option
def compare(run_dirs: tuple[Path, ...], out: Path) -> None:
    """Draw the main curves of several runs on relative depth, with a table of their hand-over layers."""
    from analysis.compare import compare as compare_runs
    from analysis.compare import differing

    with only_user(out):
        table, figures = compare_runs(list(run_dirs), out)
    click.echo(table.to_string(index=False, float_format="{:.3f}".format))
    for line in table.attrs["contrasts"]:
        click.echo(line)
    for kind, mine in table.groupby("kind"):
        for line in differing(mine):
            click.echo(f"warning: {kind} pairs: {line}")
    showing.figures(figures)


@cli.command()
@click.option(
    "--model",
    type=ModelName(),
    help="Checkpoint folder or hub id.  [default: random weights, narrow enough for two cores]",
)
@click.option("--full-size", is_flag=True, help="Random weights in OpenS2S's real shape; needs a CUDA device.")
@click.option(
    "--device",
    type=DeviceName(),
    help="cpu, cuda or cuda:N.  [default: cpu; cuda where there is one for the larger models]",
)
@click.option("--dtype", type=click.Choice(DTYPES), help="[default: bfloat16 on cuda, float32 on cpu]")
@click.option("--rounds", type=Whole(min=1), default=2, show_default=True, help="Medians are over so many.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the weights and the sounds.")
@click.option("--json", "json_file", type=Place(dir_okay=False), help="Write the figures here too.")
@debug_option
def bench(json_file: Path | None, rounds: int, **options: Any) -> None:
    """Measure what a pair costs: by the textbook's procedure, as experiments are written, and by sweep and tail.

    In one process and in turn, so that the ratios hold on a busy machine too. Without options it takes a few minutes.
    """
    if json_file and not json_file.resolve().parent.is_dir():
        raise UserError(f"--json {json_file}: there is no folder {json_file.parent}; make it first", BAD_USAGE)
    if json_file:
        check_writable(json_file)
    if options["model"]:
        family_of(read_config(checkpoint_folder(options["model"])))
    from engine.bench import run_bench, shown
    from engine.bench_case import make_case

    result = run_bench(make_case(**options), rounds)
    click.echo(shown(result))
    if json_file:
        write_whole(json_file, json.dumps(result, indent=2) + "\n")
        click.echo(f"written: {json_file}")


if __name__ == "__main__":
    cli()
