"""What is known of Phi-4-multimodal; the model itself is in `voicepatch/models/phi4_multimodal.py`."""

from importlib import import_module
from typing import Any

from voicepatch.models.family import PROCESSOR_FILES, family


@family(
    model_type="phi4_multimodal",
    hub_ids=("microsoft/Phi-4-multimodal-instruct",),
    licence="MIT",
    frames_per_second=12.5,
    max_audio_length="all",
    layers="32",
    adapter="speech-lora",
    input_files=PROCESSOR_FILES,
    revisions={"microsoft/Phi-4-multimodal-instruct": "refs/pr/70"},  # main is not in transformers' layout
)
def load(*how: Any) -> Any:
    """Phi-4-multimodal: a conformer, a projector and a Phi-4-mini decoder with a LoRA for speech."""
    return import_module("voicepatch.models.phi4_multimodal").load(*how)
