"""A pair of clips as an intervention gets it (SPEC section 4).

inputs = Inputs(subject, "patch", dataset.clips)
pair_input = inputs.of(pair)                 # the same every time that it is asked for
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from errors import BAD_USAGE, UserError
from interventions.core.subject import Subject
from interventions.core.traced import Known
from models.opens2s_io import ClipInput
from pairs import Clip, Pair

N_TARGET_CLIPS = 20
N_KEPT = 16  # results of `once` that are held; each may be as large as a clip's record
ALIGNMENTS = ("truncate_to_min", "resample_linear")


@dataclass(frozen=True)
class PairInput:
    """A pair as the model reads it: recipient `a`, donor `b`, and the aligned positions, equally many, in each.

    For an intervention that needs more: `rng` is seeded and of this pair alone; `target_clips()` gives some clips with
    the target label, in A's voice; `once(make)` keeps what is the same for all pairs with this target and speaker.
    """

    a: ClipInput
    b: ClipInput
    a_span: slice
    b_span: slice
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    target_clips: Callable[[], list[ClipInput]] = list
    once: Callable[[Callable[[], Any]], Any] = lambda make: make()

    @property
    def n_patched(self) -> int:
        return self.a_span.stop - self.a_span.start

    def known(self, alpha: float = 1.0) -> Known:
        """What `lm.trace` need not compute when B's span is written into A's with dose `alpha`.

        With all of B in place of A's span, and the same prompt before it, everything up to the end of what was written
        is B's own run at every later layer: causal attention lets nothing of A in. Else only what stands before it is
        known, and that is A's own.
        """
        start = self.a_span.start
        same_before = start == self.b_span.start and torch.equal(self.a.input_ids[:start], self.b.input_ids[:start])
        return (self.b, self.a_span.stop) if alpha == 1 and same_before else (self.a, start)


def align(a: ClipInput, b: ClipInput, how: str = "truncate_to_min") -> PairInput:
    """The first `min(len_A, len_B)` audio positions of A receive the first as many of B; A's tail stays its own."""
    check_alignment(how)
    length = min(a.n_audio, b.n_audio)
    return PairInput(a, b, _first(a.span, length), _first(b.span, length))


def check_alignment(how: str) -> None:
    """Raise `UserError` for an alignment that cannot be run."""
    if how == "resample_linear":
        raise UserError(
            "--align resample_linear: reserved, not built yet (interpolated states are none that the model makes); "
            "use truncate_to_min",
            BAD_USAGE,
        )
    if how not in ALIGNMENTS:
        raise UserError(f"--align {how}: unknown; use truncate_to_min", BAD_USAGE)


def _first(span: slice, length: int) -> slice:
    return slice(span.start, span.start + length)


@dataclass(frozen=True)
class Inputs:
    """Makes the `PairInput` of any pair of one experiment; `clips` are the data set's, `name` enters the seeds."""

    subject: Subject
    name: str
    clips: Sequence[Clip] = ()
    align_how: str = ALIGNMENTS[0]
    seed: int = 42
    kept: dict[tuple, Any] = field(default_factory=dict)

    def of(self, pair: Pair) -> PairInput:
        """The pair, with its random numbers at their beginning."""
        store = self.subject.clips
        aligned = align(store.get(pair.a), store.get(pair.b), self.align_how)
        return PairInput(
            aligned.a,
            aligned.b,
            aligned.a_span,
            aligned.b_span,
            rng=random.Random(f"{self.seed}:{self.name}:{pair.pair_id}"),
            target_clips=partial(self._target_clips, pair),
            once=partial(self._once, (pair.target, pair.a.speaker)),
        )

    def _target_clips(self, pair: Pair) -> list[ClipInput]:
        label = f"{pair.kind}_label"
        peers = [clip for clip in self.clips if getattr(clip, label) == pair.target and clip.speaker == pair.a.speaker]
        if not peers:
            raise UserError(f"pair {pair.pair_id}: no clip with the {label} {pair.target}; pass the data set's clips")
        peers = sorted(peers, key=lambda clip: clip.clip_id)
        drawn = random.Random(f"{self.seed}:{pair.target}:{pair.a.speaker}")
        return [self.subject.clips.get(clip) for clip in drawn.sample(peers, min(N_TARGET_CLIPS, len(peers)))]

    def _once(self, key: tuple, make: Callable[[], Any]) -> Any:
        if key not in self.kept:
            while len(self.kept) >= N_KEPT:
                self.kept.pop(next(iter(self.kept)))
            self.kept[key] = make()
        return self.kept[key]
