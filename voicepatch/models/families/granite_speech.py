"""What is known of Granite Speech; the model itself is in `voicepatch/models/granite_speech.py`."""

from importlib import import_module
from typing import Any

from voicepatch.models.family import PROCESSOR_FILES, family


@family(
    model_type="granite_speech",
    hub_ids=(
        "ibm-granite/granite-speech-3.3-2b",
        "ibm-granite/granite-speech-3.3-8b",
        "ibm-granite/granite-4.0-1b-speech",
    ),
    licence="Apache-2.0",
    frames_per_second=10.0,
    max_audio_length="all",
    layers="40",
    adapter="",
    input_files=PROCESSOR_FILES,
)
def load(*how: Any) -> Any:
    """Granite Speech: a conformer, a Q-Former and a Granite decoder."""
    return import_module("voicepatch.models.granite_speech").load(*how)
