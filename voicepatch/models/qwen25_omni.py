"""Qwen2.5-Omni's thinker: an encoder in blocks of 2 s, and a Qwen2 decoder with positions in three axes.

    model = load(folder)                         # Qwen/Qwen2.5-Omni-7B, whole, or a thinker alone

25 frames a second. With sound only, the three axes are alike, and the decoder makes them by itself. The talker is not
read, and the image encoder is let go of. It hears 300 s (arXiv 2503.20215).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from voicepatch.models.mel import log_mel, read_extractor
from voicepatch.models.pretrained import Decoder, Pretrained, load_outer, outer_config
from voicepatch.models.qwen2_audio import pooled_length
from voicepatch.models.speech_lm import Prompt
from voicepatch.models.tokens import Turn, read_turn

SYSTEM = "You are a helpful assistant."
BORDERS = ("<|audio_bos|>", "<|audio_eos|>")
WINDOW = 480_000  # samples; the encoder masks its padding, so 300 s of it, as the processor makes, change nothing


class Qwen25Omni(Pretrained):
    """The thinker with the interface of `SpeechLM`."""

    def __init__(self, outer: Qwen2_5OmniThinkerForConditionalGeneration, tokenizer, prompt: Prompt, extractor):
        super().__init__(Decoder(outer.model.language_model, outer.lm_head), tokenizer, prompt)
        self._encoder, self._extractor = outer.model.audio_tower, extractor
        self.max_samples = extractor.n_samples

    def features(self, waveform: np.ndarray) -> torch.Tensor:
        mel, n_frames = log_mel(self._extractor, waveform[: self.max_samples], min(WINDOW, self._extractor.n_samples))
        return mel[:, :n_frames]

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        mel = features.to(self.llm.device, self.llm.dtype)
        return self._encoder(mel, feature_lens=torch.tensor([mel.shape[1]], device=mel.device)).last_hidden_state

    def n_audio(self, n_samples: int) -> int:
        return pooled_length(-(-min(n_samples, self._extractor.n_samples) // self._extractor.hop_length))


def load(folder: Path, device: str | None, dtype: str | None, question: str, labels: Sequence[str]) -> Qwen25Omni:
    """A checkpoint folder, whole or not at all."""
    cls = Qwen2_5OmniThinkerForConditionalGeneration
    config = outer_config(cls, folder)
    extractor = read_extractor(folder, config.audio_config.num_mel_bins, chunk_length=300)
    tokenizer, prompt = read_turn(folder, config.audio_token_id, turn, question, labels)
    return Qwen25Omni(load_outer(cls, folder, config, device, dtype), tokenizer, prompt, extractor)


def turn(sound: str, question: str) -> Turn:
    """The turn as the model's chat template writes it."""
    documented = (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{BORDERS[0]}{sound}{BORDERS[1]}{question}"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    return Turn(SYSTEM, sound, question, documented, BORDERS)
