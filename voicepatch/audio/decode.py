"""A sound file as 16 kHz mono for a model: all of it, or an error.

    waveform = read_audio(Path("clip.flac"))     # float32 [samples]
    is_silent(waveform)

libsndfile allocates the length in a header, and decodes a part of a file that was cut short or joined. Here a file is
decoded in blocks, so memory follows the sound that is there; a file that is too long by its header is not decoded; and
`voicepatch/audio/container.py` compares what was decoded with the file.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

from voicepatch.audio.container import RIFF, STEP, fault, flac_sum
from voicepatch.audio.limits import MAX_SECONDS
from voicepatch.errors import UserError
from voicepatch.files import open_regular

SAMPLE_RATE = 16_000
MIN_SAMPLES = 400  # one analysis window of the mel; the encoder makes no position of less
MAX_BYTES = 2**30  # a file is held in memory while it is decoded
MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_LEVEL = 100.0  # of full scale: no recording, but integers saved as floats
SILENCE = 1e-4  # -80 dB of full scale, three steps of 16 bits: dither and a codec's noise stay below
CONTAINERS = (*RIFF, "FLAC", "OGG", "MP3")
BLOCK = 2**20  # values decoded at once
NO_LENGTH = 2**62  # frames; libsndfile gives more than this for a FLAC whose header has no length


def read_audio(path: Path, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """A sound file of any rate and channel count as 16 kHz mono float32 `[samples]`.

    Channels are averaged, then resampled. Raises `UserError` for what is not WAV, FLAC, Ogg or MP3, is broken, cut
    short, or goes on after the sound that is decoded, and for a file that is empty, shorter than 25 ms or longer than
    `max_seconds`, or holds values that are not finite or far above full scale.
    """
    with open_sound(path) as file:
        return decode(file.read(), path, max_seconds)


@contextmanager
def open_sound(path: Path) -> Iterator[BinaryIO]:
    """A sound file open for reading; `UserError` where it cannot be opened or read, or is too large for memory."""
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise UserError(f"{path}: is larger than {MAX_BYTES >> 30} GiB; cut it, or convert it to 16 kHz mono")
            yield file
    except OSError as error:
        raise UserError(
            f"{path}: not a readable sound file ({error.strerror or error}); "
            "put the file back, or change its permissions"
        ) from None


class _Content(io.BytesIO):
    """The bytes of a file, of which a call gets at most `step`: the position then follows what is decoded."""

    step: int | None = None

    def readinto(self, buffer: Any, /) -> int:
        return super().readinto(memoryview(buffer)[: self.step])


def decode(content: bytes, path: Path, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """`read_audio` of a file's bytes; `path` is named in errors."""
    file = _Content(content)
    try:
        with soundfile.SoundFile(file) as sound:
            _check_claims(path, sound, max_seconds)
            if sound.format in ("FLAC", "OGG"):
                file.step = STEP
            bits, md5 = flac_sum(content) if sound.format == "FLAC" else (0, None)
            waveform, n_frames, digest = _decode(sound, bits if md5 else 0)
            found = fault(content, file.tell(), sound, n_frames, digest)
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", None) or error).rstrip(".")
        raise UserError(
            f"{path}: not a readable sound file ({reason}); copy it again, or convert it to wav, flac, ogg, opus or mp3"
        ) from None
    if found:
        raise UserError(f"{path}: {found}, or leave the clip out")
    if not n_frames:
        raise UserError(f"{path}: holds no sound; leave the clip out or record it again")
    if not np.isfinite(waveform).all():
        raise UserError(f"{path}: holds samples that are not finite; leave the clip out or convert it again")
    if len(waveform) < MIN_SAMPLES:
        raise UserError(f"{path}: is shorter than 25 ms; leave the clip out or record it again")
    peak = np.abs(waveform).max()
    if peak > MAX_LEVEL:
        raise UserError(f"{path}: reaches {peak:.3g} times full scale; convert it again, with samples from -1 to 1")
    return waveform


def seconds_of(path: Path) -> float:
    """How long a sound lasts by its header; 0 for one that cannot be read or has no length."""
    try:
        with open_regular(path) as file:
            sound = soundfile.info(file)
    except (soundfile.SoundFileError, OSError):
        return 0.0
    return sound.duration if sound.frames < NO_LENGTH else 0.0


def is_silent(waveform: np.ndarray) -> bool:
    """Whether the samples, at least one, stay within -80 dB of full scale around a constant: no recording is as quiet.

    A microphone that was off, channels that cancel in the mix, or a file of zeros.
    """
    return bool(np.ptp(waveform) < 2 * SILENCE)


def _check_claims(path: Path, sound: soundfile.SoundFile, max_seconds: float) -> None:
    if sound.format not in CONTAINERS:
        raise UserError(f"{path}: is {sound.format_info}; convert it to wav, flac, ogg, opus or mp3")
    if not MIN_RATE <= sound.samplerate <= MAX_RATE:
        raise UserError(
            f"{path}: claims a rate of {sound.samplerate} Hz, but {MIN_RATE} to {MAX_RATE} can be read; "
            "convert it again"
        )
    if sound.frames >= NO_LENGTH:
        raise UserError(f"{path}: has no length in its header; convert it again")
    if sound.frames > max_seconds * sound.samplerate:  # libsndfile gives no more than these, whatever there is
        raise UserError(
            f"{path}: lasts {sound.frames / sound.samplerate:.0f} s by its header, and at most {max_seconds:g} s are "
            "read; cut it, or raise --max-seconds"
        )


def _decode(sound: soundfile.SoundFile, bits: int) -> tuple[np.ndarray, int, bytes | None]:
    """Mono at 16 kHz, how many frames there were at the file's own rate, and the MD5 sum of samples of `bits` bits.

    The sum is that of RFC 9639, section 8.2; None for 0 bits.
    """
    stream, md5 = None, hashlib.md5(usedforsecurity=False)
    if sound.samplerate != SAMPLE_RATE:
        stream = soxr.ResampleStream(sound.samplerate, SAMPLE_RATE, num_channels=1, dtype="float32")
    parts = []
    n_frames, n_block = 0, max(1, BLOCK // sound.channels)
    with np.errstate(all="ignore"):  # values that are not finite are an error afterwards
        while len(block := sound.read(n_block, "int32" if bits else "float32", always_2d=True)):
            n_frames += len(block)
            if bits:  # soundfile gives samples at the upper end
                values = (block >> (32 - bits)).astype("<i4").reshape(-1, 1).view(np.uint8)
                md5.update(values[:, : -(-bits // 8)].tobytes())
                block = block.astype(np.float32) * np.float32(2.0**-31)
            mono = block.mean(axis=1)
            parts.append(stream.resample_chunk(mono) if stream else mono)
        if stream:
            parts.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    waveform = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return waveform, n_frames, md5.digest() if bits else None
