"""Pitch, level, length and mean spectrum of sounds that are known."""

import numpy as np
import pytest

from voicepatch.audio.acoustics import measure

T = np.arange(16_000) / 16_000


def hertz(found):
    return 100 * 2 ** (found.f0 / 12)


@pytest.mark.parametrize("f0", [61, 100, 220, 399])
def test_the_pitch_of_a_tone_and_of_a_buzz_is_right_within_a_percent(f0):
    for sound in (np.sin(2 * np.pi * f0 * T), 2 * (f0 * T % 1) - 1):
        assert hertz(measure(sound)) == pytest.approx(f0, rel=0.01)


def test_the_pitch_is_the_median_of_the_voiced_frames():
    rng = np.random.default_rng(0)
    sound = np.concatenate([np.zeros(8000), np.sin(2 * np.pi * 150 * T), rng.normal(size=8000) * 0.3])
    assert hertz(measure(sound)) == pytest.approx(150, rel=0.01)


@pytest.mark.parametrize(
    "sound",
    [
        np.random.default_rng(0).normal(size=16_000),
        np.sin(2 * np.pi * 220 * T)[:480],  # 30 ms
        np.sin(2 * np.pi * 1500 * T) * np.random.default_rng(1).normal(size=16_000),
    ],
    ids=["noise", "30 ms", "modulated noise"],
)
def test_what_is_not_voiced_or_too_short_has_no_pitch(sound):
    found = measure(sound)
    assert np.isnan(found.f0) and np.isfinite([found.energy, found.duration, *found.spectrum]).all()


@pytest.mark.parametrize("level", [0, 0.3], ids=["zeros", "constant"])
def test_silence_has_a_duration_alone(level):
    found = measure(np.full(8000, level))
    assert found.duration == 0.5 and np.isnan([found.f0, found.energy, *found.spectrum]).all()


def test_level_and_length_and_a_spectrum_that_does_not_depend_on_the_level():
    rng = np.random.default_rng(0)
    loud = rng.normal(size=8000)
    one, other = measure(loud), measure(0.1 * loud)
    assert one.duration == 0.5 and one.energy - other.energy == pytest.approx(20, abs=1e-3)
    np.testing.assert_allclose(one.spectrum, other.spectrum, atol=0.01)
    low, high = (measure(np.sin(2 * np.pi * f * T) + 0.001 * rng.normal(size=16_000)).spectrum for f in (300, 4000))
    assert low.argmax() < high.argmax()
