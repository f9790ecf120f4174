"""From the options of a command to experiments that have run.

    running.run_each(["patch"], "prosody", options)
    dataset = running.load_data(options)       # these also for the commands that run less
    subject = running.load_model(options)

What needs torch is imported inside, so that mistakes are said at once.
"""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from commandline import showing
from commandline.config_file import max_pairs, told_options
from commandline.options import check_workers, run_path, wants_workers
from commandline.program import starting
from errors import BAD_INPUT, BAD_USAGE, CannotWrite, UserError
from models.families import family_of
from models.folder import check_layers, checkpoint_folder, is_hub_id, n_layers_of, read_config, refuse_adapter
from pairs import Dataset, PairSample, build_pairs, load_dataset
from pairs.clips import label_spellings, spelling_lines
from registry.catalogue import Entry, catalogue, load_intervention
from runs.directory import RunDir
from runs.interrupt import IMPORTING, until_done
from runs.shadow import main_of, refuse_otherwise

if TYPE_CHECKING:
    from analysis.results import Results
    from engine.subject import Subject
    from runs.place import Place as Computing


def run_each(names: list[str], kind: str, options: dict[str, Any]) -> None:
    """Run some experiments on one kind of pair, each to its figures, and make the report of their run.

    One of several that the data do not allow, or that ends with an error of the data, does not stop the others; the
    status is then 1.
    """
    check_workers(options)
    own = {name: _options_of(catalogue()[name], options) for name in names}
    dataset = load_data(options)
    sample = sample_pairs(dataset, kind, options)
    run = run_dir(options, dataset)
    options |= _as_the_main_experiment(run, names, kind, options)
    check_model(options)
    with starting():
        with until_done(IMPORTING):  # a library may take a signal in the midst of it for another error
            experiments = [load_intervention(name) for name in names if not _stands_already(run, name, kind, names)]

            from runs.experiment import pairs_early, refuse_early, run_experiment
            from runs.settings import Settings

        of_all = Settings(
            kind=kind,
            max_pairs=max_pairs(kind, options["max_pairs"]),
            **{key: options[key] for key in ("seed", "same_speaker", "both_directions")},
            **{key: options[key] for key in ("layers", "align", "overwrite", "max_failed", "max_seconds")},
            skip_bad_clips=options["on_bad_clip"] == "skip",
        )
        settings = [replace(of_all, options=own[experiment.name]) for experiment in experiments]
        each = list(zip(experiments, settings, strict=True))
        for experiment, chosen in each:
            refuse_early(run, dataset, experiment, chosen, options)
        outcome = Outcome(len(each))
        pairs = {}
        for experiment, chosen in each:
            with outcome.of(experiment.name, "cannot run"):
                pairs[experiment.name] = pairs_early(run, dataset, experiment, sample, chosen)
        place = _place(options)
    results = None
    for experiment, chosen in each:
        if experiment.name not in pairs:
            continue
        with outcome.of(experiment.name, "ended early"):
            done = run_experiment(place, dataset, run, experiment, sample, chosen, click.echo, pairs[experiment.name])
            results = _results_after(done, run, results)
            showing.summary(results, done)
    results = results or _results_after("", run, None)
    showing.report(results, options["pairs_in_report"])
    outcome.tell()
    showing.refused(results)
    if outcome.errors:
        click.get_current_context().exit(BAD_INPUT)


class Outcome:
    """The errors of the data that some of `n` experiments end with; the error of the last that is left is raised."""

    def __init__(self, n: int):
        self.n, self.errors = n, {}

    @contextmanager
    def of(self, name: str, what: str) -> Iterator[None]:
        """Within it, an error of the data that is not the last one's is said and kept."""
        try:
            yield
        except CannotWrite:
            raise
        except UserError as error:
            if error.status != BAD_INPUT or len(self.errors) + 1 == self.n:
                raise
            self.errors[name] = f"{name} {what}: {error}"
            click.echo(f"warning: {self.errors[name]}", err=True)

    def tell(self) -> None:
        """Say once more, behind the others' results, which ones did not run to their end."""
        for line in self.errors.values():
            click.echo(f"error: {line}", err=True)


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


def run_dir(options: dict[str, Any], dataset: Dataset) -> RunDir:
    """The run directory, in which no other process writes until this command ends."""
    run = RunDir(run_path(options["out"], options["model"], dataset.name))
    click.get_current_context().with_resource(run.in_use())
    return run


def load_data(options: dict[str, Any]) -> Dataset:
    """The clips of `--data`; what was recognised and warned of is said."""
    dataset = load_dataset(options["data"], options["texts"])
    recognised = dataset.corpus.lines() if dataset.corpus else ()
    for line in (*recognised, *spelling_lines(label_spellings(dataset.clips))):
        click.echo(f"data: {line}", err=True)
    for warning in dataset.warnings:
        click.echo(f"warning: {warning}", err=True)
    return dataset


def sample_pairs(dataset: Dataset, kind: str, options: dict[str, Any]) -> PairSample:
    """The pairs that the options ask for; warnings are said."""
    chosen = {key: options[key] for key in ("seed", "same_speaker", "both_directions")}
    sample = build_pairs(dataset.clips, kind, max_pairs(kind, options["max_pairs"]), **chosen)
    for warning in sample.report["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    return sample


def check_model(options: dict[str, Any]) -> None:
    """`UserError` for what a model's folder and configuration show to be wrong, before torch is waited for."""
    if os.path.exists(options["model"]) or not is_hub_id(options["model"]):
        folder = checkpoint_folder(options["model"])
        config = read_config(folder)
        refuse_adapter(folder, family_of(config))
        if n_layers := n_layers_of(config):
            check_layers(options["layers"], n_layers)


def _place(options: dict[str, Any]) -> "Computing":
    """Where pairs are computed: workers, which end with this command, or this process."""
    if not wants_workers(options):
        from runs.place import Local

        return Local(load_model(options))
    from tqdm import tqdm

    from workers.crew import crew
    from workers.places import Request

    click.echo(f"loading {options['model']} in workers ...", err=True)
    workers = None if options["workers"] in (None, "auto") else options["workers"]
    request, how = Request(workers, options["ray"]), _how_to_load(options)
    say = partial(tqdm.write, file=sys.stderr)  # it may come while the progress is drawn
    return click.get_current_context().with_resource(crew(options["model"], how, request, say))


def load_model(options: dict[str, Any]) -> "Subject":
    """The model of `--model`, in this process."""
    click.echo(f"loading {options['model']} ...", err=True)
    with until_done(IMPORTING):
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
