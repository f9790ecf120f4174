"""What is known of Audio Flamingo 3; the model itself is in `voicepatch/models/audio_flamingo3.py`."""

from importlib import import_module
from typing import Any

from voicepatch.models.family import PROCESSOR_FILES, family


@family(
    model_type="audioflamingo3",
    hub_ids=("nvidia/audio-flamingo-3-hf",),
    licence="NVIDIA, non-commercial",
    frames_per_second=25.0,
    max_audio_length="600 s",
    layers="28",
    input_files=PROCESSOR_FILES,
)
def load(*how: Any) -> Any:
    """Audio Flamingo 3: a Whisper-like encoder, a projector and a Qwen2 decoder."""
    return import_module("voicepatch.models.audio_flamingo3").load(*how)
