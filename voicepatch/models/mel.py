"""The log-mel features that Whisper's encoder and its descendants read.

extractor = read_extractor(folder, bins=128)
mel, n_frames = log_mel(extractor, waveform)
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

# The settings of the feature extractor: the usual value and a maximum for models of this kind.
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
            raise UserError(f"{path}: {key} is {values[key]!r}, but should be an integer up to {most}; fetch it again")
    check_fixed(path, settings, EXTRACTOR_FIXED)
    try:
        with warnings.catch_warnings(category=UserWarning, action="error"):  # empty mel filters
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


def check_fixed(path: Path, settings: dict[str, Any], fixed: dict[str, Any]) -> None:
    """Raise `UserError` for a setting that the family's features cannot have."""
    for key, value in fixed.items():
        if settings.get(key, value) != value:
            raise UserError(f"{path}: {key} is {settings[key]!r}, but this family has {value!r}; fetch it again")


def log_mel(
    extractor: WhisperFeatureExtractor, waveform: np.ndarray, window: int | None = None
) -> tuple[torch.Tensor, int]:
    """16 kHz mono samples to `[mel_bins, frames]`, padded to whole windows, and the number of frames of sound.

    `window` is in samples; None is the window of the extractor. A sound may have any number of windows.
    """
    window = window or extractor.n_samples
    padded = max(1, -(-len(waveform) // window)) * window
    mel = extractor(
        waveform, sampling_rate=SAMPLE_RATE, padding="max_length", max_length=padded, return_tensors="pt"
    ).input_features[0]
    return mel, -(-len(waveform) // extractor.hop_length)


def read_extractor(folder: Path, bins: int, window: int | None = None, **usual: Any) -> WhisperFeatureExtractor:
    """The extractor that a folder's settings describe; `usual` stand in for settings that the file lacks.

    Raises `UserError` where it gives other than `bins` mel bins, or other than `window` frames a window.
    """
    path, settings = read_settings(folder)
    extractor = make_extractor(path, usual | settings)
    n_frames = extractor.n_samples // extractor.hop_length
    if extractor.feature_size != bins or window not in (None, n_frames):
        expected = f"{bins} and {window}" if window is not None else f"{bins}"
        raise UserError(
            f"{path}: gives {extractor.feature_size} bins and windows of {n_frames} frames, but config.json's audio "
            f"encoder reads {expected}; take both files from one checkpoint"
        )
    return extractor


def pooled_length(n_frames: int) -> int:
    """Encoder positions of `n_frames` mel frames: a convolution of stride 2, then a pool over 2."""
    return ((n_frames - 1) // 2 - 1) // 2 + 1
