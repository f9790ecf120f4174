"""Audio Flamingo 3: a Whisper-like encoder over windows of 30 s, a projector of two layers, and a Qwen2 decoder.

25 frames a second. No token stands between the sound and the text. The maximum audio length is 600 s (arXiv
2507.08128).
"""

import numpy as np
import torch
from transformers import AudioFlamingo3ForConditionalGeneration

from voicepatch.models.mel import log_mel, pooled_length
from voicepatch.models.pretrained import Pretrained
from voicepatch.models.tokens import Turn

SYSTEM = "You are a helpful assistant."


class AudioFlamingo3(Pretrained):
    """Audio Flamingo 3 with the interface of `SpeechLM`."""

    outer_class = AudioFlamingo3ForConditionalGeneration
    max_windows = 20
    turn = Turn(
        SYSTEM,
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{{sound}}{{question}}<|im_end|>\n"
        "<|im_start|>assistant\n",
    )

    def features(self, waveform: np.ndarray) -> list[tuple[torch.Tensor, int]]:
        """The mel of each window, as of a clip of its own, and its number of frames of sound."""
        size = self.extractor.n_samples
        waveform = waveform[: self.max_samples]
        return [log_mel(self.extractor, waveform[start : start + size]) for start in range(0, len(waveform), size)]

    def encode(self, features: list[tuple[torch.Tensor, int]]) -> torch.Tensor:
        return torch.cat([self._window(number, *window) for number, window in enumerate(features)])

    def _window(self, number: int, mel: torch.Tensor, n_frames: int) -> torch.Tensor:
        mel = mel[None].to(self.encoder.device, self.encoder.dtype)
        is_sound = (torch.arange(mel.shape[-1], device=mel.device) < n_frames)[None].long()
        states = self.encoder(mel, input_features_mask=is_sound).last_hidden_state
        return self.projector(self._in_time(number, states))[0, : pooled_length(n_frames)]

    def _in_time(self, number: int, states: torch.Tensor) -> torch.Tensor:
        """The encoder's states of a window `[1, positions, width]`, as the projector reads them."""
        return states
