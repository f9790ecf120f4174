"""What a sound is like: pitch, level, length and mean spectrum.

    found = measure(read_sound(path).waveform)
    found.f0                 # semitones above 100 Hz, NaN where too little of the sound is voiced
    found.spectrum           # [N_BANDS] dB, level taken out

numpy alone; for the distance between clips (`pairs/acoustics.py`), not for phonetics.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from voicepatch.audio.decode import SAMPLE_RATE, is_silent

STEP = SAMPLE_RATE // 100
MIN_HZ, MAX_HZ = 60, 400
PITCH_FRAME = 640  # 40 ms: two periods of 60 Hz and more
VOICED = 0.5  # smallest normalised autocorrelation of a voiced frame; white noise stays below 0.3
AUDIBLE_DB = 30  # a voiced frame is at most this far below the loudest one
MIN_VOICED = 5  # frames, 50 ms
OCTAVE = 0.9  # the shortest period whose autocorrelation is this close to the largest is the pitch's
SPECTRUM_FRAME, N_BANDS, LOWEST_HZ = 512, 24, 60
FLOOR = 1e-10  # of the power, -100 dB


FEATURES = ("f0", "energy", "duration", "spectrum")


class Acoustics(NamedTuple):
    """One sound. `f0` is the median over voiced frames, or NaN; of silence, all values but `duration` are NaN."""

    f0: float  # semitones above 100 Hz
    energy: float  # RMS in dB of full scale
    duration: float  # seconds
    spectrum: np.ndarray  # [N_BANDS]: mean level of each mel band in dB, less the mean over bands


def measure(waveform: np.ndarray) -> Acoustics:
    """The acoustics of 16 kHz mono samples, at least one."""
    samples = waveform.astype(float)
    duration = len(samples) / SAMPLE_RATE
    if is_silent(waveform):  # the floor below the logarithm would be its level
        return Acoustics(np.nan, np.nan, duration, np.full(N_BANDS, np.nan))
    energy = 10 * np.log10(np.mean(samples**2) + FLOOR)
    return Acoustics(median_f0(samples), float(energy), duration, _mean_spectrum(samples))


def median_f0(samples: np.ndarray) -> float:
    """Median pitch of the voiced frames in semitones above 100 Hz; NaN with fewer than `MIN_VOICED` of them.

    A frame's pitch is the peak of its normalised autocorrelation between `MIN_HZ` and `MAX_HZ`.
    """
    if len(samples) < PITCH_FRAME:
        return float("nan")
    frames = sliding_window_view(samples, PITCH_FRAME)[::STEP]
    frames = frames - frames.mean(1, keepdims=True)
    power = (frames**2).sum(1)
    frames = frames[power > power.max() * 10 ** (-AUDIBLE_DB / 10)]
    lags = np.array([lag for frame in frames if (lag := _period(frame))])
    return float(np.median(12 * np.log2(SAMPLE_RATE / lags / 100))) if len(lags) >= MIN_VOICED else float("nan")


def _period(frame: np.ndarray) -> float:
    """The period of a frame in samples, between two samples too; 0 where it is not voiced."""
    first, last = SAMPLE_RATE // MAX_HZ - 1, SAMPLE_RATE // MIN_HZ + 2
    spectrum = np.fft.rfft(frame, 2 * PITCH_FRAME)
    products = np.fft.irfft(np.abs(spectrum) ** 2)[first:last]
    energy = np.concatenate([[0.0], np.cumsum(frame**2)])
    lags = np.arange(first, last)
    norms = np.sqrt(energy[PITCH_FRAME - lags] * (energy[-1] - energy[lags]))  # of the two parts that overlap
    r = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    peaks = 1 + np.flatnonzero((r[1:-1] > r[:-2]) & (r[1:-1] >= r[2:]))
    peaks = peaks[r[peaks] >= max(VOICED, OCTAVE * r[peaks].max(initial=0))]
    if not len(peaks):
        return 0.0
    at = peaks[0]
    before, here, after = r[at - 1 : at + 2]
    return float(lags[at] + 0.5 * (before - after) / (before - 2 * here + after))  # the top of a parabola


def _mean_spectrum(samples: np.ndarray) -> np.ndarray:
    padded = np.pad(samples, (0, max(0, SPECTRUM_FRAME - len(samples))))
    frames = sliding_window_view(padded, SPECTRUM_FRAME)[::STEP] * np.hanning(SPECTRUM_FRAME)
    power = np.abs(np.fft.rfft(frames)) ** 2 / SPECTRUM_FRAME
    levels = 10 * np.log10(power @ _mel_bands().T + FLOOR).mean(0)
    return levels - levels.mean()


@cache
def _mel_bands() -> np.ndarray:
    """[N_BANDS, frequencies]: triangles of equal width on the mel scale (O'Shaughnessy 1987)."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    mels = np.linspace(2595 * np.log10(1 + LOWEST_HZ / 700), top, N_BANDS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    frequencies = np.fft.rfftfreq(SPECTRUM_FRAME, 1 / SAMPLE_RATE)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rising, falling), 0, None)
