"""One experiment from its pairs to its records.

    run_experiment(LocalExecutor(subject), dataset, run, load_intervention("patch"), sample, settings)

Logs the cost, runs the preflight checks, then the pairs that are not done yet.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from voicepatch.engine.mistakes import explained, place_of
from voicepatch.errors import UserError
from voicepatch.registry.intervention import Intervention
from voicepatch.runs.executor import Executor, PreparedRun
from voicepatch.runs.failures import Failures
from voicepatch.runs.inherit import ran_with_other_settings
from voicepatch.runs.interrupt import after_this_pair
from voicepatch.runs.log import Log, deduplicated
from voicepatch.runs.recorded import experiment_name, files_of_experiment, known_settings, places
from voicepatch.store.directory import RunDir
from voicepatch.text import escape
from voicepatch.types.dataset import Dataset, dataset_identity
from voicepatch.types.pair import Pair, PairSample, construction_report, pair_row
from voicepatch.types.settings import Settings


def run_experiment(
    executor: Executor,
    dataset: Dataset,
    run: RunDir,
    experiment: Intervention,
    sample: PairSample,
    settings: Settings,
    log: Log = print,
    pairs: Sequence[Pair] | None = None,
) -> str:
    """Check, then run what is not done yet of one experiment; gives its NAME.

    `executor` is this process, or workers; this process alone writes, in the pairs' order. `sample` holds the main
    experiment's pairs, `pairs` the experiment's own (those that `pairs_of` makes if None), and `settings` are those of
    `resolve_settings`.

    Raises `UserError` for layers that the model lacks, for a directory of another run, and, with status 3, when a
    check fails; then no record has been written.
    """
    logged: set[str] = set()
    log = deduplicated(log, logged)
    name = experiment_name(experiment, settings.kind)
    pairs = pairs_of(experiment, sample) if pairs is None else pairs
    executor.expect(dataset.hashes)
    identity = run_identity(executor, dataset, settings.skip_bad_clips)
    run.check(identity)
    for warning in identity["prompt"].get("warnings", ()):
        log(f"warning: {warning}")
    prepared = executor.prepare(experiment, settings, dataset, pairs)
    run.claim(identity)
    recorded = {**prepared.recorded, **files_of_experiment(experiment, settings.options), **places(settings)}
    done = run.begin(name, recorded, [pair_row(pair, dataset.columns) for pair in pairs], settings.overwrite)
    if run.remark:
        log(f"warning: {run.remark}")
    experiments = run.config()["experiments"]
    if experiment.main or settings.kind not in experiments:
        run.update_json("pair_construction_report.json", settings.kind, construction_report(sample, dataset))
    if experiment.main:
        for control, keys in ran_with_other_settings(experiments, settings.kind, prepared.recorded).items():
            log(f"warning: {control} is there already, with another {', '.join(keys)}; --overwrite runs it again")
    unit = "pair" if any(pair.a.clip_id != pair.b.clip_id for pair in pairs) else "clip"
    if done == len(pairs):
        _finish(run, name, done, {})  # again, where it was interrupted between its last pair and this mark
        log(f"{name}: all {done} {unit}s are done already; --overwrite runs them again")
        return name
    log(cost(len(pairs) - done, prepared, dataset.task.n_orders, unit))
    prepared.check(pairs, name, run, log)
    failures = Failures(run, name, len(pairs), settings.max_failed, settings.skip_bad_clips)
    with after_this_pair() as stop_requested:
        rows = prepared.records(pairs[done:], deduplicated(tqdm.write, logged), failures.note, stop_requested)
        for records in tqdm(rows, desc=name, unit=unit, initial=done, total=len(pairs)):
            if records:
                run.append(name, records)
    n_failed = _finish(run, name, len(pairs), executor.notes())
    if n_failed == len(pairs):
        raise UserError(f"{name}: none of the {n_failed} {unit}s gave a record; see {run.failures_file(name)}")
    if n_failed:
        log(f"warning: {n_failed} of {len(pairs)} {unit}s gave no record: {run.failures_file(name)}")
    return name


def refuse_other_settings(run: RunDir, experiment: Intervention, settings: Settings) -> None:
    """`UserError` where the experiment was begun with other settings, as far as they are known without the model."""
    if not settings.overwrite:
        known = known_settings(experiment, settings)
        run.refuse_other_settings(experiment_name(experiment, settings.kind), known)


def pairs_of(experiment: Intervention, sample: PairSample) -> Sequence[Pair]:
    """The pairs that an experiment runs on; `UserError` where what it makes of the main ones is no list of pairs."""
    try:
        pairs = list(experiment.pairs(sample, sample.clips)) if experiment.pairs else list(sample.pairs)
    except UserError:
        raise
    except Exception as error:  # code of whoever wrote the experiment
        raise explained(error, experiment) from error
    ids = Counter(pair.pair_id if isinstance(pair, Pair) else None for pair in pairs)
    twice = [pair_id for pair_id, n in ids.items() if n > 1]
    if not pairs or None in ids or twice:
        found = f"gives pair {escape(twice[0])} twice" if twice and None not in ids else "must give pairs, one at least"
        raise UserError(f"{place_of(experiment)}: {experiment.name}: pairs= {found}")
    if experiment.recipients == "main" and [pair.a.clip_id for pair in pairs] != [p.a.clip_id for p in sample.pairs]:
        raise UserError(
            f"{place_of(experiment)}: {experiment.name}: pairs= gives other recipients than the main experiment's; "
            'declare it with @intervention(recipients="own", ...)'
        )
    return pairs


def _finish(run: RunDir, name: str, n_pairs: int, notes: Mapping[str, Any]) -> int:
    n_failed = len(run.failures(name))
    run.finish(name, {"n_pairs": n_pairs, "n_failed": n_failed, **notes})
    return n_failed


def run_identity(executor: Executor, dataset: Dataset, skip_bad_clips: bool = False) -> dict[str, Any]:
    """What a run is a run of, as its configuration has it: model, data, prompt and labels."""
    of_model = executor.identity()
    return {"model": of_model.pop("model"), "data": dataset_identity(dataset, skip_bad_clips), **of_model}


def cost(n_pairs: int, prepared: PreparedRun, n_orders: int = 1, unit: str = "pair") -> str:
    """What is ahead, in forward passes as the textbook procedure counts them, and what the engine makes of it."""
    n_layers, n_combinations = len(prepared.recorded["layers_to_patch"]), prepared.n_combinations
    engine = prepared.recorded["engine"]
    times = f" × {n_combinations}" if n_combinations > 1 else ""
    n = n_orders * (n_layers * n_combinations + 2)
    orders = f"{n_orders} orders of the options × " if n_orders > 1 else ""
    line = (
        f"{n_pairs} {unit}s × {orders}({n_layers}{times} + 2) = {n_pairs * n:,} forward passes by the textbook "
        "procedure"
    )
    how = {
        "tail": f"does a {unit} in one growing forward, over the positions that the patch can change",
        "sweep": f"does a {unit} in one growing forward",
        "stepwise": "runs each trace as it is written",
    }
    return f"{line}; engine {engine} {how[engine]}"
