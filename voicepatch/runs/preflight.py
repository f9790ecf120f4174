"""The preflight checks of an experiment, run before its first pair; one that fails ends it with status 3.

    check_sounds(subject, clips, name, run, settings, log)   # every clip can be read
    run_checks(subject, dataset, run, seed, layers, log)     # the span, the model's contract, and the analytic facts
    check_engine(job, pairs, name, run, log)                 # the engine is exact, and the experiment has an effect
    check_planted(subject, dataset, run, seed, log)          # on request: a planted layer of reading is recovered
    check_natural(subject, pairs_of, run, seed, log)         # on request: how far patched states are from others

Each check is worded where it is made (checks.py, model_contract.py, engine_check.py), stored, and logged as stored.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from tqdm import tqdm

from voicepatch.engine.engine import Readouts
from voicepatch.engine.failures import PairFailed
from voicepatch.engine.subject import Subject
from voicepatch.errors import CHECK_FAILED, UserError
from voicepatch.runs.checks import label_check, self_patch_check, sound_check, span_check, usable
from voicepatch.runs.engine_check import N_ENGINE_PAIRS, engine_check, moves
from voicepatch.runs.fewer_rows import with_fewer_rows
from voicepatch.runs.interface_check import interface_check
from voicepatch.runs.job import Job
from voicepatch.runs.log import Log
from voicepatch.runs.model_contract import model_check
from voicepatch.runs.natural import natural_check, natural_table
from voicepatch.runs.pair_loop import runs_as_written
from voicepatch.runs.planted import N_PAIRS, equally_long, planted_check
from voicepatch.store.directory import Row
from voicepatch.text import escape
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import Dataset
from voicepatch.types.pair import Pair
from voicepatch.types.settings import Settings

N_CHECK_CLIPS = 5
N_SELF_PATCHED = 2  # of them; each is patched at every layer, two traces a layer


class CheckFiles(Protocol):
    """Where preflight checks write what they found: a run directory, or what stands for it in a worker."""

    path: Path

    def write_json(self, filename: str, content: Row) -> None: ...

    def update_json(self, filename: str, key: str, content: Row) -> None: ...


def check_sounds(
    subject: Subject, clips: Sequence[Clip], name: str, run: CheckFiles, settings: Settings, log: Log
) -> None:
    """Log which clips are silence, too long for the model, or unreadable.

    `UserError` for unreadable ones, unless they are to be skipped.
    """
    found = sound_check(clips, subject.model.max_samples, settings.max_seconds)
    run.update_json("sanity_check_sounds.json", name, found)
    (check,) = found["checks"]
    unreadable = found["unreadable"]
    if unreadable and (not settings.skip_bad_clips or len(unreadable) == found["n_clips"]):
        first = f"clip {escape(unreadable[0]['clip_id'])}: {unreadable[0]['reason']}"
        raise UserError(
            f"{len(unreadable)} of {found['n_clips']} clips cannot be read: {first}; all are in "
            f"{run.path / 'sanity_check_sounds.json'} (--on-bad-clip skip leaves their pairs out)"
        )
    if unreadable or found["silent"] or found.get("cut"):
        log(f"warning: {check['text']}{'; pairs with unreadable clips are left out' if unreadable else ''}")


def run_checks(
    subject: Subject,
    dataset: Dataset,
    run: CheckFiles,
    seed: int,
    layers: Sequence[int],
    log: Log = print,
    skip_bad_clips: bool = False,
) -> None:
    """The checks of SPEC section 7 on some clips, into their files and the log; status 3 when one fails."""
    _store(run, "tokenization_report.json", label_check(subject), log)
    drawn = _in_random_order(dataset, seed)
    where = f"{subject.family.where}: {subject.family.name}: "
    interface = interface_check(subject, drawn)
    if not interface[-1].passed:  # what follows would end with an error of its own
        _store(run, "sanity_check_model.json", model_check(subject, drawn[0], interface), log, where)
    with subject.clips.prefetching(drawn[:N_CHECK_CLIPS]):
        clips, left_out = usable(subject, drawn, N_CHECK_CLIPS, skip_bad_clips)
    spans = span_check(subject, clips) | {"left_out": left_out}
    table = pd.DataFrame(spans["clips"]).drop(columns=["ids_in_span"])
    table["clip_id"] = table["clip_id"].map(escape)
    log("audio spans, in positions of the expanded sequence; span_end is the first position after the span:")
    log(table.to_string(index=False))
    _store(run, "sanity_check_audio_span.json", spans, log)
    model = with_fewer_rows(subject, lambda: model_check(subject, clips[0], interface), log)
    _store(run, "sanity_check_model.json", model, log, where)
    same = with_fewer_rows(subject, lambda: self_patch_check(subject, clips[:N_SELF_PATCHED], layers), log)
    _store(run, "sanity_check_self_patch.json", same, log, where)


def check_planted(
    subject: Subject, dataset: Dataset, run: CheckFiles, seed: int, log: Log = print, skip_bad_clips: bool = False
) -> None:
    """Plant a reading layer and recover it, into sanity_check_planted.json and the log; status 3 where that fails."""
    drawn = _in_random_order(dataset, seed)
    with subject.clips.prefetching(drawn[: 2 * N_PAIRS]):
        clips, _ = usable(subject, drawn, 2 * N_PAIRS, skip_bad_clips)
    pairs = equally_long(subject, clips)
    _store(run, "sanity_check_planted.json", with_fewer_rows(subject, lambda: planted_check(subject, pairs), log), log)


def check_natural(
    subject: Subject,
    pairs_of: Mapping[str, Sequence[Pair]],
    run: CheckFiles,
    seed: int,
    log: Log = print,
    skip_bad_clips: bool = False,
) -> pd.DataFrame:
    """How far patched states are from unpatched ones, into sanity_check_natural.json and the log; gives the table."""
    table = with_fewer_rows(subject, lambda: natural_table(subject, pairs_of, seed, skip_bad_clips), log)
    _store(run, "sanity_check_natural.json", natural_check(table), log)
    return table


def check_engine(job: Job, pairs: Sequence[Pair], name: str, run: CheckFiles, log: Log) -> None:
    """Compare the engine with the experiment as it is written; status 3 where they differ, or nothing changes.

    An experiment that leaves every value of every pair as it is would measure nothing; with `may_be_noop` it may.
    """
    first = [clip for pair in pairs[:N_ENGINE_PAIRS] for clip in (pair.a, pair.b)]
    with job.subject.clips.prefetching(first):
        found, readouts = with_fewer_rows(job.subject, lambda: engine_check(job, pairs), log)
    run.update_json("sanity_check_engine.json", name, found)
    if found["as_written"]:
        log(runs_as_written(job.experiment, found["as_written"]))
    _pass(found["checks"], run, "sanity_check_engine.json", log)
    if not (job.experiment.may_be_noop or _any_moves(job, readouts) or _moves_later(job, pairs)):
        raise UserError(
            f"check failed: {name} changes no value of any pair: it writes what stands there; nothing was measured. "
            "Look at the positions and options that it writes with",
            CHECK_FAILED,
        )


def _store(run: CheckFiles, filename: str, report: dict[str, Any], log: Log, where: str = "") -> None:
    run.write_json(filename, report)
    _pass(report["checks"], run, filename, log, where)


def _pass(checks: Sequence[Mapping[str, Any]], run: CheckFiles, filename: str, log: Log, where: str = "") -> None:
    """Log the checks of a file; `UserError`, status 3, for the first that failed, which begins with `where`."""
    for check in checks:
        log(f"check: {check['name']}: {check['text']}")
    for check in checks:
        if not check["passed"]:
            failed = f"check failed: {where}{check['name']}: {check['text']}"
            raise UserError(f"{failed}; nothing was measured. See {run.path / filename}", CHECK_FAILED)


def _any_moves(job: Job, readouts: Sequence[Readouts]) -> bool:
    return any(moves(job.subject, found) for found in readouts)


def _moves_later(job: Job, pairs: Sequence[Pair]) -> bool:
    inputs, clips = job.inputs(), job.subject.clips
    with clips.for_pairs(pairs):
        for pair in tqdm(pairs, desc="does it change anything?", unit="pair", delay=2, leave=False):
            try:
                if _any_moves(job, [job.readouts(inputs.of(pair))]):
                    return True
            except PairFailed:
                continue
            finally:
                clips.done(pair)
    return False


def _in_random_order(dataset: Dataset, seed: int) -> list[Clip]:
    clips = sorted(dataset.clips, key=lambda clip: clip.clip_id)
    return random.Random(f"{seed}:checks").sample(clips, len(clips))
