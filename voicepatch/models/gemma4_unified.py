"""Gemma 4 12B: a decoder that reads the raw sound, 640 samples to a frame, through a norm and one linear layer.

25 frames a second, and no encoder. Five of six blocks attend to a window of 1024 positions. Logits are capped after the
head. Blocks with full attention compute keys and values with one projection.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Gemma4UnifiedForConditionalGeneration

from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.errors import UserError
from voicepatch.models.mel import check_fixed, read_settings
from voicepatch.models.pretrained import Decoder, Pretrained
from voicepatch.models.tokens import Turn


class CappedHead(nn.Module):
    """A head whose output is the answer's logits, between -cap and cap."""

    def __init__(self, head: nn.Module, cap: float):
        super().__init__()
        self.head, self.cap = head, cap

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.head(hidden) / self.cap) * self.cap


class Gemma4Unified(Pretrained):
    """Gemma 4 12B with the interface of `SpeechLM`."""

    outer_class = Gemma4UnifiedForConditionalGeneration
    # As the chat template writes it with thinking switched off.
    turn = Turn(
        None,
        "<bos><|turn>user\n<|audio>{sound}<audio|>{question}<turn|>\n<|turn>model\n<|channel>thought\n<channel|>",
        borders=("<|audio>", "<audio|>"),
        adds_borders=True,
    )

    def __init__(self, outer: Gemma4UnifiedForConditionalGeneration, extractor: None):
        text, cap = outer.model.language_model, outer.config.text_config.final_logit_softcapping
        self.llm = Decoder(text, outer.lm_head if cap is None else CappedHead(outer.lm_head, cap))
        self.encoder, self._frame = outer.model.embed_audio, outer.config.audio_config.audio_samples_per_token
        for block in text.layers:
            if block.self_attn.v_proj is None:
                block.self_attn.v_proj = _same_projection(block.self_attn.k_proj)

    @classmethod
    def read_config(cls, folder: Path, has_weights: bool = True) -> Any:
        config = super().read_config(folder, has_weights)
        text = config.text_config
        if config.audio_config is None:
            raise UserError(f"{folder}: config.json has no audio_config, so the model cannot hear")
        if text.num_kv_shared_layers or text.use_bidirectional_attention == "all":
            raise UserError(
                f"{folder}: config.json: num_kv_shared_layers must be 0 and use_bidirectional_attention not all; this "
                "is no Gemma 4 12B"
            )
        return config

    @classmethod
    def read_features(cls, folder: Path, config: Any) -> None:
        """Check the settings of the frames, which `features` cuts."""
        frame = config.audio_config.audio_samples_per_token
        fixed = {"sampling_rate": SAMPLE_RATE, "audio_samples_per_token": frame, "padding_value": 0.0}
        check_fixed(*read_settings(folder), fixed)

    def features(self, waveform: np.ndarray) -> torch.Tensor:
        """Frames of samples `[n_frames, samples]`, the last one filled with zeros."""
        return torch.from_numpy(np.pad(waveform, (0, -len(waveform) % self._frame))).reshape(-1, self._frame)

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        return self.encoder(features.to(self.llm.device))

    def n_audio(self, n_samples: int) -> int:
        return -(-n_samples // self._frame)


def _same_projection(projection: nn.Linear) -> nn.Linear:
    """Another module with the same weights, so that experiments can write keys and values apart."""
    with torch.device("meta"):
        other = nn.Linear(projection.in_features, projection.out_features, projection.bias is not None)
    other.weight, other.bias = projection.weight, projection.bias
    return other
