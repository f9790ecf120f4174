"""A pair of clips as an intervention gets it (SPEC section 4).

pair = align(clip_a, clip_b)
pair.a_span, pair.b_span                     # equally long; with "resample_linear" the whole spans
pair.resampled(stream_of_b[:, pair.b_span])  # as many positions as pair.a_span, either way
"""

import copy
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import FunctionType, NoneType
from typing import Any

import torch
from torch.utils._pytree import tree_map

from voicepatch.engine.failures import Mistake
from voicepatch.engine.positions import n_shared
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.models.speech_lm import ClipInput
from voicepatch.types.settings import ALIGNMENTS

POSITIONS = ("span", "after", "question", "last", "shared", "differing")  # what the option `at` of an experiment names


@dataclass(frozen=True, eq=False)
class PairInput:
    """A pair as an intervention gets it: recipient `a`, donor `b`, and the aligned positions in each.

    `a_seconds` is how long A's sound is, where that is known. `target` is the label that A's answer should move to, and
    `label_ids` holds the token id of each label. For an intervention that needs more: `rng` is seeded and of this pair
    alone, and restarts with each call, so that all layers of a pair draw the same numbers. `target_clips()` gives some
    clips with the target label, in A's voice. `cache` holds the values of `cached`; None turns
    caching off. `question` holds the positions of the question's tokens, counted from the end of the prompt; None where
    they do not stand after the sound.
    """

    a: ClipInput
    b: ClipInput
    a_span: slice
    b_span: slice
    a_seconds: float | None = None
    seed: str = ""
    target_clips: Callable[[], list[ClipInput]] = list
    target: str = ""
    label_ids: Mapping[str, int] = field(default_factory=dict)
    question: slice | None = None
    cache: dict[Any, Any] | None = None

    @property
    def n_patched(self) -> int:
        """Aligned positions of A."""
        return self.a_span.stop - self.a_span.start

    def positions(self, at: str = "span") -> tuple[slice, slice]:
        """The positions that an experiment's option `at` names, in A and in B.

        `span` is the aligned audio span, `after` all positions after the sound, `question` the question's own tokens,
        and `last` the readout. The last three hold the same tokens in both clips, unless B is asked another question:
        then `shared` are the tokens that both prompts end with, and `differing` those between the sound and them.
        `UserError` for another name, for `question` where the question does not stand after the sound, and for `after`
        and `differing` where these are not equally many in both.
        """
        if at == "span":
            return self.a_span, self.b_span
        if at == "question" and self.question is None:
            raise UserError(
                "--at question: the question's tokens do not stand after the sound in this prompt", BAD_USAGE
            )
        a, b = (self._after_the_sound(clip, at) for clip in (self.a, self.b))
        if a.stop - a.start != b.stop - b.start:
            raise UserError(
                f"--at {at}: A's and B's prompt must have equally many tokens after the sound; take --at shared, or "
                "questions of one length",
                BAD_USAGE,
            )
        return a, b

    def _after_the_sound(self, clip: ClipInput, at: str) -> slice:
        n, first = len(clip.input_ids), clip.span.stop
        if at == "question" and self.question:
            return slice(n + self.question.start, n + self.question.stop)
        places = {
            "after": slice(first, n),
            "shared": slice(n - self._n_shared, n),
            "differing": slice(first, n - self._n_shared),
            "last": slice(clip.readout_pos, n),
        }
        if at not in places:
            raise UserError(f"--at {at}: unknown; use {', '.join(POSITIONS)}", BAD_USAGE)
        return places[at]

    @cached_property
    def _n_shared(self) -> int:
        a, b = (clip.input_ids[clip.span.stop :].tolist() for clip in (self.a, self.b))
        return n_shared(a, b)

    def resampled(self, value: torch.Tensor, at: str = "span") -> torch.Tensor:
        """B's values at its positions `at`, `[1, positions, …]`, as many as A has; the same tensor where they are that.

        Else interpolated linearly along time in float32, the first and the last as they are. `ValueError` for values
        of another number of positions than B has there.
        """
        n_a, n_b = (there.stop - there.start for there in self.positions(at))
        if value.shape[1] != n_b:
            raise ValueError(
                f"a value of {value.shape[1]} positions cannot be resampled: B has {n_b} positions of the {at}"
            )
        return value if n_b == n_a else _interpolated(value, n_a)

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

    def cached(self, make: Callable[..., Any], lm: Any = None, *arguments: Any) -> Any:
        """What `make(lm, clips, *arguments)` gives for the clips of `target_clips()`, computed once and copied.

        It is kept by the function's code and its arguments, for all pairs with this target and speaker. `Mistake` for
        a function that uses variables of the function around it, or arguments that are not numbers or text, since
        those could change unseen.
        """
        key = _key(make, lm, arguments)
        if self.cache is None:
            return make(lm, self.target_clips(), *arguments)
        if key not in self.cache:
            self.cache[key] = make(lm, self.target_clips(), *arguments)
        return tree_map(_copied, self.cache[key])

    @cached_property
    def rng(self) -> random.Random:
        return random.Random(self.seed)

    def reset_rng(self) -> "PairInput":
        """The same pair with its random generator restarted."""
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


def _key(make: Callable[..., Any], lm: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the value of `make(lm, clips, *arguments)` depends on beside the clips."""
    how = "as in pair.cached(class_mean, lm, layer) with def class_mean(lm, clips, layer) outside the experiment"
    if hasattr(make, "__wrapped__"):
        raise Mistake(
            f"pair.cached: {make.__name__} has a decorator, whose own variables cannot be seen; take it off, {how}"
        )
    if not isinstance(make, FunctionType):
        raise Mistake(f"pair.cached takes a function, {how}, not {make!r}"[:300])
    if make.__closure__:
        seen = ", ".join(make.__code__.co_freevars)
        raise Mistake(
            f"pair.cached: {make.__name__} uses {seen} of the function around it; pass it as an argument, {how}"
        )
    if not hasattr(lm, "trace"):
        raise Mistake(f"pair.cached takes lm behind the function, {how}")
    given = (arguments, make.__defaults__ or (), tuple(sorted((make.__kwdefaults__ or {}).items())))
    odd = [value for value in _leaves(given) if type(value) not in (bool, int, float, str, NoneType)]
    if odd:
        found = f"{make.__name__} has a {type(odd[0]).__name__} among its arguments or defaults"
        raise Mistake(f"pair.cached: {found}, which must be numbers or text, {how}")
    return make.__code__.co_filename, make.__code__, repr(given)  # repr tells 1 from 1.0 and from True


def _leaves(value: Any) -> list[Any]:
    return [leaf for part in value for leaf in _leaves(part)] if type(value) is tuple else [value]


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)


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
