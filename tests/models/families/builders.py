"""A tiny checkpoint of each family, and what the outer class of transformers is fed with for a sound.

A builder writes a folder and gives the outer model and `inputs(ids, waveform)`: the arguments of its forward, with the
features of the class that its own processor uses, over all that the processor pads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from torch import nn

from models.speech_lm import ClipInput
from tests.models.families.tiny import (
    HIDDEN,
    TEXT,
    WHISPER,
    write_extractor,
    write_model,
    write_tokenizer,
)

IM = ("<|im_start|>", "<|im_end|>")
RATE = {"sampling_rate": 16_000, "return_tensors": "pt", "return_attention_mask": True}


@dataclass
class Tiny:
    """A checkpoint's folder, the model that was saved in it, and what it is fed with."""

    folder: Path
    outer: nn.Module
    inputs: Callable[[np.ndarray], dict[str, Any]]
    sound: int
    scale: float = 1.0

    @property
    def text(self) -> nn.Module:
        return getattr(self.outer.model, "language_model", self.outer.model)

    def logits(self, clip: ClipInput, waveform: np.ndarray) -> torch.Tensor:
        """Last logits `[vocabulary]` of the outer class, from ids in which the sound's token stands for each frame."""
        ids = clip.input_ids.clone()
        ids[ids < 0] = self.sound
        given = {"input_ids": ids[None], "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        return self.outer(**given, **self.inputs(waveform), use_cache=False).logits[0, -1] / self.scale


def qwen2_audio(folder):
    ids = write_tokenizer(folder, [*IM, "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"])
    write_extractor(folder)
    config = hf.Qwen2AudioConfig(
        audio_config=WHISPER | {"model_type": "qwen2_audio_encoder"},
        text_config=TEXT | {"model_type": "qwen2"},
        audio_token_index=ids["<|AUDIO|>"],
    )
    outer = write_model(hf.Qwen2AudioForConditionalGeneration(config), folder)
    extractor = hf.WhisperFeatureExtractor(feature_size=128)

    def inputs(waveform):
        found = extractor(waveform, padding="max_length", **RATE)
        return {"input_features": found.input_features, "feature_attention_mask": found.attention_mask}

    return Tiny(folder, outer, inputs, ids["<|AUDIO|>"])


VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": HIDDEN}
MROPE = {"rope_type": "default", "rope_theta": 1e6}


def qwen25_omni(folder):
    ids = write_tokenizer(folder, [*IM, "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>", "<|IMAGE|>", "<|VIDEO|>"])
    write_extractor(folder, chunk_length=300)
    config = hf.Qwen2_5OmniThinkerConfig(
        audio_config=WHISPER | {"output_dim": HIDDEN},
        vision_config=VISION,
        text_config=TEXT | {"rope_parameters": MROPE | {"mrope_section": [2, 3, 3]}},
        audio_token_id=ids["<|AUDIO|>"],
        image_token_id=ids["<|IMAGE|>"],
        video_token_id=ids["<|VIDEO|>"],
        vision_start_token_id=1,
        audio_start_token_id=ids["<|audio_bos|>"],
    )
    outer = write_model(hf.Qwen2_5OmniThinkerForConditionalGeneration(config), folder)
    extractor = hf.WhisperFeatureExtractor(feature_size=128, chunk_length=300)

    def inputs(waveform):
        found = extractor(waveform, padding="max_length", **RATE)
        return {"input_features": found.input_features, "feature_attention_mask": found.attention_mask}

    return Tiny(folder, outer, inputs, ids["<|AUDIO|>"])


def qwen3_omni(folder):
    sounds = ["<|audio_start|>", "<|audio_pad|>", "<|audio_end|>"]
    ids = write_tokenizer(folder, [*IM, *sounds, "<|image_pad|>", "<|video_pad|>"])
    write_extractor(folder)
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
    config = hf.Qwen3OmniMoeThinkerConfig(
        audio_config=WHISPER | {"output_dim": HIDDEN, "downsample_hidden_size": 16},
        vision_config=VISION | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        text_config=TEXT | experts | {"rope_parameters": MROPE | {"mrope_section": [2, 3, 3]}},
        audio_token_id=ids["<|audio_pad|>"],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=1,
        audio_start_token_id=ids["<|audio_start|>"],
    )
    outer = write_model(hf.Qwen3OmniMoeThinkerForConditionalGeneration(config), folder)
    extractor = hf.WhisperFeatureExtractor(feature_size=128)

    def inputs(waveform):
        found = extractor(waveform, padding=True, truncation=False, **RATE)
        return {"input_features": found.input_features, "feature_attention_mask": found.attention_mask}

    return Tiny(folder, outer, inputs, ids["<|audio_pad|>"])


def audio_flamingo3(folder):
    ids = write_tokenizer(folder, [*IM, "<sound>"])
    write_extractor(folder)
    config = hf.AudioFlamingo3Config(
        audio_config={**WHISPER, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                      "intermediate_size": 48},
        text_config=TEXT | {"model_type": "qwen2"},
        audio_token_id=ids["<sound>"],
    )  # fmt: skip
    outer = write_model(hf.AudioFlamingo3ForConditionalGeneration(config), folder)
    extractor = hf.WhisperFeatureExtractor(feature_size=128)

    def inputs(waveform):
        windows = [waveform[start : start + 480_000] for start in range(0, len(waveform), 480_000)]
        found = extractor(windows, **RATE)
        return {"input_features": found.input_features, "input_features_mask": found.attention_mask}

    return Tiny(folder, outer, inputs, ids["<sound>"])


BUILDERS = {
    "Qwen2-Audio": qwen2_audio,
    "Qwen2.5-Omni": qwen25_omni,
    "Qwen3-Omni": qwen3_omni,
    "Audio Flamingo 3": audio_flamingo3,
}
