"""The log-mel features that Whisper's encoder and its descendants read.

extractor = read_extractor(folder, bins=128)
mel, n_frames = log_mel(extractor, waveform, window=extractor.n_samples)
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.errors import UserError
from voicepatch.models.folder import read_json

# What the feature extractor is made of: its usual value, and one that no model of this kind goes beyond.
EXTRACTOR_NUMBERS = {
    "feature_size": (80, 512),
    "hop_length": (160, 16_000),
    "chunk_length": (30, 600),
    "n_fft": (400, 8192),
}
EXTRACTOR_FIXED = {"sampling_rate": SAMPLE_RATE, "padding_side": "right", "padding_value": 0.0, "dither": 0.0}


def make_extractor(path: Path, settings: dict[str, Any]) -> WhisperFeatureExtractor:
    """The feature extractor that the settings of the file `path` describe.

    Raises `UserError` for numbers that no Whisper model has, and for settings that would give another mel: a rate other
    than 16 kHz, padding that is not silence after the sound, or noise added to it.
    """
    values = {}
    for key, (usual, most) in EXTRACTOR_NUMBERS.items():
        values[key] = settings.get(key, usual)
        if type(values[key]) is not int or not 0 < values[key] <= most:
            raise UserError(
                f"{path}: {key} is {values[key]!r}, but should be a whole number up to {most}; fetch it again"
            )
    for key, value in EXTRACTOR_FIXED.items():
        if settings.get(key, value) != value:
            raise UserError(f"{path}: {key} is {settings[key]!r}, but the models here have {value!r}; fetch it again")
    try:
        with warnings.catch_warnings(category=UserWarning, action="error"):  # mel filters that hear nothing
            return WhisperFeatureExtractor(**values, sampling_rate=SAMPLE_RATE)
    except (ArithmeticError, ValueError, UserWarning) as error:
        raise UserError(f"{path}: gives no mel filters ({error}); fetch it again") from None


def read_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Settings of a folder's feature extractor and the file that has them.

    That is `preprocessor_config.json`, or a part of `processor_config.json`, where transformers 5 writes them.
    """
    path = folder / "processor_config.json"
    if not (folder / "preprocessor_config.json").is_file() and path.is_file():
        processor = read_json(path)
        for part in ("feature_extractor", "audio_processor"):
            if isinstance(processor.get(part), dict):
                return path, processor[part]
    path = folder / "preprocessor_config.json"
    return path, read_json(path)


def log_mel(extractor: WhisperFeatureExtractor, waveform: np.ndarray, window: int) -> tuple[torch.Tensor, int]:
    """16 kHz mono samples to `[mel_bins, frames]`, padded to whole windows of `window` samples; frames that are sound.

    The extractor's own length does not bound it.
    """
    padded = max(1, -(-len(waveform) // window)) * window
    mel = extractor(
        waveform, sampling_rate=SAMPLE_RATE, padding="max_length", max_length=padded, return_tensors="pt"
    ).input_features[0]
    return mel, -(-len(waveform) // extractor.hop_length)


def read_extractor(folder: Path, bins: int, window: int | None = None, **usual: Any) -> WhisperFeatureExtractor:
    """The extractor that a folder's settings describe, of which `usual` are used where the file lacks them.

    Raises `UserError` where config.json's encoder reads other than `bins` mel bins, or windows of another number of
    frames than `window`.
    """
    path, settings = read_settings(folder)
    extractor = make_extractor(path, usual | settings)
    made = extractor.n_samples // extractor.hop_length
    if extractor.feature_size != bins or window not in (None, made):
        asked = f"{bins} and {window}" if window is not None else f"{bins}"
        raise UserError(
            f"{path}: gives {extractor.feature_size} bins and windows of {made} frames, but config.json's audio "
            f"encoder reads {asked}; take both files from one checkpoint"
        )
    return extractor
