"""A sound file as the 16 kHz mono that the model hears: all of it, or a refusal.

    waveform = read_audio(Path("clip.flac"))     # float32 [samples]
    is_silent(waveform)

libsndfile gives what it finds of a file that was cut short, and makes room for what a header claims. Here a file is
read in blocks, so memory follows what is there, and each container's own word on its length is held against it. That
libsndfile does not do, nor a reader of tags; one promise needs one look at the file:

FLAC: frames lost in its midst leave another MD5 sum than the header's.
Ogg: an end that was cut off, or a page lost in its midst, is a gap in the numbers of the pages.
WAV: a length beyond the end of the file is corrected without a word, but in libsndfile's log.
MP3: a length that is no header's is an estimate, which refuses nothing; what goes on after the length is seen.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from errors import UserError

SAMPLE_RATE = 16_000
MIN_SAMPLES = 400  # one analysis window of the mel; the encoder makes no position of less
MAX_SECONDS = 3600
MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_LEVEL = 100.0  # of full scale: no recording, but integers saved as floats
SILENCE = 1e-4  # -80 dB of full scale, three steps of 16 bits: dither and a codec's noise stay below
CONTAINERS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")
BLOCK = 2**20  # values decoded at once
UNKNOWN_LENGTH = 0x7FFF0000  # what a WAV writer puts that cannot know it, as into a pipe: this or more
MP3_FRAME = 1152  # encoders differ in whether they count the first, which holds no sound


def read_audio(path: Path) -> np.ndarray:
    """A sound file of any rate and channel count as 16 kHz mono float32 `[samples]`.

    Channels are averaged, then resampled. Raises `UserError` for what is not WAV, FLAC, Ogg or MP3, or is broken or cut
    short, and for a file that is empty, shorter than 25 ms or longer than an hour, or holds values that are not finite
    or far beyond full scale.
    """
    if not os.path.isfile(path):  # before it is opened: a pipe would wait for a writer
        raise UserError(f"{path}: not a readable sound file (there is no such file); check the path")
    try:
        # Unbuffered and by its number, so that both read at one place: where decoding ended is asked below.
        with (
            open(path, "rb", buffering=0) as file,
            soundfile.SoundFile(file.fileno(), closefd=False) as sound,
        ):
            _check_claims(path, sound)
            waveform, n_frames = _decode(sound)
            damage = _damage(file, sound, n_frames)
    except (soundfile.SoundFileError, OSError) as error:
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
        raise UserError(
            f"{path}: not a readable sound file ({str(reason).rstrip('.')}); "
            "copy it again, or convert it to wav, flac, ogg, opus or mp3"
        ) from None
    if damage:
        raise UserError(f"{path}: {damage}; copy or convert it again, or leave the clip out")
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
    """How long a sound lasts by its header; 0 for one that cannot be read."""
    try:
        return soundfile.info(path).duration
    except (soundfile.SoundFileError, OSError):
        return 0.0


def is_silent(waveform: np.ndarray) -> bool:
    """Whether the samples, at least one, stay within -80 dB of full scale around a constant: no recording is as quiet.

    A microphone that was off, channels that cancel in the mix, or a file of zeros.
    """
    return bool(np.ptp(waveform) < 2 * SILENCE)


def _check_claims(path: Path, sound: soundfile.SoundFile) -> None:
    if sound.format not in CONTAINERS:
        raise UserError(f"{path}: is {sound.format_info}; convert it to wav, flac, ogg, opus or mp3")
    if not MIN_RATE <= sound.samplerate <= MAX_RATE:
        raise UserError(
            f"{path}: claims a rate of {sound.samplerate} Hz, but {MIN_RATE} to {MAX_RATE} can be read; "
            "convert it again"
        )
    if sound.frames > MAX_SECONDS * sound.samplerate:
        raise UserError(
            f"{path}: is longer than an hour by its header, or does not say how long; cut it, or convert it again"
        )


def _decode(sound: soundfile.SoundFile) -> tuple[np.ndarray, int]:
    """Mono at 16 kHz, and how many frames there were at the file's own rate."""
    stream = None
    if sound.samplerate != SAMPLE_RATE:
        stream = soxr.ResampleStream(sound.samplerate, SAMPLE_RATE, num_channels=1, dtype="float32")
    parts = []
    n_frames = 0
    with np.errstate(all="ignore"):  # what is not finite is refused afterwards
        while len(block := sound.read(max(1, BLOCK // sound.channels), "float32", always_2d=True)):
            n_frames += len(block)
            mono = block.mean(axis=1)
            parts.append(stream.resample_chunk(mono) if stream else mono)
        if stream:
            parts.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    return (np.concatenate(parts) if parts else np.zeros(0, np.float32)), n_frames


def _damage(file: BinaryIO, sound: soundfile.SoundFile, n_frames: int) -> str | None:
    """What the container says that the `n_frames` decoded do not bear out, or None."""
    # Asked first: for an MP3 the file now stands where decoding ended.
    if sound.format == "MP3":
        after = file.read(2)
        if len(after) == 2 and after[0] == 0xFF and after[1] >= 0xE0:
            return "goes on after the length that its header gives"
        if not _mp3_says_its_length(file):
            return None
    allowed = MP3_FRAME if sound.format == "MP3" else 0
    if n_frames < sound.frames - allowed:
        return f"is cut short: {n_frames / sound.samplerate:.2f} of {sound.frames / sound.samplerate:.2f} s are there"
    if sound.format in ("WAV", "WAVEX", "RF64"):
        return _wav_damage(sound)
    if sound.format == "FLAC" and not _flac_is_whole(file, sound):
        return "is damaged: the sound does not have the MD5 sum that its header gives"
    if sound.format == "OGG" and not _ogg_is_whole(file):
        return "is cut short or has a gap: a page is missing"
    return None


def _wav_damage(sound: soundfile.SoundFile) -> str | None:
    # libsndfile corrects a length beyond the end of the file, and says so in its log alone.
    claim = re.search(r"^data : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    if claim and int(claim[1]) < UNKNOWN_LENGTH:
        return f"is cut short: its header announces {claim[1]} bytes of sound, and {claim[2]} are there"
    if "does not match value from 'ds64'" in sound.extra_info:
        return "is cut short: its header announces more sound than is there"
    return None


def _flac_is_whole(file: BinaryIO, sound: soundfile.SoundFile) -> bool:
    """Decode once more and compare with the MD5 sum of the header, where it has one (RFC 9639, section 8.2)."""
    position = file.tell()
    file.seek(0)
    header = file.read(42)
    file.seek(position)
    if header[:4] != b"fLaC" or not any(header[26:42]):
        return True
    bits = (int.from_bytes(header[20:22], "big") >> 4 & 31) + 1
    digest = hashlib.md5(usedforsecurity=False)
    sound.seek(0)
    while len(block := sound.read(max(1, BLOCK // sound.channels), "int32", always_2d=True)):
        values = (block >> (32 - bits)).astype("<i4")  # soundfile gives samples at the upper end
        digest.update(values.reshape(-1, 1).view(np.uint8)[:, : -(-bits // 8)].tobytes())
    return digest.digest() == header[26:42]


def _ogg_is_whole(file: BinaryIO) -> bool:
    """Whether the pages of each stream are numbered without a gap, and end with one marked so (RFC 3533, section 6)."""
    file.seek(0)
    last_of: dict[bytes, int] = {}
    is_open: dict[bytes, bool] = {}
    while len(header := file.read(27)) == 27 and header[:4] == b"OggS":
        stream, number = header[14:18], int.from_bytes(header[18:22], "little")
        sizes = file.read(header[26])
        if last_of.get(stream, number - 1) != number - 1 or len(file.read(sum(sizes))) < sum(sizes):
            return False
        last_of[stream], is_open[stream] = number, not header[5] & 4
    return not any(is_open.values())


def _mp3_says_its_length(file: BinaryIO) -> bool:
    """Whether the first frame is a Xing, Info or VBRI header; without one the length is an estimate."""
    file.seek(0)
    tag = file.read(10)
    if tag[:3] == b"ID3":
        file.seek(
            sum((byte & 127) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=False)), os.SEEK_CUR
        )
    else:
        file.seek(0)
    first = file.read(2048)
    return any(name in first for name in (b"Xing", b"Info", b"VBRI"))
