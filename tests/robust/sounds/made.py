"""Noise, the containers that it is written into, and the line that a file ends with."""

import numpy as np
import pytest
import soundfile

from voicepatch.audio.decode import SAMPLE_RATE, read_audio
from voicepatch.errors import UserError

CONTAINERS = {  # name: format, subtype, rate
    "pcm.wav": ("WAV", "PCM_16", 16_000),
    "float.wav": ("WAV", "FLOAT", 44_100),
    "adpcm.wav": ("WAV", "IMA_ADPCM", 16_000),
    "surround.wav": ("WAVEX", "PCM_24", 48_000),
    "large.wav": ("RF64", "PCM_16", 16_000),
    "16.flac": ("FLAC", "PCM_16", 16_000),
    "24.flac": ("FLAC", "PCM_24", 44_100),
    "8.flac": ("FLAC", "PCM_S8", 16_000),
    "vorbis.ogg": ("OGG", "VORBIS", 44_100),
    "opus.opus": ("OGG", "OPUS", 48_000),
    "mpeg.mp3": ("MP3", "MPEG_LAYER_III", 16_000),
}
every_container = pytest.mark.parametrize("name", CONTAINERS)


def noise(seconds, rate=SAMPLE_RATE, channels=1, level=0.1):
    return np.clip(level * np.random.default_rng(0).standard_normal((int(seconds * rate), channels)), -1, 1)


def message(path):
    with pytest.raises(UserError) as caught:
        read_audio(path)
    assert str(caught.value).isprintable() and str(path) in str(caught.value)
    return str(caught.value)


def at_once(path):
    """Decoded in one piece, at the file's own rate."""
    return soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)


def mp3_frames(content):
    """(start, end) of each frame of a 16 kHz MP3 (MPEG 2, layer III)."""
    kilobits = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]
    frames, start = [], 0
    while start + 4 <= len(content):
        assert content[start] == 0xFF
        end = start + 72 * kilobits[content[start + 2] >> 4] * 1000 // 16_000 + (content[start + 2] >> 1 & 1)
        frames.append((start, end))
        start = end
    return frames
