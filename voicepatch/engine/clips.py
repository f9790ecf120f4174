"""The clips that are held in memory, with their frames, inputs and answers.

    store = ClipStore(asked, engine, limit=2 << 30)
    with store.for_pairs(pairs):                # what is needed when
        for pair in pairs:
            store.get(pair.a)                 # decoded and encoded on first use
            store.done(pair)

A clip is decoded, encoded and recorded once, unless memory forces it out before its last pair; then it is made again.
Its frames, which are small, stay for the next experiment.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from voicepatch.engine.asked import Asked
from voicepatch.engine.engine import Engine
from voicepatch.engine.memory import free_memory
from voicepatch.engine.sounds import Sounds
from voicepatch.models.speech_lm import ClipInput, join
from voicepatch.types.clip import Clip
from voicepatch.types.pair import Pair


@dataclass(frozen=True)
class Answer:
    """A restricted readout: `logits [rows, labels]` in the labels' order, and their probability mass `[rows]`."""

    logits: torch.Tensor
    mass: torch.Tensor


def restrict(logits: torch.Tensor, label_ids: list[int]) -> Answer:
    """Full readouts `[rows, vocabulary]`, restricted to the labels, on the CPU."""
    of_labels = logits[:, label_ids]
    mass = (of_labels.logsumexp(1) - logits.logsumexp(1)).exp()
    return Answer(of_labels.cpu(), mass.cpu())


def answer(asked: Sequence[Asked], readouts: Sequence[torch.Tensor]) -> Answer:
    """The answer in full readouts `[rows, vocabulary]`, one for each prompt of a task.

    Of several prompts, which offer the options in several orders, the log-probabilities of the labels are averaged, as
    are the masses.
    """
    found = [restrict(logits, one.labels.token_ids) for logits, one in zip(readouts, asked, strict=True)]
    if len(found) == 1:
        return found[0]
    logits = torch.stack([one.logits.double().log_softmax(1) for one in found]).mean(0)
    return Answer(logits, torch.stack([one.mass for one in found]).mean(0))


class ClipStore:
    """Clips by id, with their inputs, their unpatched runs (held by `engine`) and their answers.

    `asked` are the prompts of the task, one or one for each order of its options. `limit` bounds the bytes held between
    pairs, on the model's devices; the default is half of what is free there. When they are over it, frames that no
    coming pair needs go first, then the clip whose next pair is furthest away. Outside `for_pairs`, all of it stays up
    to the limit. `sounds` are those of a store with the same model.
    """

    def __init__(self, asked: Sequence[Asked], engine: Engine, limit: int | None = None, sounds: Sounds | None = None):
        self._asked, self._engine = asked, engine
        self.limit = self._half_of_free() if limit is None else limit
        self.sounds = sounds or Sounds(asked[0].model)
        self._inputs: dict[str, list[ClipInput]] = {}
        self._paths: dict[str, Path] = {}
        self._answers: dict[str, Answer] = {}
        self._needed: dict[str, deque[int]] | None = None

    def _half_of_free(self) -> int:
        """Bytes; recordings are spread as the blocks are, about as many on each device."""
        devices = self._engine.devices
        return len(devices) * min(map(free_memory, devices)) // 2

    @contextmanager
    def for_pairs(self, pairs: Sequence[Pair]) -> Iterator[None]:
        """Within it, clips are prepared ahead in the order of `pairs`, and dropped after their last pair."""
        self._needed = {}
        for number, pair in enumerate(pairs):
            for clip_id in {pair.a.clip_id, pair.b.clip_id}:
                self._needed.setdefault(clip_id, deque()).append(number)
        try:
            with self.prefetching(clip for pair in pairs for clip in (pair.a, pair.b)):
                yield
        finally:
            self._needed = None

    def prefetching(self, clips: Iterable[Clip]) -> AbstractContextManager[None]:
        """Within it, `clips` are prepared in this order before they are needed."""
        return self.sounds.prefetching(clips)

    def done(self, pair: Pair) -> None:
        """`pair` is finished: drop what no later pair needs, and what exceeds the limit."""
        needed = self._needed or {}
        for clip_id in {pair.a.clip_id, pair.b.clip_id}:
            needed[clip_id].popleft()
            if not needed[clip_id]:
                del needed[clip_id]
        for clip_id in [clip_id for clip_id in self._inputs if clip_id not in needed]:
            self._drop(clip_id)
        self.make_room()

    def make_room(self) -> None:
        """Drop until the rest is within the limit: frames that are not needed, then the clips that are needed last."""
        needed = {self._paths[clip_id] for clip_id in self._inputs}
        for path in [path for path in self.sounds.held if path not in needed]:
            if self.nbytes <= self.limit:
                return
            self.sounds.forget(path)
        for clip_id in sorted(self._inputs, key=self._next_use, reverse=True):
            if self.nbytes <= self.limit:
                return
            path = self._paths[clip_id]
            self._drop(clip_id)
            self.sounds.forget(path)

    @property
    def nbytes(self) -> int:
        """Bytes held at the moment."""
        runs = (i.inputs_embeds.nbytes + self._engine.nbytes(i) for inputs in self._inputs.values() for i in inputs)
        return sum(runs) + self.sounds.nbytes

    def _next_use(self, clip_id: str) -> float:
        return self._needed[clip_id][0] if self._needed and clip_id in self._needed else math.inf

    def _drop(self, clip_id: str) -> None:
        for held in (self._inputs, self._answers, self._paths):
            held.pop(clip_id, None)

    def frames(self, clip: Clip) -> torch.Tensor:
        """The clip's audio frames `[n_audio, hidden]`."""
        return self.sounds.frames(clip)

    def seconds(self, clip: Clip) -> float:
        """Length of the sound, after resampling."""
        return self.sounds.seconds(clip)

    def get(self, clip: Clip, n_audio: int | None = None, order: int = 0) -> ClipInput:
        """The clip as the decoder reads it; with `n_audio`, only that many of its first frames.

        `order` is the number of the prompt, where the task has several orders of its options.
        """
        if n_audio is not None:
            return self._join(self._asked[order], self.frames(clip)[:n_audio])
        return self._inputs_of(clip)[order]

    def _inputs_of(self, clip: Clip) -> list[ClipInput]:
        """The clip in each of the prompts."""
        if self._paths.get(clip.clip_id) != clip.path:  # not held, or of another data set
            self._drop(clip.clip_id)
            self._inputs[clip.clip_id] = [self._join(asked, self.frames(clip)) for asked in self._asked]
            self._paths[clip.clip_id] = clip.path
        return self._inputs[clip.clip_id]

    def _join(self, asked: Asked, frames: torch.Tensor) -> ClipInput:
        with torch.inference_mode():
            return join(asked.model, frames)

    def unpatched(self, clip: Clip) -> Answer:
        """The model's own answer to the clip, `rows` = 1."""
        inputs = self._inputs_of(clip)
        if clip.clip_id not in self._answers:
            self._answers[clip.clip_id] = answer(self._asked, [self._engine.record(one).logits for one in inputs])
        return self._answers[clip.clip_id]
