"""A pair of clips as an intervention gets it (SPEC section 4).

pair = align(clip_a, clip_b)
pair.a_span, pair.b_span                     # equally long
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from errors import BAD_USAGE, UserError
from models.speech_lm import ClipInput

ALIGNMENTS = ("truncate_to_min", "resample_linear")


@dataclass(frozen=True, eq=False)
class PairInput:
    """A pair as an intervention gets it: recipient `a`, donor `b`, and the aligned positions, equally many, in each.

    For an intervention that needs more: `rng` is seeded and of this pair alone, and begins anew for each call, so that
    all layers of a pair draw the same. `target_clips()` gives some clips with the target label, in A's voice.
    `once(make)` keeps what is the same for all pairs with this target and speaker.
    """

    a: ClipInput
    b: ClipInput
    a_span: slice
    b_span: slice
    seed: str = ""
    target_clips: Callable[[], list[ClipInput]] = list
    once: Callable[[Callable[[], Any]], Any] = lambda make: make()

    @property
    def n_patched(self) -> int:
        """Aligned positions in each clip."""
        return self.a_span.stop - self.a_span.start

    @cached_property
    def rng(self) -> random.Random:
        return random.Random(self.seed)

    def anew(self) -> "PairInput":
        """The same pair, its random numbers at their beginning."""
        return replace(self)


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
