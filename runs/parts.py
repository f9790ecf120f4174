"""Whether every span can be cut into as many parts as an experiment asks for, before anything has run.

    check_parts(job, pairs)

Lengths are taken from the headers of the sounds, so no clip is decoded for it.
"""

from collections.abc import Sequence

from engine.subject import Subject
from errors import BAD_USAGE, UserError
from models.sound import SAMPLE_RATE, seconds_of
from pairs import Clip, Pair
from pairs.shown import shown
from runs.job import Job

SLICES = "slices"  # the option that says into how many parts the aligned span is cut


def check_parts(job: Job, pairs: Sequence[Pair]) -> None:
    """`UserError` where an experiment's option runs over `slices` and the shortest aligned span has fewer positions."""
    if SLICES not in job.experiment.over.values():
        return
    (slices,) = job.values[SLICES]
    lengths = {clip.clip_id: _positions(job.subject, clip) for pair in pairs for clip in (pair.a, pair.b)}
    spans = [(_aligned(job, lengths, pair), pair) for pair in pairs]
    n, pair = min((found for found in spans if found[0] is not None), key=lambda found: found[0], default=(None, None))
    if n is not None and slices > n:
        raise UserError(
            f"--{SLICES} {slices}: the span of pair {shown(pair.a.clip_id)} ← {shown(pair.b.clip_id)} has {n} audio "
            f"positions; use at most {n}",
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
