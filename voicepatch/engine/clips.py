"""The clips that are held in memory, with their frames, inputs and answers.

    store = ClipStore(model, engine, label_ids, limit=2 << 30)
    with store.for_pairs(pairs):                # what is needed when
        for pair in pairs:
            store.get(pair.a)                 # decoded and encoded on first use
            store.done(pair)

A clip is decoded, encoded and recorded once, unless memory forces it out before its last pair; then it is made again.
Its frames, which are small, stay for the next experiment.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from voicepatch.audio.cache import read_sound
from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.audio.limits import MAX_SECONDS
from voicepatch.engine.engine import Engine
from voicepatch.engine.failures import BadClip
from voicepatch.engine.memory import free_memory
from voicepatch.errors import UserError
from voicepatch.file_hashes import file_hash
from voicepatch.models.speech_lm import ClipInput, SpeechLM, join
from voicepatch.text import escape
from voicepatch.types.clip import Clip
from voicepatch.types.pair import Pair

N_PREFETCHED = 4  # clips that are prepared while the decoder is busy with others


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


@dataclass(frozen=True)
class Sound:
    """A clip as far as it can be prepared ahead, and how many samples at 16 kHz it has.

    `encode()` gives its audio frames `[n_audio, hidden]`. On the processor that has been done already: the encoder's
    large products fill what the decoder's small ones leave idle. A GPU works on one thing at a time.
    """

    encode: Callable[[], torch.Tensor]
    n_samples: int


class ClipStore:
    """Clips by id, with their inputs, their unpatched runs (held by `engine`) and their answers; frames by their file.

    `limit` bounds the bytes held between pairs, on the model's device; the default is half of what is free there. When
    they are over it, frames that no coming pair needs go first, then the clip whose next pair is furthest away. Outside
    `for_pairs`, all of it stays up to the limit. A file in `hashes` must have that sha256 when it is decoded, and one
    that has None there is a bad clip, as is one longer than `max_seconds`.
    """

    def __init__(self, model: SpeechLM, engine: Engine, label_ids: list[int], limit: int | None = None):
        self._model, self._engine, self._label_ids = model, engine, label_ids
        self.limit = free_memory(model.llm.device) // 2 if limit is None else limit
        self.hashes: Mapping[Path, str | None] = {}
        self.max_seconds: float = MAX_SECONDS
        self._inputs: dict[str, ClipInput] = {}
        self._frames: dict[Path, torch.Tensor] = {}
        self._n_samples: dict[Path, int] = {}
        self._paths: dict[str, Path] = {}
        self._answers: dict[str, Answer] = {}
        self._needed: dict[str, deque[int]] | None = None
        self._prefetcher = _Prefetcher(self._sound)

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
        return self._prefetcher.of(self._coming(clips))

    def _coming(self, clips: Iterable[Clip]) -> Iterator[Clip]:
        seen = set()
        for clip in clips:
            if clip.clip_id not in seen and clip.path not in self._frames:
                yield clip
            seen.add(clip.clip_id)

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
        for path in [path for path in self._frames if path not in needed]:
            if self.nbytes <= self.limit:
                return
            self._forget_frames(path)
        for clip_id in sorted(self._inputs, key=self._next_use, reverse=True):
            if self.nbytes <= self.limit:
                return
            path = self._paths[clip_id]
            self._drop(clip_id)
            self._forget_frames(path)

    @property
    def nbytes(self) -> int:
        """Bytes held at the moment."""
        runs = (i.inputs_embeds.nbytes + self._engine.nbytes(i) for i in self._inputs.values())
        return sum(runs) + sum(frames.nbytes for frames in self._frames.values())

    def _next_use(self, clip_id: str) -> float:
        return self._needed[clip_id][0] if self._needed and clip_id in self._needed else math.inf

    def _drop(self, clip_id: str) -> None:
        for held in (self._inputs, self._answers, self._paths):
            held.pop(clip_id, None)

    def _forget_frames(self, path: Path) -> None:
        for held in (self._frames, self._n_samples):
            held.pop(path, None)

    def _sound(self, clip: Clip) -> Sound:
        try:
            if self.hashes.get(clip.path, "") is None:
                raise UserError(f"{clip.path}: could not be read when the run began; put the file back")
            sound = read_sound(clip.path, self.max_seconds)
        except UserError as error:
            self._check_unchanged(clip)
            raise BadClip(clip, error) from None
        self._check_unchanged(clip, sound.sha256)
        assert sound.waveform is not None  # `read_sound` gives sounds with their waveforms
        waveform = sound.waveform.copy()  # the tensor that is made of it must be writable
        encode = partial(self._encode, self._model.features(waveform))
        if self._model.llm.device.type == "cpu":
            frames = encode()
            return Sound(lambda: frames, len(waveform))
        return Sound(encode, len(waveform))

    def _check_unchanged(self, clip: Clip, found: str | None = None) -> None:
        """Whether the bytes that were decoded, of hash `found`, are those of the data's hash; an error ends a run.

        The file's own hash is taken where nothing could be decoded.
        """
        expected = self.hashes.get(clip.path)
        if expected in (None, found):
            return
        with suppress(OSError):
            if not found and expected == file_hash(clip.path):
                return
        raise UserError(
            f"{clip.path}: has changed since the run began (clip {escape(clip.clip_id)}); what was computed is kept: "
            "put the file back and start the same command again, or pass another --out"
        )

    def _encode(self, features: Any) -> torch.Tensor:
        with torch.inference_mode():  # of its own: the mode is the thread's
            return self._model.encode(features)

    def frames(self, clip: Clip) -> torch.Tensor:
        """The clip's audio frames `[n_audio, hidden]`."""
        if clip.path not in self._frames:
            sound = self._prefetcher.get(clip)
            self._frames[clip.path], self._n_samples[clip.path] = sound.encode(), sound.n_samples
        return self._frames[clip.path]

    def get(self, clip: Clip, n_audio: int | None = None) -> ClipInput:
        """The clip as the decoder reads it; with `n_audio`, only that many of its first frames."""
        if n_audio is not None:
            return self._join(self.frames(clip)[:n_audio])
        if self._paths.get(clip.clip_id) != clip.path:  # not held, or of another data set
            self._drop(clip.clip_id)
            self._inputs[clip.clip_id], self._paths[clip.clip_id] = self._join(self.frames(clip)), clip.path
        return self._inputs[clip.clip_id]

    def _join(self, frames: torch.Tensor) -> ClipInput:
        with torch.inference_mode():
            return join(self._model, frames)

    def seconds(self, clip: Clip) -> float:
        """Length of the sound, after resampling."""
        self.frames(clip)
        return self._n_samples[clip.path] / SAMPLE_RATE

    def unpatched(self, clip: Clip) -> Answer:
        """The model's own answer to the clip, `rows` = 1."""
        inputs = self.get(clip)
        if clip.clip_id not in self._answers:
            self._answers[clip.clip_id] = restrict(self._engine.record(inputs).logits, self._label_ids)
        return self._answers[clip.clip_id]


class _Prefetcher:
    """Sounds prepared in a thread, a few clips before the decoder asks for them.

    An error is raised where the clip is asked for, not where it happened.
    """

    def __init__(self, load: Callable[[Clip], Sound]):
        self._load = load
        self._pool: ThreadPoolExecutor | None = None
        self._coming: Iterator[Clip] = iter(())
        self._futures: dict[str, Future[Sound]] = {}

    @contextmanager
    def of(self, clips: Iterator[Clip]) -> Iterator[None]:
        """Inside, `clips` are read in this order, up to `N_PREFETCHED` of them before they are asked for."""
        self._coming = clips
        # As many threads of arithmetic as here: another number would round another way.
        as_here = partial(torch.set_num_threads, torch.get_num_threads())
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sound", initializer=as_here)
        self._fill()
        try:
            yield
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool, self._coming = None, iter(())
            self._futures.clear()

    def get(self, clip: Clip) -> Sound:
        """The clip's sound, read now unless it has been read ahead."""
        future = self._futures.pop(clip.clip_id, None)
        self._fill()
        return future.result() if future else self._load(clip)

    def _fill(self) -> None:
        if self._pool:
            for clip in itertools.islice(self._coming, N_PREFETCHED - len(self._futures)):
                self._futures[clip.clip_id] = self._pool.submit(self._load, clip)
