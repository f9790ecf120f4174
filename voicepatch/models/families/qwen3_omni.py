"""What is known of Qwen3-Omni; the model itself is in `voicepatch/models/qwen3_omni.py`."""

from importlib import import_module
from typing import Any

from voicepatch.models.family import PROCESSOR_FILES, family


@family(
    model_type=("qwen3_omni_moe", "qwen3_omni_moe_thinker"),
    hub_ids=("Qwen/Qwen3-Omni-30B-A3B-Instruct",),
    licence="Apache-2.0",
    frames_per_second=13.0,
    max_audio_length="all",
    layers="48",
    skips=("talker.", "code2wav."),
    input_files=PROCESSOR_FILES,
)
def load(*how: Any) -> Any:
    """Qwen3-Omni: the thinker, an encoder in windows and a Qwen3 decoder with experts."""
    return import_module("voicepatch.models.qwen3_omni").load(*how)
