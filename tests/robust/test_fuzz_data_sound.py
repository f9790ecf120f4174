"""Whatever bytes a sound file holds, reading it gives a sane waveform or one line, within bounded time and memory."""

import random
import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest
import soundfile

from voicepatch.audio.decode import MAX_LEVEL, MIN_SAMPLES, SAMPLE_RATE, read_audio
from voicepatch.audio.limits import MAX_SECONDS
from voicepatch.errors import UserError

SEEDS = {  # name: format, subtype, rate, channels
    "a.wav": ("WAV", "PCM_16", 16_000, 1),
    "b.wav": ("WAV", "FLOAT", 8_000, 2),
    "c.wav": ("WAVEX", "PCM_24", 16_000, 6),
    "d.wav": ("RF64", "PCM_16", 16_000, 1),
    "e.wav": ("WAV", "IMA_ADPCM", 16_000, 1),
    "f.wav": ("WAV", "GSM610", 8_000, 1),
    "a.flac": ("FLAC", "PCM_16", 16_000, 1),
    "b.flac": ("FLAC", "PCM_24", 44_100, 2),
}
N_MUTATIONS = 500  # of each
MOST_SECONDS, MOST_BYTES = 5, 2**29


def write(path, container, subtype, rate, channels):
    sound = 0.1 * np.random.default_rng(0).standard_normal((rate // 16, channels))
    soundfile.write(path, sound, rate, format=container, subtype=subtype)
    return path.read_bytes()


def mutated(content, rng):
    """One to four faults, most of them in the header: flipped bits, extreme numbers, cuts, and bytes from elsewhere."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(len(content), 90) if rng.random() < 0.8 else len(content))
        match rng.randrange(6):
            case 0:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at] = rng.randrange(256)
            case 2:
                size = rng.choice([2, 4, 8])
                value = rng.choice([0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1])
                content[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, rng.choice(["big", "little"]))
            case 3:
                content[at : at + rng.randint(1, 40)] = b""
            case 4:
                content[at:at] = rng.randbytes(rng.randint(1, 40))
            case 5:
                content = content[: max(at, 4)]
        if not content:
            break
    return bytes(content)


def is_sane(waveform):
    return (
        waveform.dtype == np.float32
        and waveform.ndim == 1
        and MIN_SAMPLES <= len(waveform) <= MAX_SECONDS * SAMPLE_RATE
        and np.isfinite(waveform).all()
        and np.abs(waveform).max() <= MAX_LEVEL
    )


@pytest.mark.parametrize("name", SEEDS)
def test_a_mutated_file_gives_a_sound_or_one_line(tmp_path, name):
    original = write(tmp_path / name, *SEEDS[name])
    assert is_sane(read_audio(tmp_path / name))
    path = tmp_path / f"mutated {name}"
    outcomes = Counter()
    tracemalloc.start()
    for seed in range(N_MUTATIONS):
        path.write_bytes(mutated(original, random.Random(f"{name} {seed}")))
        began = time.process_time()
        try:
            assert is_sane(read_audio(path)), seed
            outcomes["heard"] += 1
        except UserError as error:
            assert str(error).isprintable() and str(path) in str(error), seed
            outcomes["refused"] += 1
        assert time.process_time() - began < MOST_SECONDS, seed
    assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    tracemalloc.stop()
    assert outcomes["heard"] >= 5 and outcomes["refused"] > N_MUTATIONS / 3, "mutations of one kind say little"
