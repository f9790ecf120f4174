"""A sound file as the 16 kHz mono that a model is given: all of it, or a refusal.

    waveform = read_audio(Path("clip.flac"))     # float32 [samples]
    is_silent(waveform)

libsndfile gives what it finds of a file that was cut short, stops at the end of the first of two joined sounds, and
makes room for what a header claims. Here a file is decoded in blocks, so memory follows what is there, and two promises
hold for every container. What the decoder left unread is known not to be sound. No more is decoded than asked for.

libsndfile does not compare a sound with what its container says of it. One promise needs one look at the file:

FLAC: frames that are lost in the middle leave another MD5 sum than the header's.
Ogg: an end that was cut off, or a page that is lost in the middle, is a gap in the numbers of the pages.
WAV: a length beyond the end of the file is corrected silently, except in libsndfile's log.
MP3: a length that no header gives is an estimate, which is not compared with anything.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from errors import UserError
from files import open_regular
from models.limits import MAX_SECONDS

SAMPLE_RATE = 16_000
MIN_SAMPLES = 400  # one analysis window of the mel; the encoder makes no position of less
MAX_BYTES = 2**30  # a file is held in memory while it is decoded
MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_LEVEL = 100.0  # of full scale: no recording, but integers saved as floats
SILENCE = 1e-4  # -80 dB of full scale, three steps of 16 bits: dither and a codec's noise stay below
CONTAINERS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")
RIFF = CONTAINERS[:3]
BLOCK = 2**20  # values decoded at once
STEP = 64  # bytes at once for decoders that read ahead; fewer than these hold no sound with its header
NO_LENGTH = 2**62  # frames; libsndfile says more than this of a FLAC whose header has no length
UNKNOWN_LENGTH = 0x7FFF0000  # what a WAV writer puts that cannot know it, as into a pipe: this or more
MP3_FRAME_BYTES = 1441  # the longest: 320 kbit/s at 32 kHz
MP3_FRAME = 1152  # encoders differ in whether they count the first, which holds no sound


def read_audio(path: Path, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """A sound file of any rate and channel count as 16 kHz mono float32 `[samples]`.

    Channels are averaged, then resampled. Raises `UserError` for what is not WAV, FLAC, Ogg or MP3, is broken, cut
    short, or goes on after the sound that is decoded, and for a file that is empty, shorter than 25 ms or longer than
    `max_seconds`, or holds values that are not finite or far beyond full scale.
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

    def readinto(self, buffer: object) -> int:
        return super().readinto(memoryview(buffer)[: self.step])


def decode(content: bytes, path: Path, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """`read_audio` of a file's bytes; `path` is named in errors."""
    file = _Content(content)
    try:
        with soundfile.SoundFile(file) as sound:
            _check_claims(path, sound, max_seconds)
            if sound.format in ("FLAC", "OGG"):
                file.step = STEP
            bits, md5 = _flac_sum(content) if sound.format == "FLAC" else (0, None)
            waveform, n_frames, digest = _decode(sound, bits if md5 else 0)
            damage = _damage(content, sound, n_frames, digest == md5) or _unread(content, file.tell(), sound, n_frames)
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", None) or error).rstrip(".")
        raise UserError(
            f"{path}: not a readable sound file ({reason}); copy it again, or convert it to wav, flac, ogg, opus or mp3"
        ) from None
    if damage:
        raise UserError(f"{path}: {damage}, or leave the clip out")
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
        raise UserError(f"{path}: does not say how long it is; convert it again")
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
    with np.errstate(all="ignore"):  # what is not finite is refused afterwards
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


def _damage(content: bytes, sound: soundfile.SoundFile, n_frames: int, same_sum: bool) -> str | None:
    """How the `n_frames` decoded differ from what the container says of them, and what to do; None if they do not."""
    again = "; copy or convert it again"
    is_mpeg = sound.subtype.startswith("MPEG_LAYER")
    is_estimate = is_mpeg and not _mp3_says_its_length(content)
    if not is_estimate and n_frames < sound.frames - (MP3_FRAME if is_mpeg else 0):
        there, claimed = n_frames / sound.samplerate, sound.frames / sound.samplerate
        return f"is cut short: {there:.2f} of {claimed:.2f} s are there{again}"
    if sound.format in RIFF and (damage := _wav_damage(sound)):
        return damage + again
    if not same_sum:
        return f"is damaged: the sound does not have the MD5 sum that its header gives{again}"
    if sound.format == "OGG" and not _ogg_is_whole(io.BytesIO(content)):
        return f"is cut short or has a gap: a page is missing{again}"
    return None


def _unread(content: bytes, position: int, sound: soundfile.SoundFile, n_frames: int) -> str | None:
    """What follows the place where decoding ended, and what to do; None for nothing, zeros, tags and a WAV's chunks."""
    if sound.format in RIFF:
        position = _after_chunks(content, position)
    end = len(content) - 128 if content[-128:-125] == b"TAG" else len(content)  # ID3v1
    if content[end - 32 : end - 24] == b"APETAGEX":
        has_header = content[end - 9] & 128
        end -= int.from_bytes(content[end - 20 : end - 16], "little") + (32 if has_header else 0)
    # A decoder that reads ahead may stand within a tag, or within zeros.
    rest = content[position : max(0, end)].rstrip(b"\0")
    left = len(rest)
    if left <= STEP or (sound.subtype.startswith("MPEG_LAYER") and _is_mp3_padding(rest, content)):
        return None
    why = "another sound is joined to it, or the length in its header is wrong"
    if not n_frames:
        why = "the length in its header is 0, as where it was written into a pipe"
    return (
        f"goes on after {n_frames / sound.samplerate:.2f} s of sound: {left} bytes are left ({why}); "
        "write it again with `ffmpeg -i IN OUT.wav`"
    )


def _is_mp3_padding(rest: bytes, content: bytes) -> bool:
    """Whether this is one frame beyond the length in the header, as encoders add it; one alone is not recognised."""
    is_frame = len(rest) <= MP3_FRAME_BYTES and rest[0] == 0xFF and rest[1] >= 0xE0
    return is_frame and _mp3_says_its_length(content) and not _opens(rest)


def _opens(content: bytes) -> bool:
    try:
        soundfile.info(io.BytesIO(content))
    except soundfile.SoundFileError:
        return False
    return True


def _after_chunks(content: bytes, position: int) -> int:
    """The end of the RIFF chunks, such as LIST and id3, that follow the sound."""
    order = "big" if content[:4] == b"RIFX" else "little"
    while True:
        start = position + (content[position : position + 1] == b"\0")  # a chunk of odd length is padded
        name, size = content[start : start + 4], int.from_bytes(content[start + 4 : start + 8], order)
        end = start + 8 + size
        is_chunk = len(name) == 4 and all(32 <= byte < 127 for byte in name) and end <= len(content)
        if not is_chunk or name in (b"RIFF", b"RIFX", b"RF64", b"data", b"fLaC", b"OggS"):
            return position
        position = end


def _wav_damage(sound: soundfile.SoundFile) -> str | None:
    # libsndfile corrects a length beyond the end of the file, and says so in its log alone.
    claim = re.search(r"^data : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    if claim and int(claim[1]) < UNKNOWN_LENGTH:
        return f"is cut short: its header announces {claim[1]} bytes of sound, and {claim[2]} are there"
    if "does not match value from 'ds64'" in sound.extra_info:
        return "is cut short: its header announces more sound than is there"
    return None


def _flac_sum(content: bytes) -> tuple[int, bytes | None]:
    """Bits of a sample and the MD5 sum of all samples by the header; None where the header has none (RFC 9639)."""
    header = content[content.find(b"fLaC") :][:42]
    return (int.from_bytes(header[20:22], "big") >> 4 & 31) + 1, header[26:42] if any(header[26:42]) else None


def _ogg_is_whole(file: BinaryIO) -> bool:
    """Whether the pages of each stream are numbered without a gap, and end with one marked so (RFC 3533, section 6)."""
    last_of: dict[bytes, int] = {}
    is_open: dict[bytes, bool] = {}
    while len(header := file.read(27)) == 27 and header[:4] == b"OggS":
        stream, number = header[14:18], int.from_bytes(header[18:22], "little")
        sizes = file.read(header[26])
        if last_of.get(stream, number - 1) != number - 1 or len(file.read(sum(sizes))) < sum(sizes):
            return False
        last_of[stream], is_open[stream] = number, not header[5] & 4
    return not any(is_open.values())


def _mp3_says_its_length(content: bytes) -> bool:
    """Whether the first frame is a Xing, Info or VBRI header; without one the length is an estimate."""
    start = 0
    if content[:3] == b"ID3":
        start = 10 + sum((byte & 127) << shift for byte, shift in zip(content[6:10], (21, 14, 7, 0), strict=False))
    first = content[start : start + 2048]
    return any(name in first for name in (b"Xing", b"Info", b"VBRI"))
