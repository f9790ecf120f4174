"""The model's own answers to the clips of a run: each clip once, kept in the run directory.

    answers = open_answers(executor, dataset, run, settings)
    left_out = answer(executor, answers, dataset.clips, settings)     # clip_id -> why it has no answer
    answers.rows["clip_1"]["answer"]

An answer that the run has is not computed again, whatever command asked for it first.
"""

from collections.abc import Sequence

from tqdm import tqdm

from voicepatch.engine.failures import BadClip, PairFailed
from voicepatch.errors import UserError
from voicepatch.runs.executor import Executor
from voicepatch.runs.experiment import run_identity
from voicepatch.runs.interrupt import after_this_clip
from voicepatch.runs.unpatched import OF_CLIP
from voicepatch.store.answers import FILE, Answers
from voicepatch.store.directory import RunDir
from voicepatch.text import escape, short_repr
from voicepatch.types import pair
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import Dataset
from voicepatch.types.settings import Settings


def open_answers(executor: Executor, dataset: Dataset, run: RunDir, settings: Settings) -> Answers:
    """The answers that a run holds; `UserError` for a directory of another run, and for answers made otherwise."""
    executor.expect(dataset.hashes)
    run.claim(run_identity(executor, dataset, settings.skip_bad_clips))
    answers = Answers(run, executor.settings_of_answers(settings))
    for clip in dataset.clips:
        stored = answers.rows.get(clip.clip_id, {})
        for column in OF_CLIP:
            if stored and stored[column] != getattr(clip, column):
                raise UserError(
                    f"{run.path / FILE}: clip {escape(clip.clip_id)} has {column} {short_repr(stored[column])}, and "
                    f"{short_repr(getattr(clip, column))} in the data; move this file away to compute the answers again"
                )
    return answers


def answers_in(executor: Executor, stored: Answers, settings: Settings) -> pair.Answers:
    """What `build_pairs` takes as `answers`: those that the run holds, and those that are computed and stored."""
    left_out: set[str] = set()

    def answers(clips: Sequence[Clip]) -> dict[str, str]:
        left_out.update(answer(executor, stored, [clip for clip in clips if clip.clip_id not in left_out], settings))
        ids = {clip.clip_id for clip in clips} - left_out
        return {clip_id: stored.rows[clip_id]["answer"] for clip_id in ids}

    return answers


def answer(executor: Executor, answers: Answers, clips: Sequence[Clip], settings: Settings) -> dict[str, str]:
    """Compute and store the answers to `clips` that are missing; gives the clips without an answer, and why.

    `UserError` for a clip that cannot be read, unless such clips are skipped.
    """
    left_out: dict[str, str] = {}
    clips = list({clip.clip_id: clip for clip in clips}.values())
    missing = [clip for clip in clips if clip.clip_id not in answers.rows]
    if not missing:
        return left_out
    with after_this_clip() as stop_requested:
        rows = zip(missing, executor.answers(missing, settings), strict=True)
        progress = tqdm(rows, "answers", len(clips), initial=len(clips) - len(missing), unit="clip")
        for clip, row in progress:
            if isinstance(row, BadClip) and not settings.skip_bad_clips:
                raise UserError(f"{row} (--on-bad-clip skip leaves it out)")
            if isinstance(row, PairFailed):
                left_out[clip.clip_id] = str(row)
            else:
                answers.add(row)
            if stop_requested():
                break
    return left_out
