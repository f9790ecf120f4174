"""A comparison of the sound that a file's container announces with the sound that was decoded.

    if found := fault(content, file.tell(), sound, n_frames, digest): raise UserError(f"{path}: {found}")

libsndfile stops at the end of the first of two joined sounds, so bytes after the decoded sound must be known not to be
sound. It does not compare the decoded sound with the container either, so that is done here:

FLAC: missing frames in the middle change the MD5 sum, which the header gives.
Ogg: a missing end or page is a gap in the numbers of the pages.
WAV: libsndfile corrects a length that exceeds the file, and reports it only in its log.
MP3: a length that no header gives is an estimate, which is not compared with anything.
"""

import io
import re
from contextlib import suppress
from typing import BinaryIO, Literal

import soundfile

RIFF = ("WAV", "WAVEX", "RF64")
STEP = 64  # bytes at once for decoders that read ahead; fewer than these hold no sound with its header
UNKNOWN_LENGTH = 0x7FFF0000  # what a WAV writer puts that cannot know it, as into a pipe: this or more
MP3_FRAME_BYTES = 1441  # the longest: 320 kbit/s at 32 kHz
MP3_FRAME = 1152  # encoders differ in whether they count the first, which holds no sound


def fault(content: bytes, position: int, sound: soundfile.SoundFile, n_frames: int, digest: bytes | None) -> str | None:
    """Why a file of these bytes cannot be used, and what to do; None where all of it was decoded.

    The decoder gave `n_frames` whose MD5 sum, of a FLAC that has one in its header, is `digest`, and ended at
    `position`.
    """
    damage = _damage(content, sound, n_frames, digest)
    return f"{damage}; copy or convert it again" if damage else _unread(content, position, sound, n_frames)


def _damage(content: bytes, sound: soundfile.SoundFile, n_frames: int, digest: bytes | None) -> str | None:
    """How the `n_frames` decoded differ from the container's header; None if they do not."""
    is_mpeg = sound.subtype.startswith("MPEG_LAYER")
    is_estimate = is_mpeg and not _mp3_says_its_length(content)
    if not is_estimate and n_frames < sound.frames - (MP3_FRAME if is_mpeg else 0):
        there, claimed = n_frames / sound.samplerate, sound.frames / sound.samplerate
        return f"is cut short: {there:.2f} of {claimed:.2f} s are there"
    if sound.format in RIFF and (damage := _wav_damage(sound)):
        return damage
    if digest and digest != flac_sum(content)[1]:
        return "is damaged: the sound does not have the MD5 sum that its header gives"
    if sound.format == "OGG" and not _ogg_is_whole(io.BytesIO(content)):
        return "is cut short or has a gap: a page is missing"
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
    """Whether this is one frame more than the header's length, as encoders add it; a single frame is not recognised."""
    is_frame = len(rest) <= MP3_FRAME_BYTES and rest[0] == 0xFF and rest[1] >= 0xE0
    return is_frame and _mp3_says_its_length(content) and not _opens(rest)


def _opens(content: bytes) -> bool:
    with suppress(soundfile.SoundFileError):
        return bool(soundfile.info(io.BytesIO(content)))
    return False


def _after_chunks(content: bytes, position: int) -> int:
    """The end of the RIFF chunks, such as LIST and id3, that follow the sound."""
    order: Literal["big", "little"] = "big" if content[:4] == b"RIFX" else "little"
    while True:
        start = position + (content[position : position + 1] == b"\0")  # a chunk of odd length is padded
        name, size = content[start : start + 4], int.from_bytes(content[start + 4 : start + 8], order)
        end = start + 8 + size
        is_chunk = len(name) == 4 and all(32 <= byte < 127 for byte in name) and end <= len(content)
        if not is_chunk or name in (b"RIFF", b"RIFX", b"RF64", b"data", b"fLaC", b"OggS"):
            return position
        position = end


def _wav_damage(sound: soundfile.SoundFile) -> str | None:
    # libsndfile corrects a length that exceeds the file, and reports it only in its log.
    claim = re.search(r"^data : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    if claim and int(claim[1]) < UNKNOWN_LENGTH:
        return f"is cut short: its header announces {claim[1]} bytes of sound, and {claim[2]} are there"
    if "does not match value from 'ds64'" in sound.extra_info:
        return "is cut short: its header announces more sound than is there"
    return None


def flac_sum(content: bytes) -> tuple[int, bytes | None]:
    """Bits of a sample and the MD5 sum of all samples by the header; None where the header has none (RFC 9639)."""
    start = 0
    if content[:3] == b"ID3":  # its size is in four bytes of seven bits
        start = 10 + sum((byte & 127) << shift for byte, shift in zip(content[6:10], (21, 14, 7, 0), strict=True))
    header = content[content.find(b"fLaC", start) :][:42]
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
