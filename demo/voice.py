"""Speech whose prosody is set by hand: text, prosody and speaker -> 16 kHz mono sound.

    tts = Hibari()
    sound = speak(tts, "The train leaves at nine.", PROSODIES["sad"], SPEAKERS["f1"], seed=0)

hibari-tts predicts fundamental frequency and spectra per 12.5 ms frame before its own signal processing, so pitch,
range, contour, tilt, breath and voice are edited there; the rate is an input of the network. Loudness is equalised at
the end: level alone would give a listener the prosody label more often than not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import soxr
from hibari import Hibari, dsp
from tqdm import tqdm

SAMPLE_RATE = 16_000
RMS = 0.05
MARGIN = SAMPLE_RATE // 10  # silence left at either end
PCM_STEP = 8  # 13 bits are kept: the rounding is 57 dB below the speech, and a FLAC file shrinks by a third
VOICED_HZ = 40.0
DB = np.log(10) / 20
SEMITONE = np.log(2) / 12


@dataclass(frozen=True)
class Prosody:
    """What is done to a neutral reading; the defaults leave it as it is."""

    pitch: float = 1.0  # factor on the mean fundamental frequency
    range: float = 1.0  # factor on its deviations, in log Hz
    speed: float = 1.0  # factor on the speaking rate
    tilt: float = 0.0  # dB per octave above 500 Hz
    breath: float = 0.0  # dB on the noise branch
    final: float = 0.0  # semitones gained over the last third of the voiced frames
    slope: float = 0.0  # semitones gained from first to last voiced frame
    jitter: float = 0.0  # standard deviation of the frame-to-frame pitch, in log Hz


@dataclass(frozen=True)
class Speaker:
    """A pseudo-speaker made of the one voice: a factor on pitch and one on all formants."""

    pitch: float
    formants: float


PROSODIES = {
    "neutral": Prosody(range=0.7),
    "happy": Prosody(pitch=1.28, range=1.8, speed=1.1, tilt=1.5, final=2.5, slope=1.0),
    "sad": Prosody(pitch=0.86, range=0.4, speed=0.74, tilt=-3.0, breath=5.0, final=-1.5, slope=-1.5, jitter=0.004),
    "angry": Prosody(pitch=1.12, range=1.35, speed=1.22, tilt=4.5, breath=-3.0, final=-4.0, slope=-2.0, jitter=0.012),
    "surprised": Prosody(pitch=1.5, range=1.5, speed=0.92, tilt=0.5, breath=2.0, final=10.0),
}
SPEAKERS = {"f1": Speaker(pitch=1.0, formants=1.0), "m1": Speaker(pitch=0.6, formants=0.86)}


def vary(prosody: Prosody, rng: np.random.Generator) -> Prosody:
    """A random reading around `prosody`, as another utterance of the same speaker would be."""
    return Prosody(
        pitch=prosody.pitch * np.exp(rng.normal(0, 0.03)),
        range=prosody.range * np.exp(rng.normal(0, 0.08)),
        speed=prosody.speed * np.exp(rng.normal(0, 0.04)),
        tilt=prosody.tilt + rng.normal(0, 0.3),
        breath=prosody.breath + rng.normal(0, 0.5),
        final=prosody.final + rng.normal(0, 0.6),
        slope=prosody.slope + rng.normal(0, 0.4),
        jitter=prosody.jitter,
    )


def vary_speaker(speaker: Speaker, rng: np.random.Generator) -> Speaker:
    """A random speaker near `speaker`."""
    return Speaker(speaker.pitch * np.exp(rng.normal(0, 0.03)), speaker.formants * np.exp(rng.normal(0, 0.015)))


def _warp(spectra: np.ndarray, factor: float) -> np.ndarray:
    """Stretch `[bins, frames]` along frequency by `factor`."""
    bins = np.arange(len(spectra)) / factor
    low = np.clip(bins.astype(int), 0, len(spectra) - 2)
    weight = np.clip(bins - low, 0, 1)[:, None].astype(np.float32)
    return spectra[low] * (1 - weight) + spectra[low + 1] * weight


def _contour(log_f0: np.ndarray, prosody: Prosody, speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """The edited pitch in Hz of the voiced frames, `[frames]`."""
    mean, place = log_f0.mean(), np.linspace(0, 1, len(log_f0))
    rise = prosody.slope * (place - 0.5) + prosody.final * np.clip((place - 0.65) / 0.35, 0, 1) ** 1.5
    edited = mean + np.log(prosody.pitch * speaker.pitch) + prosody.range * (log_f0 - mean) + rise * SEMITONE
    edited += prosody.jitter * rng.standard_normal(len(edited))
    return np.clip(np.exp(edited), 60, 620)


def _sentence(tts: Hibari, phonemes: str, prosody: Prosody, speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """One sentence at 24 kHz, `[samples]`."""
    inputs = {"ids": np.asarray([tts.ids(phonemes)], np.int64), "speed": np.asarray([prosody.speed], np.float32)}
    harmonic, rotation, noise, residual, phase, f0 = (np.array(part[0]) for part in tts.sess.run(None, inputs))
    f0 = f0.reshape(-1)
    voiced = f0 > VOICED_HZ
    if voiced.any():
        f0[voiced] = _contour(np.log(f0[voiced]), prosody, speaker, rng)
    harmonic, rotation, noise, residual = (_warp(x, speaker.formants) for x in (harmonic, rotation, noise, residual))
    hertz = np.arange(len(harmonic)) * dsp.SR / dsp.N_FFT
    tilt = np.clip(prosody.tilt * np.log2(np.maximum(hertz, 500) / 500), -18, 14)[:, None] * DB
    # The free-phase residual still holds the old pitch: keep it in unvoiced frames and above 4 kHz.
    residual[:100, voiced] = -30.0
    parts = (harmonic + tilt, rotation, noise + tilt + prosody.breath * DB, residual + tilt)
    return dsp.synth(*(x.astype(np.float32) for x in parts), phase, f0.astype(np.float32), rng)


def _trim(sound: np.ndarray) -> np.ndarray:
    """Cut the silence at both ends to `MARGIN` samples."""
    loud = np.flatnonzero(np.abs(sound) > 0.02 * np.abs(sound).max())
    return sound[max(0, loud[0] - MARGIN) : loud[-1] + MARGIN]


def speak(tts: Hibari, text: str, prosody: Prosody, speaker: Speaker, seed: int) -> np.ndarray:
    """`text` as 16 kHz mono PCM, `[samples]` int16, of loudness `RMS`; the same seed gives the same samples."""
    rng = np.random.default_rng(seed)
    sound = np.concatenate([_sentence(tts, p, prosody, speaker, rng) for p in tts.phonemize(text)])
    sound = soxr.resample(sound, dsp.SR, SAMPLE_RATE, quality="VHQ")
    sound = _trim(sound)
    sound = sound * RMS / np.sqrt(np.mean(sound**2))
    sound = sound / max(1.0, np.abs(sound).max() / 0.97)
    return (np.round(sound * 32768 / PCM_STEP) * PCM_STEP).astype(np.int16)


@dataclass(frozen=True)
class Reading:
    """One clip to be made."""

    text: str
    prosody: Prosody
    speaker: Speaker
    seed: int


_tts: Hibari | None = None


def _read(reading: Reading) -> np.ndarray:
    global _tts
    _tts = _tts or Hibari()  # one a process
    return speak(_tts, reading.text, reading.prosody, reading.speaker, reading.seed)


def speak_all(readings: Sequence[Reading], workers: int) -> list[np.ndarray]:
    """The sounds of `readings`, in their order, made by `workers` processes."""
    with get_context("spawn").Pool(workers) as pool:
        sounds = pool.imap(_read, readings, chunksize=16)
        return list(tqdm(sounds, total=len(readings), desc="speech", mininterval=5))
