"""The command `answers`: each clip of the data once, unpatched.

answer_all(settings)
"""

import click

from pairs.selected import select_clips
from voicepatch.commandline import loading, running, showing
from voicepatch.commandline.program import starting
from voicepatch.errors import UserError
from voicepatch.text import listing
from voicepatch.types.settings import Settings


def answer_all(settings: Settings) -> None:
    """Compute the answers that the run lacks, and write and show what they follow."""
    loading.check_workers(settings)
    dataset = running.load_data(settings)
    clips = select_clips(dataset.clips, settings.where, dataset.task)
    run = running.run_dir(settings, dataset)
    loading.check_model(settings)
    with starting():
        from voicepatch.runs.answers import answer, open_answers

        executor = loading.load_executor(settings)
    answers = open_answers(executor, dataset, run, settings)
    left_out = answer(executor, answers, clips, settings)
    if not answers.rows:
        clip_id, why = next(iter(left_out.items()))
        raise UserError(f"none of the {len(left_out)} clips gave an answer: {why}")
    answers.finish([{"clip_id": clip_id, "reason": why} for clip_id, why in left_out.items()])
    if left_out:
        click.echo(
            f"warning: {len(left_out)} of {len(clips)} clips gave no answer: {listing(left_out)}",
            err=True,
        )
    showing.answers(run.path, [clip.clip_id for clip in clips])
    running.renew_report(run)
