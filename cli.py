"""Causal layer-by-layer experiments on speech language models, from the command line.

Thin on purpose: options in, calls to pairs, interventions and analysis, paths out. What needs torch is imported inside
the commands, so that help, `pairs` and `report` come at once.
"""

if __name__ == "__main__":  # before the imports below, which take a moment
    from runs.interrupt import quiet_from_the_start

    quiet_from_the_start()

import gc
import json
import os
import sys
from dataclasses import replace
from functools import partial
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from commandline.config_file import max_pairs, told_options
from commandline.families import family_table
from commandline.options import (
    DTYPES,
    RESULTS,
    alpha_option,
    check_plugin,
    check_workers,
    experiment_options,
    intervention_options,
    kind_option,
    own_pair_kind_option,
    pair_kind_option,
    pair_options,
    plugin_option,
    run_path,
    wants_workers,
    worker_options,
)
from commandline.program import Program, debug_option, starting
from commandline.words import SEED, DeviceName, InterventionName, ModelName, Place, Whole, controls
from errors import BAD_INPUT, BAD_USAGE, UserError
from files import write_whole
from models.families import family_of
from models.folder import check_layers, checkpoint_folder, is_hub_id, n_layers_of, read_config
from pairs import Dataset, PairSample, build_pairs, dataset_identity, load_dataset, pair_row
from pairs.corpora import listed
from registry.catalogue import MAIN, Entry, catalogue, load_intervention
from registry.intervention import command_name
from registry.template import write_template
from runs.directory import RunDir
from runs.shadow import main_of, refuse_otherwise

if TYPE_CHECKING:
    from analysis.results import Results
    from engine.subject import Subject
    from runs.place import Place as Computing


@click.group(cls=Program, context_settings={"max_content_width": 110})
@debug_option
def cli() -> None:
    """Which layers of a speech LLM decide from the voice, and which from the words?

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
    _run(controls() if kind == "all" else [kind], pair_kind, options)


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
        _run([entry.name], options.pop("kind" if is_main else "pair_kind"), options)

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
    plugin = f" --plugin {path}" if folder else ""
    click.echo(f"written: {path}\ntry it:  python cli.py {name}{plugin} --max-pairs 5 --out results/try-{name}")


@cli.command()
@experiment_options
def check(**options: Any) -> None:
    """Run the checks alone: where the audio span lies, and that patching a clip with itself changes nothing."""
    dataset = _load_data(options)
    run = _run_dir(options, dataset)
    _check_model(options)
    with starting():
        subject = _load_model(options)

        from runs.experiment import identity
        from runs.gates import run_checks
        from runs.place import Local
        from runs.settings import layers_of

    run.claim(identity(Local(subject), dataset))
    layers, skip = layers_of(subject.engine.n_layers, options["layers"]), options["on_bad_clip"] == "skip"
    run_checks(subject, dataset, run, options["seed"], layers, click.echo, skip)
    click.echo(f"all checks passed: {run.path}")


@cli.command()
@kind_option
@pair_options
def pairs(kind: str, **options: Any) -> None:
    """Build the pairs and report on them, without a model."""
    dataset = _load_data(options)
    sample = _sample(dataset, kind, options)
    run = _run_dir(options, dataset)
    run.check({"data": dataset_identity(dataset)})
    ran = kind in run.experiments()  # then the files there say what it ran with
    if not ran:
        run.update_json("pair_construction_report.json", kind, sample.report)
        run.write_pairs(kind, [pair_row(pair) for pair in sample.pairs])
    possible = sample.report["pairs_possible"]
    click.echo(f"{len(dataset.clips)} clips, {possible} {kind} pairs possible, {len(sample.pairs)} drawn:")
    for transition, count in sample.report["per_transition"].items():
        click.echo(f"  {count:4d}  {transition}")
    report = run.path / "pair_construction_report.json"
    click.echo(f"{report}: kept, that of the {kind} experiment there" if ran else f"report: {report}")


@cli.command()
@click.argument("run_dir", type=Place(exists=True, file_okay=False))
@debug_option
def report(run_dir: Path) -> None:
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
                _summarise(results, one.name)
        if results.believed:
            _report(results)
    _tell_refused(results)


@cli.command()
@click.argument("run_dirs", nargs=-1, required=True, type=Place(exists=True, file_okay=False))
@click.option("--out", type=Place(file_okay=False), default=RESULTS / "comparison", help="Where to.")
@debug_option
def compare(run_dirs: tuple[Path, ...], out: Path) -> None:
    """Draw the main curves of several runs on relative depth, with a table of their hand-over layers."""
    from analysis.compare import compare as compare_runs
    from analysis.compare import differing

    table, figures = compare_runs(list(run_dirs), out)
    click.echo(table.to_string(index=False, float_format="{:.3f}".format))
    for line in table.attrs["contrasts"]:
        click.echo(line)
    for kind, mine in table.groupby("kind"):
        for line in differing(mine):
            click.echo(f"warning: {kind} pairs: {line}")
    _show_figures(figures)


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
    if options["model"]:
        family_of(read_config(checkpoint_folder(options["model"])))
    from engine.bench import run_bench, shown
    from engine.bench_case import make_case

    result = run_bench(make_case(**options), rounds)
    click.echo(shown(result))
    if json_file:
        write_whole(json_file, json.dumps(result, indent=2) + "\n")
        click.echo(f"written: {json_file}")


def _run(names: list[str], kind: str, options: dict[str, Any]) -> None:
    check_workers(options)
    own = {name: _options_of(catalogue()[name], options) for name in names}
    dataset = _load_data(options)
    sample = _sample(dataset, kind, options)
    run = _run_dir(options, dataset)
    options |= _as_the_main_experiment(run, names, kind, options)
    _check_model(options)
    with starting():
        experiments = [load_intervention(name) for name in names if not _stands_already(run, name, kind, names)]

        from runs.experiment import refuse_early, run_experiment
        from runs.settings import Settings

        of_all = Settings(
            kind=kind,
            max_pairs=max_pairs(kind, options["max_pairs"]),
            **{key: options[key] for key in ("seed", "same_speaker", "both_directions")},
            **{key: options[key] for key in ("layers", "align", "overwrite", "max_failed")},
            skip_bad_clips=options["on_bad_clip"] == "skip",
        )
        settings = [replace(of_all, options=own[experiment.name]) for experiment in experiments]
        for experiment, chosen in zip(experiments, settings, strict=True):
            refuse_early(run, dataset, experiment, chosen, options)
        place = _place(options)
    results = None
    for experiment, chosen in zip(experiments, settings, strict=True):
        done = run_experiment(place, dataset, run, experiment, sample, chosen, click.echo)
        results = _results_after(done, run, results)
        _summarise(results, done)
    results = results or _results_after("", run, None)
    _report(results)
    _tell_refused(results)


def _as_the_main_experiment(run: RunDir, names: list[str], kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that a control takes over before a model is there; `UserError` for one that was given otherwise."""
    told = told_options(kind, options)
    taken = {}
    for entry in (catalogue()[name] for name in names):
        if main := main_of(run, entry.name, kind):
            refuse_otherwise(run, main, entry, kind, told)
            taken |= {"layers": tuple(main["layers_to_patch"]), "dtype": main["dtype"]} if entry.control else {}
    return taken


def _stands_already(run: RunDir, name: str, kind: str, names: list[str]) -> bool:
    """Whether it is one of several and the run has it for the other kind of pair, as `self`, which has one name."""
    before = run.config().get("experiments", {}).get(name, {})
    if len(names) == 1 or not before.get("finished") or before["kind"] == kind:
        return False
    click.echo(
        f"{name}: is there already, with {before['kind']} pairs; "
        f"`control --kind {name} --pairs {kind} --overwrite` replaces it"
    )
    return True


def _options_of(entry: Entry, options: dict[str, Any]) -> dict[str, Any]:
    """The experiment's own options that were given; `--alpha` of `control` must reach whatever it runs."""
    source = click.get_current_context().get_parameter_source("alpha")
    # A settings file may say 1, which is what runs without an alpha.
    matters = options.get("alpha") not in (None, (1.0,)) or source is ParameterSource.COMMANDLINE
    if matters and "alpha" not in entry.options:
        raise UserError(f"--alpha: {entry.name} takes no alpha; leave it out", BAD_USAGE)
    return {name: options[name] for name in entry.options if options.get(name) is not None}


def _run_dir(options: dict[str, Any], dataset: Dataset) -> RunDir:
    """The run directory, in which no other process writes until this command ends."""
    run = RunDir(run_path(options["out"], options["model"], dataset.name))
    click.get_current_context().with_resource(run.in_use())
    return run


def _load_data(options: dict[str, Any]) -> Dataset:
    dataset = load_dataset(options["data"], options["texts"])
    for line in dataset.corpus.lines() if dataset.corpus else ():
        click.echo(f"data: {line}", err=True)
    for warning in dataset.warnings:
        click.echo(f"warning: {warning}", err=True)
    return dataset


def _sample(dataset: Dataset, kind: str, options: dict[str, Any]) -> PairSample:
    chosen = {key: options[key] for key in ("seed", "same_speaker", "both_directions")}
    sample = build_pairs(dataset.clips, kind, max_pairs(kind, options["max_pairs"]), **chosen)
    for warning in sample.report["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    return sample


def _check_model(options: dict[str, Any]) -> None:
    """`UserError` for what a model's folder and configuration show to be wrong, before torch is waited for."""
    if os.path.exists(options["model"]) or not is_hub_id(options["model"]):
        config = read_config(checkpoint_folder(options["model"]))
        family_of(config)
        if n_layers := n_layers_of(config):
            check_layers(options["layers"], n_layers)


def _place(options: dict[str, Any]) -> "Computing":
    """Where pairs are computed: workers, which end with this command, or this process."""
    if not wants_workers(options):
        from runs.place import Local

        return Local(_load_model(options))
    from tqdm import tqdm

    from workers.crew import crew
    from workers.places import Request

    click.echo(f"loading {options['model']} in workers ...", err=True)
    workers = None if options["workers"] in (None, "auto") else options["workers"]
    request, how = Request(workers, options["ray"]), _how_to_load(options)
    say = partial(tqdm.write, file=sys.stderr)  # it may come while the progress is drawn
    return click.get_current_context().with_resource(crew(options["model"], how, request, say))


def _load_model(options: dict[str, Any]) -> "Subject":
    click.echo(f"loading {options['model']} ...", err=True)
    from engine.subject import load_subject

    subject = load_subject(options["model"], **_how_to_load(options))
    # Before anything has run: what is there by now stays, and need not be looked through for garbage again.
    gc.freeze()
    return subject


def _how_to_load(options: dict[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("device", "dtype", "engine", "max_rows", "store_mb")}


def _results_after(done: str, run: RunDir, before: "Results | None") -> "Results":
    """What the run holds now that experiment `done` has ended; what was read of the others before is kept."""
    with starting():
        from analysis.results import Results

    return Results(run.path, before, done)


def _summarise(results: "Results", name: str) -> None:
    with starting():
        from analysis.summary import shown, summarise

    metrics, figures = summarise(results, name)
    click.echo(f"\n{name}, by layer:\n{shown(metrics)}")
    _show_figures(figures)


def _report(results: "Results") -> None:
    with starting():
        from analysis.report import write_report
        from analysis.results import left_out

    for line in left_out(results):
        click.echo(f"left out: {line}")
    click.echo(f"report: {_shown(write_report(results))}")


def _tell_refused(results: "Results") -> None:
    """End with status 1 where experiments do not hold together, which are in no table and figure; a line for each."""
    for error in results.refused.values():
        click.echo(f"error: {error}", err=True)
    if results.refused:
        click.get_current_context().exit(BAD_INPUT)


def _show_figures(figures: list[Path]) -> None:
    for figure in figures:
        click.echo(f"figure: {_shown(figure)}")


def _shown(path: Path) -> str:
    return relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    cli()
