"""From the settings of a command to experiments that have run.

    running.run_each(["patch"], options)
    settings = running.settings_of(options)    # these also for the commands that run less
    dataset = running.load_data(settings)

What needs torch is imported inside, so that mistakes are reported at once.
"""

import gc
import importlib.util
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import structs

from pairs import build_pairs, load_dataset
from pairs.load import find_clips
from voicepatch.commandline import showing
from voicepatch.commandline.config_file import explicit_settings
from voicepatch.commandline.program import starting
from voicepatch.errors import BAD_INPUT, BAD_USAGE, CannotWrite, UserError
from voicepatch.models.families import family_of
from voicepatch.models.folder import (
    check_layers,
    checkpoint_folder,
    is_hub_id,
    n_layers_of,
    read_config,
    refuse_adapter,
)
from voicepatch.paths import RESULTS
from voicepatch.registry.catalogue import catalogue, load_intervention
from voicepatch.registry.syntax import Entry
from voicepatch.runs.inherit import make_settings, resolve_settings
from voicepatch.runs.interrupt import IMPORTING, until_done
from voicepatch.store.directory import RunDir
from voicepatch.types.dataset import Dataset, dataset_identity, label_spellings, spelling_lines
from voicepatch.types.pair import KINDS, Pair, PairSample
from voicepatch.types.settings import DECLARED, Settings
from voicepatch.types.task import default_task

if TYPE_CHECKING:
    from voicepatch.analysis.results import Results
    from voicepatch.engine.subject import Subject
    from voicepatch.runs.executor import Executor

MOST_OF_A_NAME = 64  # three of them and what comes between fit into a file's name, which is 255 bytes at most
RANDOM = "-random"  # after the model's name, with random weights


def run_each(names: Sequence[str], options: Mapping[str, Any], chosen_here: Mapping[str, Any] | None = None) -> None:
    """Run some experiments on one kind of pair, each to its figures, and make the report of their run.

    `chosen_here` are settings that the command chooses, and that it takes no options for. One of several experiments
    that the data do not allow, or that ends with an error of the data, does not stop the others; the status is then 1.
    After the main experiment those beside it run, unless `--no-need` is given.
    """
    entries = [catalogue()[name] for name in names]
    explicit = explicit_settings(options, entries) | dict(chosen_here or {})
    if any(entry.main for entry in entries):
        _require_kind(explicit)
    given = make_settings(explicit)
    check_workers(given)
    dataset = load_data(given)
    run = run_dir(given, dataset)
    entries = [entry for entry in entries if not _stands_already(run, entry, given.kind, len(names))]
    settings = {entry.name: resolve_settings(run, entry, explicit) for entry in entries}
    beside = _beside(entries, given)
    settings |= {entry.name: make_settings(_without_own(explicit)) for entry in beside}
    shared = next(iter(settings.values()), given)  # all experiments of a command have the same, but for own options
    sample = sample_pairs(dataset, shared)
    check_model(shared)
    with starting():
        with until_done(IMPORTING):  # a library may take a signal in the midst of it for another error
            experiments = [load_intervention(name) for name in settings]

            from voicepatch.runs.experiment import pairs_of, refuse_other_settings, run_experiment

        run.check({"task": dataset.task.identity(), "data": dataset_identity(dataset, shared.skip_bad_clips)})
        outcome = Outcome([entry.name for entry in entries])
        pairs = {}
        for experiment in experiments:
            with outcome.of(experiment.name, "cannot run"):
                refuse_other_settings(run, experiment, settings[experiment.name])
        for experiment in (one for one in experiments if one.name not in outcome.errors):
            with outcome.of(experiment.name, "cannot run"):
                pairs[experiment.name] = pairs_of(experiment, sample, dataset.clips)
        executor = _executor(shared) if pairs else None
    results = None
    for experiment in experiments:
        if experiment.name not in pairs:
            continue
        with outcome.of(experiment.name, "ended early"):
            chosen, mine = settings[experiment.name], pairs[experiment.name]
            assert executor is not None  # there are pairs
            done = run_experiment(executor, dataset, run, experiment, sample, chosen, click.echo, mine)
            results = results_of(run.path, results, done)
            if chosen.figures:
                showing.summary(results, done)
    results = results or results_of(run.path)
    if shared.figures:
        showing.report(results, shared.pairs_in_report)
    else:
        showing.only_records(run.path)
    outcome.report()
    for name in (entry.name for entry in beside if entry.name in outcome.errors):
        again = f"python cli.py {name} --pairs {shared.kind} --out {shlex.quote(str(run.path))} --overwrite"
        click.echo(f"{again} runs {name} again", err=True)
    showing.exit_if_invalid(results)
    if outcome.errors:
        click.get_current_context().exit(outcome.status)


def _beside(entries: Sequence[Entry], given: Settings) -> list[Entry]:
    """The experiments that run after the main one, where it is among the `entries`; a line where they do not."""
    if not given.need or not any(entry.main for entry in entries):
        return []
    beside = [entry for entry in catalogue().values() if entry.beside_main]
    if given.engine == "stepwise":
        for entry in beside:
            click.echo(f"{entry.name}: not run, because engine stepwise is slow; python cli.py {entry.name} runs it")
        return []
    return beside


def _without_own(explicit: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that every experiment takes."""
    return {name: value for name, value in explicit.items() if name in DECLARED}


class Outcome:
    """The errors that some of the experiments end with; the error of the last of the `needed` ones is raised.

    Only errors of the data are kept, and any error of an experiment that is not needed.
    """

    def __init__(self, needed: Sequence[str]):
        self.needed = set(needed)
        self.errors: dict[str, str] = {}
        self.status = 0

    @contextmanager
    def of(self, name: str, what: str) -> Iterator[None]:
        """Within it, an error is kept and shown as a warning, or raised."""
        try:
            yield
        except CannotWrite:
            raise
        except UserError as error:
            others = self.needed - {*self.errors, name}
            if name in self.needed and (error.status != BAD_INPUT or not others):
                raise
            self.errors[name], self.status = f"{name} {what}: {error}", max(self.status, error.status)
            click.echo(f"warning: {self.errors[name]}", err=True)

    def report(self) -> None:
        """Repeat the errors after the results of the others."""
        for line in self.errors.values():
            click.echo(f"error: {line}", err=True)


def settings_of(options: Mapping[str, Any], kind_required: bool = False) -> Settings:
    """The settings of a command that runs no experiment."""
    explicit = explicit_settings(options)
    if kind_required:
        _require_kind(explicit)
    return make_settings(explicit)


def _require_kind(explicit: Mapping[str, Any]) -> None:
    if "kind" not in explicit:
        raise UserError(f"--kind is missing; choose {' or '.join(KINDS)}", BAD_USAGE)


def _stands_already(run: RunDir, entry: Entry, kind: str, n_experiments: int) -> bool:
    """Whether it is one of several and the run has it for the other kind of pair, as `self`, which has one name."""
    before = run.config().get("experiments", {}).get(entry.name, {})
    if n_experiments == 1 or not before.get("finished") or before["kind"] == kind:
        return False
    click.echo(
        f"{entry.name}: is there already, with {before['kind']} pairs; "
        f"`control --kind {entry.name} --pairs {kind} --overwrite` replaces it"
    )
    return True


def run_path(settings: Settings, dataset: Dataset) -> Path:
    """`--out`, or a directory under results/ that the names of model, data and, but for the default, task give."""
    if settings.out:
        return settings.out
    name = Path(settings.model).resolve().name if os.path.isdir(settings.model) else settings.model
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
    safe = f"{safe[: MOST_OF_A_NAME - len(RANDOM)]}{RANDOM}" if settings.random_weights else safe
    names = [safe, dataset.name, *([] if dataset.task == default_task() else [dataset.task.name])]
    return RESULTS / "--".join(name[:MOST_OF_A_NAME] for name in names)


def run_dir(settings: Settings, dataset: Dataset) -> RunDir:
    """The run directory, in which no other process writes until this command ends."""
    run = RunDir(run_path(settings, dataset))
    click.get_current_context().with_resource(run.in_use())
    return run


def load_data(settings: Settings) -> Dataset:
    """The clips of `--data` with the labels of `--task`; what was recognised and warned of is shown."""
    dataset = load_dataset(settings.data, settings.texts, settings.task)
    recognised = dataset.corpus.lines() if dataset.corpus else ()
    columns = {"prosody_label": dataset.task.voice, "semantic_label": dataset.task.words or ""}
    spellings = {columns[role]: labels for role, labels in label_spellings(dataset.clips).items()}
    for line in (*recognised, *spelling_lines(spellings)):
        click.echo(f"data: {line}", err=True)
    for warning in dataset.warnings:
        click.echo(f"warning: {warning}", err=True)
    return dataset


def sample_pairs(dataset: Dataset, settings: Settings) -> PairSample:
    """The pairs of the main experiment; warnings are shown."""
    sample = build_pairs(
        dataset.clips,
        settings.kind,
        settings.max_pairs,
        seed=settings.seed,
        same_speaker=settings.same_speaker,
        both_directions=settings.both_directions,
        task=dataset.task,
        max_acoustic_distance=settings.max_acoustic_distance,
    )
    for warning in sample.report["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    return sample


def pairs_by_kind(dataset: Dataset, settings: Settings) -> dict[str, Sequence[Pair]]:
    """The main experiment's pairs of each kind that the data allow; a warning names one that they do not."""
    outcome = Outcome(KINDS)
    found: dict[str, Sequence[Pair]] = {}
    for kind in KINDS:
        with outcome.of(kind, "pairs are left out"):
            found[kind] = sample_pairs(dataset, structs.replace(settings, kind=kind)).pairs
    return found


def check_model(settings: Settings) -> None:
    """`UserError` for what a model's folder and configuration show to be wrong, before torch is imported."""
    if os.path.exists(settings.model) or not is_hub_id(settings.model):
        folder = checkpoint_folder(settings.model)
        config = read_config(folder)
        refuse_adapter(folder, family_of(config))
        if n_layers := n_layers_of(config):
            check_layers(settings.layers, n_layers)


def wants_workers(settings: Settings) -> bool:
    """Whether workers compute the pairs."""
    return settings.workers not in (None, 0) or settings.ray is not None


def check_workers(settings: Settings) -> None:
    """`UserError` for a cluster without workers, and where Ray is needed but not installed."""
    if settings.ray is not None and settings.workers == 0:
        raise UserError("--workers 0 computes in this process; leave it out, or leave --ray out", BAD_USAGE)
    if wants_workers(settings) and importlib.util.find_spec("ray") is None:
        option = f"--workers {settings.workers}" if settings.ray is None else f"--ray {settings.ray}"
        raise UserError(f"{option} needs Ray: python -m pip install -r requirements-ray.txt", BAD_USAGE)


def _executor(settings: Settings) -> "Executor":
    """Workers, which end with this command, or this process."""
    if not wants_workers(settings):
        from voicepatch.runs.executor import LocalExecutor

        return LocalExecutor(load_model(settings))
    from tqdm import tqdm

    from voicepatch.workers.pool import worker_pool

    click.echo(f"loading {settings.model} in workers ...", err=True)
    workers = settings.workers if isinstance(settings.workers, int) else None
    log = partial(tqdm.write, file=sys.stderr)  # a message may come while the progress bar is drawn
    pool = worker_pool(settings.model, _load_arguments(settings), workers, settings.ray, log)
    return click.get_current_context().with_resource(pool)


def load_model(settings: Settings) -> "Subject":
    """The model of `--model`, in this process."""
    weights = " with random weights, a negative control" if settings.random_weights else ""
    click.echo(f"loading {settings.model}{weights} ...", err=True)
    with until_done(IMPORTING):
        from voicepatch.engine.subject import load_subject

    subject = load_subject(settings.model, **_load_arguments(settings))
    # Before anything has run: what is there by now stays, and need not be looked through for garbage again.
    gc.freeze()
    return subject


def _load_arguments(settings: Settings) -> dict[str, Any]:
    names = ("task", "device", "dtype", "engine", "max_rows", "store_mb")
    seed = settings.seed if settings.random_weights else None
    return {name: getattr(settings, name) for name in names} | {"random_weights": seed}


def results_of(run: Path, before: "Results | None" = None, done: str = "") -> "Results":
    """What a run holds, with the metrics of all plugins; see `Results` for `before` and `done`."""
    with starting():
        from voicepatch.analysis.results import Results
        from voicepatch.registry.metrics import metrics

    return Results(run, before, done, metrics=list(metrics.all().values()), find_clips=find_clips)
