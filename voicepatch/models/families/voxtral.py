"""What is known of Voxtral; the model itself is in `voicepatch/models/voxtral.py`."""

from importlib import import_module
from typing import Any

from voicepatch.models.family import family


@family(
    model_type="voxtral",
    hub_ids=("mistralai/Voxtral-Mini-3B-2507", "mistralai/Voxtral-Small-24B-2507"),
    licence="Apache-2.0",
    frames_per_second=12.5,
    max_audio_length="all",
    layers="30, 40",
    input_files=("tekken.json", "preprocessor_config.json", "processor_config.json"),
)
def load(*how: Any) -> Any:
    """Voxtral: Whisper's encoder over whole windows of 30 s and a Llama decoder."""
    return import_module("voicepatch.models.voxtral").load(*how)
