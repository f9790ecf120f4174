"""Qwen2.5-Omni's thinker: an encoder in blocks of 2 s, and a Qwen2 decoder with positions in three axes.

25 frames a second. With sound only, the three axes are equal, and the decoder makes them by itself. The folder may be
that of the whole model or of the thinker alone. The talker is not read, and the image encoder is not kept. The maximum
audio length is 300 s (arXiv 2503.20215).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from voicepatch.models.mel import log_mel, read_extractor
from voicepatch.models.pretrained import Pretrained
from voicepatch.models.tokens import Turn

SYSTEM = "You are a helpful assistant."
WINDOW = 480_000  # samples; the encoder masks its padding, so the processor's padding to 300 s would change nothing


class Qwen25Omni(Pretrained):
    """The thinker with the interface of `SpeechLM`."""

    outer_class = Qwen2_5OmniThinkerForConditionalGeneration
    max_windows = 1  # of 300 s
    turn = Turn(
        SYSTEM,
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|audio_bos|>{{sound}}<|audio_eos|>{{question}}"
        "<|im_end|>\n<|im_start|>assistant\n",
        borders=("<|audio_bos|>", "<|audio_eos|>"),
    )

    @classmethod
    def read_features(cls, folder: Path, config: Any) -> Any:
        return read_extractor(folder, config.audio_config.num_mel_bins, chunk_length=300)

    def features(self, waveform: np.ndarray) -> torch.Tensor:
        mel, n_frames = log_mel(self.extractor, waveform[: self.max_samples], min(WINDOW, self.extractor.n_samples))
        return mel[:, :n_frames]

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        mel = features.to(self.llm.device, self.llm.dtype)
        return self.encoder(mel, feature_lens=torch.tensor([mel.shape[1]], device=mel.device)).last_hidden_state
