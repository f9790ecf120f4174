"""Qwen3-Omni's thinker: an encoder of 13 frames a second, and a decoder whose MLPs are routed experts.

The mel of a clip is not padded. The folder may be that of the whole model or of the thinker alone. The talker is not
read, and the image encoder is not kept. A model that thinks before it answers (…-Thinking) cannot be studied, because
its first token is no answer (arXiv 2509.17765).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3OmniMoeThinkerForConditionalGeneration

from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.models.mel import read_extractor
from voicepatch.models.pretrained import Pretrained
from voicepatch.models.tokens import Turn

CHUNK, POSITIONS = 100, 13  # mel frames that are encoded together, and the positions that they give


class Qwen3Omni(Pretrained):
    """The thinker with the interface of `SpeechLM`."""

    outer_class = Qwen3OmniMoeThinkerForConditionalGeneration
    turn = Turn(
        None,
        "<|im_start|>user\n<|audio_start|>{sound}<|audio_end|>{question}<|im_end|>\n<|im_start|>assistant\n",
        borders=("<|audio_start|>", "<|audio_end|>"),
    )

    @classmethod
    def read_features(cls, folder: Path, config: Any) -> Any:
        return read_extractor(folder, config.audio_config.num_mel_bins)

    def features(self, waveform: np.ndarray) -> torch.Tensor:
        found = self.extractor(
            waveform, sampling_rate=SAMPLE_RATE, padding=True, truncation=False, return_attention_mask=True,
            return_tensors="pt",
        )  # fmt: skip
        return found.input_features[0][:, found.attention_mask[0].bool()]

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        mel = features.to(self.llm.device, self.llm.dtype)
        return self.encoder(mel, feature_lens=torch.tensor([mel.shape[1]], device=mel.device)).last_hidden_state

    def n_audio(self, n_samples: int) -> int:
        chunks, rest = divmod(n_samples // self.extractor.hop_length, CHUNK)
        for _ in range(3):
            rest = (rest - 1) // 2 + 1
        return chunks * POSITIONS + rest
