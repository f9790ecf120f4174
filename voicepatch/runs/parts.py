"""Whether every span can be cut into as many parts as an experiment asks for, before anything has run.

    check_parts(job, pairs)

Lengths are taken from the headers of the sounds, so no clip is decoded for it.
"""

from collections.abc import Sequence

from voicepatch.audio.decode import SAMPLE_RATE, seconds_of
from voicepatch.engine.subject import Subject
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.runs.job import Job
from voicepatch.text import escape
from voicepatch.types.clip import Clip
from voicepatch.types.pair import Pair

SLICES = "slices"  # the option that says into how many parts the aligned span is cut


def check_parts(job: Job, pairs: Sequence[Pair]) -> None:
    """`UserError` where an experiment's option runs over `slices` and the shortest aligned span has fewer positions."""
    if all(option.range_of != SLICES for option in job.experiment.options.values()):
        return
    (slices,) = job.values[SLICES]
    lengths = {clip.clip_id: _positions(job.subject, clip) for pair in pairs for clip in (pair.a, pair.b)}
    spans = [(_aligned(job, lengths, pair), pair) for pair in pairs]
    known = [(n, pair) for n, pair in spans if n is not None]
    for n, pair in sorted(known, key=lambda found: found[0])[:1]:
        if slices > n:
            raise UserError(
                f"--{SLICES} {slices}: the span of pair {escape(pair.a.clip_id)} ← {escape(pair.b.clip_id)} has {n} "
                f"audio positions; use at most {n}",
                BAD_USAGE,
            )


def _aligned(job: Job, lengths: dict[str, int | None], pair: Pair) -> int | None:
    a, b = lengths[pair.a.clip_id], lengths[pair.b.clip_id]
    if a is None or b is None:
        return None
    return a if job.align_how == "resample_linear" else min(a, b)


def _positions(subject: Subject, clip: Clip) -> int | None:
    """None for a sound that cannot be read, of which the check of the sounds tells."""
    n_samples, most = round(seconds_of(clip.path) * SAMPLE_RATE), subject.model.max_samples
    if not n_samples:
        return None
    return subject.model.n_audio(n_samples if most is None else min(n_samples, most))
