"""The model's own answers to single clips, with nothing patched.

for row in answer_rows(subject, clips): ...          # a row of answers.jsonl, or why a clip gives none
build_pairs(clips, "prosody", answers=answers_of(subject))
"""

from collections.abc import Iterator, Sequence

from voicepatch.engine.failures import PairFailed
from voicepatch.engine.memory import release_memory
from voicepatch.engine.not_finite import check_finite
from voicepatch.engine.subject import Subject
from voicepatch.runs.pair_loop import by_label
from voicepatch.store.directory import Row
from voicepatch.types.clip import Clip
from voicepatch.types.pair import Answers

OF_CLIP = ("clip_id", "text_id", "text_type", "speaker", "semantic_label", "prosody_label")


def answer_rows(subject: Subject, clips: Sequence[Clip]) -> Iterator[Row | PairFailed]:
    """The answer to each clip, in order; an error in place of one that cannot be read or is not finite."""
    with subject.clips.prefetching(clips):
        for clip in clips:
            try:
                yield _answer_row(subject, clip)
            except PairFailed as error:
                yield error
            subject.clips.make_room()
            release_memory(subject.engine.devices)


def answers_of(subject: Subject) -> Answers:
    """What `build_pairs` takes as `answers`: the model's own answer to each clip, computed when first asked for."""
    known: dict[str, str | None] = {}

    def answers(clips: Sequence[Clip]) -> dict[str, str]:
        missing = list({clip.clip_id: clip for clip in clips if clip.clip_id not in known}.values())
        for clip, row in zip(missing, answer_rows(subject, missing), strict=True):
            known[clip.clip_id] = None if isinstance(row, PairFailed) else row["answer"]
        return {clip.clip_id: answer for clip in clips if (answer := known[clip.clip_id])}

    return answers


def _answer_row(subject: Subject, clip: Clip) -> Row:
    answer = subject.clips.unpatched(clip)
    check_finite(subject.engine, answer.logits, [(clip, subject.clips.get(clip))])
    return {
        **{name: getattr(clip, name) for name in OF_CLIP},
        "answer": subject.task.labels[int(answer.logits[0].argmax())],
        "label_mass": min(1.0, round(float(answer.mass[0]), 6)),  # the noise of float32 may put it above 1
        "logits": by_label(answer, subject.task.labels)[0],
    }
