"""What is known of OpenS2S; the model itself is in `voicepatch/models/opens2s_io.py`."""

from importlib import import_module
from typing import Any

from voicepatch.models.family import TOKENIZER_FILES, family


@family(
    recognises=lambda config: "llm_config" in config or "audio_encoder_config" in config,
    hub_ids=("CASIA-LM/OpenS2S",),
    licence="Apache-2.0",
    frames_per_second=6.25,
    max_audio_length="all",
    layers="36",
    parts=("audio_encoder_model.", "audio_adapter.", "llm_model."),
    input_files=(*TOKENIZER_FILES, "audio/*.json"),
)
def load(*how: Any) -> Any:
    """OpenS2S: a Whisper-like encoder, a convolutional adapter and a Qwen3 decoder."""
    return import_module("voicepatch.models.opens2s_io").load(*how)
