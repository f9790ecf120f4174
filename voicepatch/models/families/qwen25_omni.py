"""What is known of Qwen2.5-Omni; the model itself is in `voicepatch/models/qwen25_omni.py`."""

from importlib import import_module
from typing import Any

from voicepatch.models.family import PROCESSOR_FILES, family


@family(
    model_type=("qwen2_5_omni", "qwen2_5_omni_thinker"),
    hub_ids=("Qwen/Qwen2.5-Omni-7B", "Qwen/Qwen2.5-Omni-3B"),
    licence="Apache-2.0 (3B: its own)",
    frames_per_second=25.0,
    max_audio_length="300 s",
    layers="28, 36",
    skips=("talker.", "token2wav."),
    input_files=PROCESSOR_FILES,
)
def load(*how: Any) -> Any:
    """Qwen2.5-Omni: the thinker, an encoder in blocks of 2 s and a Qwen2 decoder."""
    return import_module("voicepatch.models.qwen25_omni").load(*how)
