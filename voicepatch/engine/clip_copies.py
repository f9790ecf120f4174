"""Copies of clips for an experiment, whose own tensors stay what they are.

copies = ClipCopies()
mine = copies.pair(pair)                     # what the experiment gets; its clips are copies
copies.original(mine.a) is pair.a             # what is traced
copies.changed()                             # "pair.a.inputs_embeds" where the experiment changed that in place
"""

from dataclasses import fields, replace

import torch

from voicepatch.engine.pair_input import PairInput
from voicepatch.models.speech_lm import ClipInput

NAMES = [field.name for field in fields(ClipInput)]


class ClipCopies:
    """The clips that the calls of one pair were given."""

    def __init__(self) -> None:
        self._copies: dict[ClipInput, ClipInput] = {}
        self._originals: dict[ClipInput, ClipInput] = {}
        self._names: dict[ClipInput, str] = {}
        self._versions: dict[ClipInput, list[int]] = {}

    def pair(self, pair: PairInput) -> PairInput:
        """The same pair with copies of its clips; where A is B, so are the copies."""
        return replace(
            pair,
            a=self._copy(pair.a, "pair.a"),
            b=self._copy(pair.b, "pair.b"),
            target_clips=lambda: [self._copy(clip, "a clip of pair.target_clips()") for clip in pair.target_clips()],
        )

    def original(self, clip: ClipInput) -> ClipInput:
        """The clip that a copy was made of; one that the experiment made is its own."""
        return self._originals.get(clip, clip)

    def has_copy_of(self, clip: ClipInput) -> bool:
        """Whether the experiment was given a copy of this clip, rather than made it."""
        return clip in self._copies

    def changed(self) -> str:
        """Which tensor of a clip was changed in place; "" for none."""
        for clip, versions in self._versions.items():
            for name, tensor, version in zip(NAMES, _tensors(clip), versions, strict=True):
                if tensor._version != version:
                    return f"{name} of {self._names[clip]}"
        return ""

    def _copy(self, clip: ClipInput, name: str) -> ClipInput:
        if clip not in self._copies:
            with torch.inference_mode(False):  # an inference tensor does not count its changes
                copy = ClipInput(*(tensor.clone() for tensor in _tensors(clip)))
            self._copies[clip], self._originals[copy], self._names[copy] = copy, clip, name
            self._versions[copy] = [tensor._version for tensor in _tensors(copy)]
        return self._copies[clip]


def _tensors(clip: ClipInput) -> list[torch.Tensor]:
    return [getattr(clip, name) for name in NAMES]
