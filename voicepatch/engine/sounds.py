"""The sounds of clips, decoded and encoded once, whatever is asked about them.

sounds = Sounds(model)
with sounds.prefetching(clips):             # in the order in which they are needed
    sounds.frames(clips[0])                 # [n_audio, hidden]
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from voicepatch.engine.failures import BadClip
from voicepatch.errors import UserError
from voicepatch.file_hashes import file_hash
from voicepatch.models.speech_lm import SpeechLM
from voicepatch.text import escape
from voicepatch.types.clip import Clip

N_PREFETCHED = 4  # clips that are prepared while the decoder is busy with others


@dataclass(frozen=True)
class Sound:
    """A clip as far as it can be prepared ahead, and how many samples at 16 kHz it has.

    `encode()` gives its audio frames `[n_audio, hidden]`. On the processor that has been done already: the encoder's
    large products fill what the decoder's small ones leave idle. A GPU works on one thing at a time.
    """

    encode: Callable[[], torch.Tensor]
    n_samples: int


class Sounds:
    """Audio frames by their file.

    A file in `hashes` must have that sha256 when it is decoded, and one that has None there is a bad clip, as is one
    longer than `max_seconds`.
    """

    def __init__(self, model: SpeechLM):
        self._model = model
        self.hashes: Mapping[Path, str | None] = {}
        self.max_seconds: float = MAX_SECONDS
        self._frames: dict[Path, torch.Tensor] = {}
        self._n_samples: dict[Path, int] = {}
        self._prefetcher = _Prefetcher(self._sound)

    def prefetching(self, clips: Iterable[Clip]) -> AbstractContextManager[None]:
        """Within it, `clips` are prepared in this order before they are needed."""
        return self._prefetcher.of(self._coming(clips))

    def _coming(self, clips: Iterable[Clip]) -> Iterator[Clip]:
        seen = set()
        for clip in clips:
            if clip.clip_id not in seen and clip.path not in self._frames:
                yield clip
            seen.add(clip.clip_id)

    def frames(self, clip: Clip) -> torch.Tensor:
        """The clip's audio frames `[n_audio, hidden]`."""
        if clip.path not in self._frames:
            sound = self._prefetcher.get(clip)
            self._frames[clip.path], self._n_samples[clip.path] = sound.encode(), sound.n_samples
        return self._frames[clip.path]

    def seconds(self, clip: Clip) -> float:
        """Length of the sound, after resampling."""
        self.frames(clip)
        return self._n_samples[clip.path] / SAMPLE_RATE

    @property
    def held(self) -> list[Path]:
        """The files whose frames are held."""
        return list(self._frames)

    @property
    def nbytes(self) -> int:
        """Bytes of the frames."""
        return sum(frames.nbytes for frames in self._frames.values())

    def forget(self, path: Path) -> None:
        """Drop the frames of a file."""
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
        """Inside, `clips` are read in this order, up to `N_PREFETCHED` of them before they are asked for.

        Inside another `of`, nothing more is read ahead.
        """
        if self._pool:
            yield
            return
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
