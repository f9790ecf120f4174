"""Phi-4-multimodal: a conformer, a projector of two layers, and a Phi-4-mini decoder with a LoRA for speech.

    model = load(folder)                         # microsoft/Phi-4-multimodal-instruct, revision refs/pr/70

12.5 frames a second. The checkpoint's `speech-lora` is merged; without it the model would be another one. The image
encoder is let go of. Beyond 4096 positions, some 5 minutes, its rotary factors change (arXiv 2503.01743).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import gelu
from transformers import Phi4MultimodalFeatureExtractor, Phi4MultimodalForCausalLM

from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.errors import UserError
from voicepatch.models.mel import read_settings
from voicepatch.models.pretrained import Decoder, Pretrained, load_outer, outer_config
from voicepatch.models.speech_lm import Prompt
from voicepatch.models.tokens import Turn, read_turn

WINDOW, HOP, COMPRESSION = 400, 160, 8
FIXED = {
    "sampling_rate": SAMPLE_RATE, "win_length": WINDOW, "hop_length": HOP, "n_fft": 512, "preemphasis": 0.97,
    "feature_size": 80, "audio_compression_rate": COMPRESSION, "audio_downsample_rate": 1, "audio_feat_stride": 1,
    "mel_min_frequency": 0, "mel_max_frequency": 7690,
}  # fmt: skip


class Phi4Multimodal(Pretrained):
    """Phi-4-multimodal with the interface of `SpeechLM`."""

    def __init__(self, outer: Phi4MultimodalForCausalLM, tokenizer: Any, prompt: Prompt):
        self._audio = outer.model.embed_tokens_extend.audio_embed
        del outer.model.embed_tokens_extend
        super().__init__(Decoder(outer.model, outer.lm_head), tokenizer, prompt)
        self._extractor = Phi4MultimodalFeatureExtractor()

    def features(self, waveform: np.ndarray) -> torch.Tensor:
        found = self._extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        return found.audio_input_features[0]

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        states = self._audio.encoder(features[None].to(self.llm.device, self.llm.dtype), None)
        return self._audio.down_proj_for_speech(gelu(self._audio.up_proj_for_speech(states)))[0]

    def n_audio(self, n_samples: int) -> int:
        return -(-((n_samples - WINDOW) // HOP + 1) // COMPRESSION)


def load(folder: Path, device: str | None, dtype: str | None, question: str, labels: Sequence[str]) -> Phi4Multimodal:
    """A checkpoint folder, whole or not at all."""
    cls = Phi4MultimodalForCausalLM
    config = outer_config(cls, folder)
    path, settings = read_settings(folder)
    for key, value in FIXED.items():
        if settings.get(key, value) != value:
            raise UserError(f"{path}: {key} is {settings[key]!r}, but Phi-4-multimodal has {value!r}; fetch it again")
    tokenizer, prompt = read_turn(folder, config.audio_config.audio_token_id, turn, question, labels)
    return Phi4Multimodal(load_outer(cls, folder, config, device, dtype), tokenizer, prompt)


def turn(sound: str, question: str) -> Turn:
    """The turn of the model card."""
    return Turn(None, sound, question, f"<|user|>{sound}{question}<|end|><|assistant|>", inline=True)
