"""Qwen2-Audio: Whisper's encoder with a pool, a linear projector, and a Qwen2 decoder; 25 frames a second.

The class of the encoder is OpenS2S's too, but here a mask keeps the encoder from the padding: without one the frames
differ. The maximum audio length is 30 s; a longer clip is cut, as by the model's own processor (arXiv 2407.10759).
"""

import numpy as np
import torch
from transformers import Qwen2AudioForConditionalGeneration
from transformers.masking_utils import create_bidirectional_mask

from voicepatch.models.mel import log_mel, pooled_length
from voicepatch.models.pretrained import Pretrained
from voicepatch.models.tokens import Turn

SYSTEM = "You are a helpful assistant."


class Qwen2Audio(Pretrained):
    """Qwen2-Audio with the interface of `SpeechLM`."""

    outer_class = Qwen2AudioForConditionalGeneration
    max_windows = 1
    turn = Turn(
        SYSTEM,
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nAudio 1: <|audio_bos|>{{sound}}<|audio_eos|>\n"
        "{question}<|im_end|>\n<|im_start|>assistant\n",
        borders=("<|audio_bos|>", "<|audio_eos|>"),
    )

    def features(self, waveform: np.ndarray) -> tuple[torch.Tensor, int]:
        return log_mel(self.extractor, waveform[: self.max_samples])

    def encode(self, features: tuple[torch.Tensor, int]) -> torch.Tensor:
        mel, n_frames = features
        mel = mel[None].to(self.encoder.device, self.encoder.dtype)
        is_sound = torch.arange(mel.shape[-1] // 2, device=mel.device) < (n_frames - 1) // 2 + 1
        like = torch.zeros(1, len(is_sound), 1, dtype=mel.dtype, device=mel.device)
        mask = create_bidirectional_mask(
            config=self.encoder.config, inputs_embeds=like, attention_mask=is_sound[None].long()
        )
        states = self.encoder(mel, attention_mask=mask).last_hidden_state
        return self.projector(states)[0, : pooled_length(n_frames)]
