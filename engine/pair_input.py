"""A pair of clips as an intervention gets it (SPEC section 4).

pair = align(clip_a, clip_b)
pair.a_span, pair.b_span                     # equally long; with "resample_linear" the whole spans
pair.resampled(stream_of_b[:, pair.b_span])  # as many positions as pair.a_span, either way
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from errors import BAD_USAGE, UserError
from models.speech_lm import ClipInput

ALIGNMENTS = ("truncate_to_min", "resample_linear")


@dataclass(frozen=True, eq=False)
class PairInput:
    """A pair as an intervention gets it: recipient `a`, donor `b`, and the aligned positions in each.

    `a_seconds` is how long A's sound is, where that is known. For an intervention that needs more: `rng` is seeded and
    of this pair alone, and begins anew for each call, so that all layers of a pair draw the same. `target_clips()`
    gives some clips with the target label, in A's voice. `once(make)` keeps what is the same for all pairs with this
    target and speaker.
    """

    a: ClipInput
    b: ClipInput
    a_span: slice
    b_span: slice
    a_seconds: float | None = None
    seed: str = ""
    target_clips: Callable[[], list[ClipInput]] = list
    once: Callable[[Callable[[], Any]], Any] = lambda make: make()

    @property
    def n_patched(self) -> int:
        """Aligned positions of A."""
        return self.a_span.stop - self.a_span.start

    def resampled(self, value: torch.Tensor) -> torch.Tensor:
        """B's values at `b_span`, `[1, positions, …]`, as many as `a_span` has; the same tensor where they are that.

        Else interpolated linearly along time in float32, the first and the last as they are. `ValueError` for values
        of another number of positions than `b_span` has.
        """
        n_b = self.b_span.stop - self.b_span.start
        if value.shape[1] != n_b:
            raise ValueError(f"a value of {value.shape[1]} positions cannot be resampled: pair.b_span has {n_b}")
        return value if n_b == self.n_patched else _interpolated(value, self.n_patched)

    def part(self, number: int, of: int, seconds: float = 0.0) -> tuple[slice, slice]:
        """Part `number` of `a_span` cut into `of` parts of equal length: its positions, and those counted in the span.

        With `seconds`, a window of that length about the part's middle instead, moved so that it lies in the span, and
        the whole span where it is longer. `UserError` for more parts than the span has positions.
        """
        n = self.n_patched
        if not 0 <= number < of <= n:
            raise UserError(
                f"part {number} of {of}: a span of {n} audio positions can be cut into 1 to {n} parts", BAD_USAGE
            )
        start, stop = number * n // of, (number + 1) * n // of
        if seconds:
            if not self.a_seconds or not 0 < seconds < math.inf:
                raise UserError(
                    f"a window of {seconds:g} s: it must be longer than 0, and A's length be known", BAD_USAGE
                )
            width = min(n, max(1, round(seconds * self.a.n_audio / self.a_seconds)))
            start = min(max(0, round(n * (number + 0.5) / of - width / 2)), n - width)
            stop = start + width
        return slice(self.a_span.start + start, self.a_span.start + stop), slice(start, stop)

    @cached_property
    def rng(self) -> random.Random:
        return random.Random(self.seed)

    def anew(self) -> "PairInput":
        """The same pair, its random numbers at their beginning."""
        return replace(self)


def align(a: ClipInput, b: ClipInput, how: str = "truncate_to_min") -> PairInput:
    """With `truncate_to_min`, the first `min(len_A, len_B)` audio positions of A receive the first as many of B.

    With `resample_linear`, all of A's receive all of B's, interpolated to A's length (`PairInput.resampled`).
    """
    check_alignment(how)
    if how == "resample_linear":
        return PairInput(a, b, a.span, b.span)
    length = min(a.n_audio, b.n_audio)
    return PairInput(a, b, _first(a.span, length), _first(b.span, length))


def check_alignment(how: str) -> None:
    """Raise `UserError` for an alignment that cannot be run."""
    if how not in ALIGNMENTS:
        raise UserError(f"--align {how}: unknown; use {' or '.join(ALIGNMENTS)}", BAD_USAGE)


def _interpolated(value: torch.Tensor, n: int) -> torch.Tensor:
    """`[1, m, …]` at n places spread evenly from its first position to its last; one place is the first."""
    # Whole numbers, so that what falls on a position is that position's value exactly.
    steps = torch.arange(n) * (value.shape[1] - 1)
    low = steps // max(n - 1, 1)
    way = (steps - low * max(n - 1, 1)) / max(n - 1, 1)
    low, way = low.to(value.device), way.to(value.device).view(1, n, *[1] * (value.dim() - 2))
    high = (low + 1).clamp_max(value.shape[1] - 1)
    return torch.lerp(value[:, low].float(), value[:, high].float(), way).to(value.dtype)


def _first(span: slice, length: int) -> slice:
    return slice(span.start, span.start + length)
