"""One experiment from its pairs to its records.

    run_experiment(Local(subject), dataset, run, load_intervention("patch"), sample, settings)

Says what it costs, runs the checks that gate it, then the pairs that are not done yet.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from engine.mistakes import explained, place_of
from engine.pair_input import check_alignment
from errors import UserError
from pairs import Clip, Dataset, Pair, PairSample, construction_report, dataset_identity, pair_row, pairs_from_rows
from pairs.shown import shown
from registry.catalogue import MAIN
from registry.intervention import ALL, Intervention
from runs.directory import RunDir
from runs.failures import Failures
from runs.interrupt import after_this_pair
from runs.place import Place, Task
from runs.say import Say, once
from runs.settings import Settings, experiment_name, files_of_experiment, known_settings
from runs.shadow import DRAWN, as_in, main_of, ran_otherwise, refuse_otherwise
from runs.sweep import values_of


def run_experiment(
    place: Place,
    dataset: Dataset,
    run: RunDir,
    experiment: Intervention,
    sample: PairSample,
    settings: Settings,
    say: Say = print,
    pairs: Sequence[Pair] | None = None,
) -> str:
    """Check, then run what is not done yet of one experiment; gives its NAME.

    `place` is where pairs are computed: this process, or workers. This process alone writes, in the pairs' order.
    `sample` holds the main experiment's pairs. Where the run has that experiment already, every other one shadows it as
    it ran: its pairs, and the settings that they were sampled with. `pairs` are those that `pairs_early` gave,
    if it was called.

    Raises `UserError` for layers that the model lacks, for a directory of another run, and, with status 3, when a
    check fails; then no record has been written.
    """
    said: set[str] = set()
    say = once(say, said)
    check_alignment(settings.align)
    of_run = identity(place, dataset, settings.skip_bad_clips)
    run.check(of_run)
    name = experiment_name(experiment, settings.kind)
    main = main_of(run, experiment.name, settings.kind)
    if main:
        refuse_otherwise(run, main, experiment, settings.kind, {"dtype": place.dtype})
        settings, sample = _shadowing(main, run, dataset, sample, experiment, settings)
    pairs = pairs_of(experiment, sample, dataset.clips) if pairs is None else pairs
    task = place.task(experiment, settings, dataset, pairs)
    run.claim(of_run)
    recorded = {**task.recorded, **files_of_experiment(experiment, settings.options)}
    done = run.begin(name, recorded, [pair_row(pair) for pair in pairs], settings.overwrite)
    if run.remark:
        say(f"warning: {run.remark}")
    if not main:
        run.update_json("pair_construction_report.json", settings.kind, construction_report(sample, dataset))
    if experiment.name == MAIN:
        for control, keys in ran_otherwise(run.config()["experiments"], settings.kind, task.recorded).items():
            say(f"warning: {control} is there already, with another {', '.join(keys)}; --overwrite runs it again")
    if done == len(pairs):
        _finish(run, name, done, {})  # once more, where it was interrupted between its last pair and this mark
        say(f"{name}: all {done} pairs are done already; --overwrite runs them again")
        return name
    say(cost(len(pairs) - done, task))
    task.check(pairs, name, run, say)
    failures = Failures(run, name, len(pairs), settings.max_failed, settings.skip_bad_clips)
    with after_this_pair() as asked:
        rows = task.records(pairs[done:], once(tqdm.write, said), failures.note, asked)
        for records in tqdm(rows, desc=name, unit="pair", initial=done, total=len(pairs)):
            if records:
                run.append(name, records)
    n_failed = _finish(run, name, len(pairs), place.notes())
    if n_failed == len(pairs):
        raise UserError(f"{name}: none of the {n_failed} pairs gave a record; see {run.failures_file(name)}")
    if n_failed:
        say(f"warning: {n_failed} of {len(pairs)} pairs gave no record: {run.failures_file(name)}")
    return name


def pairs_early(
    run: RunDir, dataset: Dataset, experiment: Intervention, sample: PairSample, settings: Settings
) -> Sequence[Pair]:
    """The pairs that `run_experiment` will run on; `UserError` where the data have none for this experiment."""
    main = main_of(run, experiment.name, settings.kind)
    if main:
        _, sample = _shadowing(main, run, dataset, sample, experiment, settings)
    return pairs_of(experiment, sample, dataset.clips)


def pairs_of(experiment: Intervention, sample: PairSample, clips: Sequence[Clip]) -> Sequence[Pair]:
    """The pairs that an experiment runs on; `UserError` where what it makes of the main ones is no list of pairs."""
    try:
        pairs = list(experiment.pairs(sample, clips)) if experiment.pairs else list(sample.pairs)
    except UserError:
        raise
    except Exception as error:  # code of whoever wrote the experiment
        raise explained(error, experiment) from error
    ids = Counter(pair.pair_id if isinstance(pair, Pair) else None for pair in pairs)
    twice = [pair_id for pair_id, n in ids.items() if n > 1]
    if not pairs or None in ids or twice:
        found = f"gives pair {shown(twice[0])} twice" if twice and None not in ids else "must give pairs, one at least"
        raise UserError(f"{place_of(experiment)}: {experiment.name}: pairs= {found}")
    return pairs


def _shadowing(
    main: Mapping[str, Any],
    run: RunDir,
    dataset: Dataset,
    sample: PairSample,
    experiment: Intervention,
    settings: Settings,
) -> tuple[Settings, PairSample]:
    """The settings and pairs of the main experiment, as it ran."""
    settings = as_in(main, experiment, settings)
    drawn = {name: getattr(settings, name) for name in ("max_pairs", *DRAWN)}
    pairs = pairs_from_rows(run.read_pairs(settings.kind), dataset.clips)
    return settings, PairSample(pairs, sample.report | drawn)


def refuse_early(
    run: RunDir, dataset: Dataset, experiment: Intervention, settings: Settings, given: Mapping[str, Any]
) -> None:
    """Raise `UserError` for what can be refused before a model is loaded.

    That is data of another run, and an experiment that was begun with other settings. `given` are the options of the
    command, of which engine, device and dtype count where they are named.
    """
    check_alignment(settings.align)
    run.check({"data": dataset_identity(dataset, settings.skip_bad_clips)})
    for name, chosen in settings.options.items():
        if chosen is not ALL:
            values_of(experiment, name, chosen)
    if settings.overwrite:
        return
    main = main_of(run, experiment.name, settings.kind)
    if main:
        settings = as_in(main, experiment, settings)
    values = {**experiment.options, **settings.options}
    known = known_settings(experiment, settings, {name: chosen for name, chosen in values.items() if chosen is not ALL})
    known |= files_of_experiment(experiment, settings.options)
    known |= {key: given[key] for key in ("engine", "dtype") if given.get(key) not in (None, "auto")}
    if settings.layers is not None:
        known["layers_to_patch"] = list(settings.layers)
    if given.get("device"):
        known["device"] = given["device"].partition(":")[0]
    run.refuse_other_settings(experiment_name(experiment, settings.kind), known)


def _finish(run: RunDir, name: str, n_pairs: int, notes: Mapping[str, Any]) -> int:
    n_failed = len(run.failures(name))
    run.finish(name, {"n_pairs": n_pairs, "n_failed": n_failed, **notes})
    return n_failed


def identity(place: Place, dataset: Dataset, skip_bad_clips: bool = False) -> dict[str, Any]:
    """What a run is a run of, as its configuration has it; from then on, a clip that has changed ends it."""
    place.expect(dataset.hashes)
    of_model = place.identity()
    return {"model": of_model.pop("model"), "data": dataset_identity(dataset, skip_bad_clips), **of_model}


def cost(n_pairs: int, task: Task) -> str:
    """What is ahead, in forward passes as the textbook procedure counts them, and what the engine makes of it."""
    n_layers, n_combinations = len(task.recorded["layers_to_patch"]), task.n_combinations
    engine = task.recorded["engine"]
    times = f" × {n_combinations}" if n_combinations > 1 else ""
    n = n_layers * n_combinations + 2
    line = f"{n_pairs} pairs × ({n_layers}{times} + 2) = {n_pairs * n:,} forward passes by the textbook procedure"
    how = {
        "tail": "does a pair in one growing forward, over the positions that the patch can change",
        "sweep": "does a pair in one growing forward",
        "stepwise": "runs each trace as it is written",
    }
    return f"{line}; engine {engine} {how[engine]}"
