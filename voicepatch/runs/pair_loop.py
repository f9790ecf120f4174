"""The pair loop (SPEC sections 4, 5 and 9).

    for records in run_pairs(subject, load_intervention("patch"), pairs, layers=range(subject.engine.n_layers)):
        ...                                  # one pair, one dict a layer and combination of swept values

An intervention and pairs go in, records come out, a pair at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd
from tqdm import tqdm

from voicepatch.analysis.metrics import Metric, with_metrics
from voicepatch.engine.clips import Answer, answer
from voicepatch.engine.engine import Readouts
from voicepatch.engine.failures import PairFailed
from voicepatch.engine.memory import release_memory
from voicepatch.engine.not_finite import check_finite
from voicepatch.engine.subject import Subject
from voicepatch.errors import UserError
from voicepatch.registry.intervention import Intervention
from voicepatch.runs.fewer_rows import with_fewer_rows
from voicepatch.runs.job import Inputs, Job, make_job
from voicepatch.runs.log import Log, deduplicated
from voicepatch.runs.sweep import swept
from voicepatch.text import escape, short_repr
from voicepatch.types.pair import Pair
from voicepatch.types.record import APPROXIMATE
from voicepatch.types.task import Task


def run_pairs(
    subject: Subject,
    experiment: Intervention,
    pairs: Sequence[Pair],
    *,
    log: Log = print,
    failed: Callable[[Pair, PairFailed], None] | None = None,
    **how: Any,
) -> Iterator[list[dict[str, Any]]]:
    """Run one intervention over pairs, yielding each pair's records (SPEC section 9), one a patched row.

    `how` are the arguments of `make_job`: `layers` (all for None), `options` (the intervention's own parameters, each
    one value or several), `align_how`, `seed`, and `clips`, the data set, for those that read other clips too.
    """
    return run_job(make_job(subject, experiment, **how), pairs, log, failed)


def run_job(
    job: Job, pairs: Sequence[Pair], log: Log = print, failed: Callable[[Pair, PairFailed], None] | None = None
) -> Iterator[list[dict[str, Any]]]:
    """The records of each pair.

    Clips are dropped after their last pair, so memory does not grow with the number of pairs; rows that do not fit into
    one forward are split. `log` gets a line about that, and where the intervention must run as it is written. A pair
    that fails (`PairFailed`) is passed to `failed`, if given, and yields no record.
    """
    subject, inputs, columns, log = job.subject, job.inputs(), swept(job.values), deduplicated(log, set())
    _check_targets(subject.task, pairs)
    with job.for_pairs(pairs):
        for pair in pairs:
            try:
                readouts = with_fewer_rows(subject, partial(_readouts, job, pair, inputs), log)
                records = _records(job, pair, inputs, readouts, columns)
            except PairFailed as error:
                if failed is None:
                    raise
                failed(pair, error)
                records = []
            else:
                if readouts[0].as_written:
                    log(runs_as_written(job.experiment, readouts[0].as_written))
            yield records
            job.done(pair)
            release_memory(subject.engine.devices)


def _check_targets(task: Task, pairs: Sequence[Pair]) -> None:
    for pair in pairs:
        if pair.target not in task.labels:
            raise UserError(
                f"pair {escape(pair.pair_id)}: the target {short_repr(pair.target)} is no label of task {task.name}; "
                "load the data and the model with the same task"
            )


def runs_as_written(experiment: Intervention, why: str) -> str:
    """The line that says why an experiment is slow."""
    return f"{experiment.name} runs as it is written, a trace a layer, which is slower: {why}"


def run_table(
    subject: Subject,
    experiment: Intervention,
    pairs: Sequence[Pair],
    *,
    metrics: Sequence[Metric] = (),
    **settings: Any,
) -> pd.DataFrame:
    """The records of `run_pairs`, with its `settings`, as one table with a column for each of the `metrics`."""
    rows = run_pairs(subject, experiment, pairs, **settings)
    records = [record for of_pair in tqdm(rows, total=len(pairs), unit="pair") for record in of_pair]
    return with_metrics(pd.DataFrame(records), metrics)


def _readouts(job: Job, pair: Pair, inputs: Inputs) -> list[Readouts]:
    """The readouts in each of the task's prompts."""
    engine, found = job.subject.engine, []
    for order in range(len(job.subject.asked)):
        ready = inputs.of(pair, order)
        readouts = job.readouts(ready)
        clips = [(pair.a, ready.a), (pair.b, ready.b)]
        check_finite(engine, readouts.logits, clips, readouts.notes)
        check_finite(engine, job.donor_answer(pair).logits, clips[1:])
        found.append(readouts)
    return found


def _records(
    job: Job, pair: Pair, inputs: Inputs, readouts: Sequence[Readouts], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """The records of a pair; positions and changes are those in the first prompt."""
    subject, ready = job.subject, inputs.of(pair)
    found, labels = answer(subject.asked, [one.logits for one in readouts]), subject.task.labels
    by_row = by_label(found, labels)
    base, donor = by_row[0], by_label(job.donor_answer(pair), labels)[0]
    predictions = [labels[i] for i in found.logits.argmax(1).tolist()]
    mass = [min(1.0, round(x, 6)) for x in found.mass.tolist()]  # the noise of float32 may put it above 1
    return [
        {
            "pair_id": pair.pair_id,
            "clip_a": pair.a.clip_id,
            "clip_b": pair.b.clip_id,
            "layer": note.layer,
            "target": pair.target,
            "pred_base": predictions[0],
            "pred_patch": predictions[i],
            "eligible": predictions[0] != pair.target,
            "flip_to_target": predictions[i] == pair.target,
            "flip_from_base": predictions[i] != predictions[0],
            "delta_logit_target": round(by_row[i][pair.target] - base[pair.target], 6),
            "logits_base": base,
            "logits_patch": by_row[i],
            "logits_donor": donor,
            "len_a": ready.a.n_audio,
            "len_b": ready.b.n_audio,
            "n_patched": note.n_positions,
            "patch_alpha": note.options.get("alpha", 1.0),
            "patched_from": note.start,
            "semantic_label_b": pair.b.semantic_label,
            "prosody_label_b": pair.b.prosody_label,
            "label_mass_base": mass[0],
            "label_mass_patch": mass[i],
            "site": note.site,
            "stream_shift": round(note.relative_change, 6),
            **({APPROXIMATE: True} if job.experiment.approximate else {}),
            **{column: note.options[column] for column in columns if column != "patch_alpha"},
        }
        for i, note in enumerate(readouts[0].notes, start=1)
    ]


def by_label(found: Answer, labels: Sequence[str]) -> list[dict[str, float]]:
    """The logits of each row by label, in six decimals."""
    # float32 has fewer than six decimals at the size of a logit; differences are taken between the printed values.
    return [dict(zip(labels, (round(x, 6) for x in row), strict=True)) for row in found.logits.tolist()]
