"""What is known of Qwen2-Audio; the model itself is in `voicepatch/models/qwen2_audio.py`."""

from importlib import import_module
from typing import Any

from voicepatch.models.family import PROCESSOR_FILES, family


@family(
    model_type="qwen2_audio",
    hub_ids=("Qwen/Qwen2-Audio-7B-Instruct",),
    licence="Apache-2.0",
    frames_per_second=25.0,
    max_audio_length="30 s",
    layers="32",
    input_files=PROCESSOR_FILES,
)
def load(*how: Any) -> Any:
    """Qwen2-Audio: Whisper's encoder with a pool, a linear projector and a Qwen2 decoder."""
    return import_module("voicepatch.models.qwen2_audio").load(*how)
