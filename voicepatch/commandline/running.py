"""From the settings of a command to experiments that have run.

    running.run_each(["patch"], options)
    settings = running.settings_of(options)    # these also for the commands that run less
    dataset = running.load_data(settings)

What needs torch is imported inside, so that mistakes are reported at once.
"""

import hashlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import structs

from pairs import build_pairs, load_dataset
from pairs.load import find_clips
from pairs.selected import selection_line
from voicepatch.commandline import loading, showing
from voicepatch.commandline.config_file import explicit_settings
from voicepatch.commandline.program import starting
from voicepatch.errors import BAD_INPUT, BAD_USAGE, CannotWrite, UserError
from voicepatch.paths import RESULTS
from voicepatch.registry.catalogue import catalogue, load_intervention
from voicepatch.registry.syntax import Entry
from voicepatch.runs.inherit import make_settings, resolve_settings
from voicepatch.runs.interrupt import IMPORTING, until_done
from voicepatch.store.directory import RunDir
from voicepatch.text import escape, file_name_part
from voicepatch.types.dataset import Dataset, dataset_identity, label_spellings, spelling_lines
from voicepatch.types.pair import KINDS, Answers, Pair, PairSample
from voicepatch.types.selection import columns_of
from voicepatch.types.settings import DECLARED, Settings
from voicepatch.types.task import default_task

if TYPE_CHECKING:
    from voicepatch.analysis.results import Results

# Three of the first, one of the second and what comes between fit into a file's name, which is 255 bytes at most.
MOST_OF_A_NAME, MOST_OF_SELECTION = 60, 40
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
    loading.check_workers(given)
    dataset = load_data(given)
    _check_by(given.by, dataset)
    run = run_dir(given, dataset)
    entries = [entry for entry in entries if not _stands_already(run, entry, given.kind, len(names))]
    settings = {entry.name: resolve_settings(run, entry, explicit) for entry in entries}
    beside = _beside(entries, given)
    settings |= {entry.name: make_settings(_without_own(explicit)) for entry in beside}
    shared = next(iter(settings.values()), given)  # all experiments of a command have the same, but for own options
    is_answered = shared.only == "answered"
    sample = draw_pairs(dataset, shared) if is_answered else sample_pairs(dataset, shared)
    loading.check_model(shared)
    with starting():
        with until_done(IMPORTING):  # a library may take a signal in the midst of it for another error
            experiments = [load_intervention(name) for name in settings]

            from voicepatch.runs.answers import answers_in, open_answers
            from voicepatch.runs.experiment import pairs_of, refuse_other_settings, run_experiment

        run.check({"task": dataset.task.identity(), "data": dataset_identity(dataset, shared.skip_bad_clips)})
        outcome = Outcome([entry.name for entry in entries])
        pairs = {}
        for experiment in experiments:
            with outcome.of(experiment.name, "cannot run"):
                refuse_other_settings(run, experiment, settings[experiment.name])
        ready = [one for one in experiments if one.name not in outcome.errors]
        executor = loading.load_executor(shared) if ready and is_answered else None
    if executor:
        stored = open_answers(executor, dataset, run, shared)
        sample = sample_pairs(dataset, shared, answers_in(executor, stored, shared))
    for experiment in ready:
        with outcome.of(experiment.name, "cannot run"):
            pairs[experiment.name] = pairs_of(experiment, sample)
    if pairs and not executor:
        with starting():
            executor = loading.load_executor(shared)
    results = None
    for experiment in experiments:
        if experiment.name not in pairs:
            continue
        with outcome.of(experiment.name, "ended early"):
            chosen, mine = settings[experiment.name], pairs[experiment.name]
            assert executor is not None  # there are pairs
            done = run_experiment(executor, dataset, run, experiment, sample, chosen, click.echo, mine)
            results = results_of(run.path, results, done, shared.by)
            if chosen.figures:
                showing.summary(results, done)
    results = results or results_of(run.path, by=shared.by)
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


def _check_by(by: Sequence[str], dataset: Dataset) -> None:
    """`UserError` for a column that the data lack, before anything runs."""
    if by:
        from voicepatch.analysis.breakdown import check_columns

        known = {column: column for column in columns_of(dataset.clips, dataset.task) if column != "text"}
        check_columns(by, known, {name for entry in catalogue().values() for name in entry.options})


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
    """`--out`, or a directory under results/ that the names of model, data, task and selection give.

    The default task and all clips have no name.
    """
    if settings.out:
        return settings.out
    name = Path(settings.model).resolve().name if os.path.isdir(settings.model) else settings.model
    safe = file_name_part(name)
    safe = f"{safe[: MOST_OF_A_NAME - len(RANDOM)]}{RANDOM}" if settings.random_weights else safe
    names = [safe, dataset.name, *([] if dataset.task == default_task() else [dataset.task.name])]
    return RESULTS / "--".join([*(name[:MOST_OF_A_NAME] for name in names), *selection_names(settings)])


def selection_names(settings: Settings) -> list[str]:
    """What a default directory is called by its selection: `text_type-explicit`."""
    written = "--".join(condition.replace("=", "-") for condition in settings.where)
    names = file_name_part(written)
    if names != written or len(names) > MOST_OF_SELECTION:  # another selection may have the same name
        digest = hashlib.sha256("\n".join(settings.where).encode()).hexdigest()[:8]
        names = f"{names[:MOST_OF_SELECTION]}-{digest}"
    return [*([names] if names else []), *(["answered"] if settings.only == "answered" else [])]


def run_dir(settings: Settings, dataset: Dataset) -> RunDir:
    """The run directory, in which no other process writes until this command ends."""
    run = RunDir(run_path(settings, dataset))
    click.get_current_context().with_resource(run.in_use())
    return run


def load_data(settings: Settings) -> Dataset:
    """The clips of `--data` with the labels of `--task`; what was recognised and warned of is shown."""
    dataset = load_dataset(settings.data, settings.texts, settings.task, dict(settings.columns))
    recognised = dataset.corpus.lines() if dataset.corpus else ()
    columns = {"prosody_label": dataset.task.voice, "semantic_label": dataset.task.words or ""}
    spellings = {columns[role]: labels for role, labels in label_spellings(dataset.clips).items()}
    for line in (*recognised, *spelling_lines(spellings)):
        click.echo(f"data: {line}", err=True)
    for warning in dataset.warnings:
        click.echo(f"warning: {warning}", err=True)
    return dataset


def sample_pairs(dataset: Dataset, settings: Settings, answers: Answers | None = None) -> PairSample:
    """The pairs of the main experiment; what the selection leaves and warnings are shown."""
    sample = draw_pairs(dataset, settings, answers)
    for row in sample.report.get("selection", []):
        click.echo(f"data: --where {escape(selection_line(row))}", err=True)
    for warning in sample.report["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    return sample


def refuse_answered(settings: Settings, command: str) -> None:
    """`UserError` for `--only answered` in a command that draws pairs before the model can say which it answers."""
    if settings.only == "answered":
        raise UserError(
            f"--only answered: {command} draws its pairs without the model's answers; leave it out. patch --only "
            "answered reports the pairs that it tries",
            BAD_USAGE,
        )


def draw_pairs(dataset: Dataset, settings: Settings, answers: Answers | None = None) -> PairSample:
    """The pairs of the main experiment, among all or among those that the model answers."""
    return build_pairs(
        dataset.clips,
        settings.kind,
        settings.max_pairs,
        seed=settings.seed,
        same_speaker=settings.same_speaker,
        both_directions=settings.both_directions,
        task=dataset.task,
        max_acoustic_distance=settings.max_acoustic_distance,
        where=settings.where,
        answers=answers,
    )


def pairs_by_kind(dataset: Dataset, settings: Settings) -> dict[str, Sequence[Pair]]:
    """The main experiment's pairs of each kind that the data allow; a warning names one that they do not."""
    outcome = Outcome(KINDS)
    found: dict[str, Sequence[Pair]] = {}
    for kind in KINDS:
        with outcome.of(kind, "pairs are left out"):
            found[kind] = sample_pairs(dataset, structs.replace(settings, kind=kind)).pairs
    return found


def renew_report(run: RunDir) -> None:
    """Make the report of a run with experiments again, since it shows what a command has added."""
    if run.experiments():
        results = results_of(run.path)
        if results.valid:
            showing.report(results)


def results_of(run: Path, before: "Results | None" = None, done: str = "", by: Sequence[str] = ()) -> "Results":
    """What a run holds, with the metrics of all plugins; see `Results` for `before`, `done` and `by`."""
    with starting():
        from voicepatch.analysis.results import Results
        from voicepatch.registry.metrics import metrics

    return Results(run, before, done, metrics=list(metrics.all().values()), find_clips=find_clips, by=by)
