"""A sound that is read in blocks is the sound that is read at once."""

import tracemalloc

import numpy as np
import pytest
import soundfile

from tests.robust.sounds.made import CONTAINERS, at_once, every_container, noise
from voicepatch.audio import decode as module
from voicepatch.audio.decode import SAMPLE_RATE, read_audio


@every_container
@pytest.mark.parametrize("block", [2**20, 10_000])
def test_a_sound_read_in_blocks_is_the_sound_read_at_once(write, name, block, monkeypatch):
    path = write(name, channels=1 if name == "adpcm.wav" else 2)
    monkeypatch.setattr(module, "BLOCK", block)
    expected = module.soxr.resample(at_once(path), CONTAINERS[name][2], SAMPLE_RATE)
    np.testing.assert_allclose(read_audio(path), expected, rtol=0, atol=1e-6 if name == "mpeg.mp3" else 0)


def test_six_channels_at_96_khz_are_mixed(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1, 96_000, 6), 96_000)
    assert len(read_audio(tmp_path / "a.wav")) == 16_000


def test_ten_minutes_are_read_block_by_block(tmp_path):
    """26 million samples of two channels would be 211 MB at once, before anything is made of them."""
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 22_050, 2) as file:
        for _ in range(600):
            file.write(np.full((22_050, 2), 0.1))
    tracemalloc.start()
    waveform = read_audio(tmp_path / "a.flac")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(waveform) == 600 * 16_000
    assert peak < 2.5 * waveform.nbytes + 2**25
