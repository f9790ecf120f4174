"""The families of speech language models that can be studied, and how a checkpoint's is recognised. No torch here.

    family = family_of(read_config(folder))         # or UserError, with the families that there are
    family.module                                   # its file in models/, which has `load`

`python cli.py models` shows this table; a new family is a row here and a file that has `load(folder, device, dtype)`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from errors import UserError

EXACT = ("stepwise", "sweep", "tail")
TOKENIZER = ("tokenizer*", "vocab.json", "merges.txt", "added_tokens.json", "*.jinja",
             "additional_chat_templates/*.jinja")  # fmt: skip
INPUT_FILES = (*TOKENIZER, "special_tokens_map.json", "chat_template.json", "preprocessor_config.json",
               "processor_config.json")  # fmt: skip


@dataclass(frozen=True)
class Family:
    """What is known of a family before its weights are.

    `model_types` are those of `config.json`. Of the weights, tensors are needed whose name begins with one of `parts`
    and with none of `skips`. `adapter` is the folder of a LoRA inside the checkpoint's ("" for the checkpoint's own).
    `input_files` are patterns of what is read beside `config.json` and the weights, all of it hashed.
    """

    name: str
    module: str
    model_types: tuple[str, ...]
    hub_ids: tuple[str, ...]
    licence: str
    frames_per_second: str
    hears: str
    layers: str
    engines: tuple[str, ...] = EXACT
    parts: tuple[str, ...] = ("",)
    skips: tuple[str, ...] = ()
    adapter: str | None = None
    input_files: tuple[str, ...] = INPUT_FILES

    def needs(self, name: str) -> bool:
        """Whether a tensor of this name is read."""
        return name.startswith(self.parts) and not name.startswith(self.skips)


OPENS2S = Family(
    "OpenS2S", "models.opens2s_io", (), ("CASIA-LM/OpenS2S",), "Apache-2.0", "6.25", "all", "36",
    parts=("audio_encoder_model.", "audio_adapter.", "llm_model."), input_files=(*TOKENIZER, "audio/*.json"),
)  # fmt: skip
FAMILIES = (
    OPENS2S,
    Family(
        "Qwen2-Audio", "models.qwen2_audio", ("qwen2_audio",), ("Qwen/Qwen2-Audio-7B-Instruct",), "Apache-2.0",
        "25", "30 s", "32",
    ),
    Family(
        "Qwen2.5-Omni", "models.qwen25_omni", ("qwen2_5_omni", "qwen2_5_omni_thinker"),
        ("Qwen/Qwen2.5-Omni-7B", "Qwen/Qwen2.5-Omni-3B"), "Apache-2.0 (3B: its own)", "25", "300 s", "28, 36",
        skips=("talker.", "token2wav."),
    ),
    Family(
        "Qwen3-Omni", "models.qwen3_omni", ("qwen3_omni_moe", "qwen3_omni_moe_thinker"),
        ("Qwen/Qwen3-Omni-30B-A3B-Instruct",), "Apache-2.0", "13", "all", "48", skips=("talker.", "code2wav."),
    ),
    Family(
        "Audio Flamingo 3", "models.audio_flamingo3", ("audioflamingo3",), ("nvidia/audio-flamingo-3-hf",),
        "NVIDIA, non-commercial", "25", "600 s", "28",
    ),
    Family(
        "Voxtral", "models.voxtral", ("voxtral",),
        ("mistralai/Voxtral-Mini-3B-2507", "mistralai/Voxtral-Small-24B-2507"), "Apache-2.0", "12.5", "all", "30, 40",
        input_files=("tekken.json", "preprocessor_config.json", "processor_config.json"),
    ),
    Family(
        "Granite Speech", "models.granite_speech", ("granite_speech",),
        ("ibm-granite/granite-speech-3.3-2b", "ibm-granite/granite-speech-3.3-8b", "ibm-granite/granite-4.0-1b-speech"),
        "Apache-2.0", "10", "all", "40", adapter="",
    ),
    Family(
        "Phi-4-multimodal", "models.phi4_multimodal", ("phi4_multimodal",), ("microsoft/Phi-4-multimodal-instruct",),
        "MIT", "12.5", "all", "32", adapter="speech-lora",
    ),
)  # fmt: skip
# Where the main branch of a hub id is not the one in transformers' own layout.
REVISIONS = {"microsoft/Phi-4-multimodal-instruct": "refs/pr/70"}

PER_LAYER = (
    "its per-layer inputs bring A's sound in again at every block, so writing B's residual stream at one of them does "
    "not give A's later blocks B's sound"
)
REFUSED = {
    "gemma3n": f"Gemma 3n: {PER_LAYER}",
    "gemma4": f"Gemma 4 E2B and E4B: {PER_LAYER}",
    "phi4mm": "Its layout needs code from the checkpoint, which is not run; take transformers' own layout, revision "
    "refs/pr/70, which --model microsoft/Phi-4-multimodal-instruct fetches",
}


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a checkpoint by its `config.json`; `UserError` for one that is unknown or cannot be exact."""
    model_type = config.get("model_type")
    for family in FAMILIES:
        if isinstance(model_type, str) and model_type in family.model_types:
            return family
    if any(key in config for key in ("llm_config", "audio_encoder_config")):
        return OPENS2S
    if isinstance(model_type, str) and model_type in REFUSED:
        raise UserError(f"config.json: model_type {model_type!r} cannot be studied here. {REFUSED[model_type]}")
    known = ", ".join(family.name for family in FAMILIES)
    raise UserError(
        f"config.json: model_type {str(model_type)[:40]!r} is of no family known here ({known}); "
        "`python cli.py models` says more"
    )
