"""The sounds of clips, each decoded once in a process as far as memory allows.

    read_sound(clip.path).waveform      # float32 [samples], 16 kHz mono, not to be written to
    sound_facts(clip.path).is_silent    # known without decoding again when the waveform has been dropped

The checks, the model, the report's players and the levels of a timeline all read sounds here.
"""

import io
from collections import OrderedDict
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from threading import Lock

import numpy as np

from voicepatch.audio.decode import SAMPLE_RATE, decode, is_silent, open_sound
from voicepatch.file_hashes import Stamp, content_hash, is_settled, stamp_of

LIMIT = 2**28  # bytes of waveforms; 70 minutes of sound


@dataclass(frozen=True)
class DecodedSound:
    """One decoded file. `sha256` is that of the bytes that were decoded; `waveform` is None once it was dropped."""

    waveform: np.ndarray | None
    n_samples: int
    is_silent: bool
    sha256: str
    stamp: Stamp

    @property
    def nbytes(self) -> int:
        """Bytes of the waveform, in float32."""
        return 4 * self.n_samples


class SoundCache:
    """Decoded files by path, with the most recently used waveforms, up to `limit` bytes.

    A file that has changed is decoded again, and so is one that could not be decoded.
    """

    def __init__(self, limit: int = LIMIT):
        self.limit = limit
        self._sounds: OrderedDict[Path, DecodedSound] = OrderedDict()  # with waveforms, the least recently used first
        self._facts: dict[Path, DecodedSound] = {}  # without
        self._nbytes = 0
        self._lock = Lock()

    def read(self, path: Path, max_seconds: float = inf) -> DecodedSound:
        """The sound of a file, with its waveform; `UserError` as of `read_audio`."""
        return self._get(path, max_seconds, with_waveform=True)

    def facts(self, path: Path, max_seconds: float = inf) -> DecodedSound:
        """The sound of a file, whose waveform may be None; `UserError` as of `read_audio`."""
        return self._get(path, max_seconds, with_waveform=False)

    def _get(self, path: Path, max_seconds: float, with_waveform: bool) -> DecodedSound:
        with open_sound(path) as file:
            stamp = stamp_of(file)
            with self._lock:
                sound = self._sounds.get(path) or (None if with_waveform else self._facts.get(path))
                if sound and sound.stamp == stamp and sound.n_samples <= max_seconds * SAMPLE_RATE:
                    if sound.waveform is not None:
                        self._sounds.move_to_end(path)
                    return sound
            content = file.read()
            sha256 = content_hash(stamp_of(file), io.BytesIO(content))
        waveform = decode(content, path, max_seconds)
        waveform.flags.writeable = False
        sound = DecodedSound(waveform, len(waveform), is_silent(waveform), sha256, stamp)
        if is_settled(stamp):
            with self._lock:
                self._keep(path, sound)
        return sound

    def _keep(self, path: Path, sound: DecodedSound) -> None:
        if before := self._sounds.pop(path, None):
            self._nbytes -= before.nbytes
        self._facts[path] = replace(sound, waveform=None)
        self._sounds[path] = sound
        self._nbytes += sound.nbytes
        while self._nbytes > self.limit:
            _, oldest = self._sounds.popitem(last=False)
            self._nbytes -= oldest.nbytes


_cache = SoundCache()
read_sound, sound_facts = _cache.read, _cache.facts
