"""Phi-4-multimodal: a conformer, a projector of two layers, and a Phi-4-mini decoder with a LoRA for speech.

12.5 frames a second. The checkpoint's `speech-lora` is merged; without it the model would be another one. The image
encoder is not kept. Above 4096 positions, some 5 minutes, its rotary factors change (arXiv 2503.01743).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import gelu
from transformers import Phi4MultimodalFeatureExtractor, Phi4MultimodalForCausalLM

from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.models.mel import check_fixed, read_settings
from voicepatch.models.pretrained import Decoder, Pretrained
from voicepatch.models.speech_lm import Prompt
from voicepatch.models.tokens import Tokens, Turn, read_prompt

WINDOW, HOP, COMPRESSION = 400, 160, 8
FIXED = {
    "sampling_rate": SAMPLE_RATE, "win_length": WINDOW, "hop_length": HOP, "n_fft": 512, "preemphasis": 0.97,
    "feature_size": 80, "audio_compression_rate": COMPRESSION, "audio_downsample_rate": 1, "audio_feat_stride": 1,
    "mel_min_frequency": 0, "mel_max_frequency": 7690,
}  # fmt: skip


class Phi4Multimodal(Pretrained):
    """Phi-4-multimodal with the interface of `SpeechLM`."""

    outer_class = Phi4MultimodalForCausalLM
    turn = Turn(None, "<|user|>{sound}{question}<|end|><|assistant|>", message="{sound}{question}")

    def __init__(self, outer: Phi4MultimodalForCausalLM, extractor: Any):
        self.audio, self.extractor = outer.model.embed_tokens_extend.audio_embed, extractor
        del outer.model.embed_tokens_extend
        self.llm = Decoder(outer.model, outer.lm_head)

    @classmethod
    def read_features(cls, folder: Path, config: Any) -> Phi4MultimodalFeatureExtractor:
        check_fixed(*read_settings(folder), FIXED)
        return Phi4MultimodalFeatureExtractor()

    @classmethod
    def read_prompt(cls, folder: Path, config: Any, question: str, labels: Sequence[str]) -> tuple[Tokens, Prompt]:
        return read_prompt(folder, config.audio_config.audio_token_id, cls.turn, question, labels)

    def features(self, waveform: np.ndarray) -> torch.Tensor:
        return self.extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt").audio_input_features[0]

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        states = self.audio.encoder(features[None].to(self.llm.device, self.llm.dtype), None)
        return self.audio.down_proj_for_speech(gelu(self.audio.up_proj_for_speech(states)))[0]

    def n_audio(self, n_samples: int) -> int:
        return -(-((n_samples - WINDOW) // HOP + 1) // COMPRESSION)
