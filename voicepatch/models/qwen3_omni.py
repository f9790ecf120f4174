"""Qwen3-Omni's thinker: an encoder of 13 frames a second, and a decoder whose MLPs are routed experts.

    model = load(folder)                         # Qwen/Qwen3-Omni-30B-A3B-Instruct, whole, or a thinker alone

The mel of a clip is not padded. The talker is not read, and the image encoder is let go of. A model that thinks before
it answers (…-Thinking) is refused, as its first token is no answer (arXiv 2509.17765).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen3OmniMoeThinkerForConditionalGeneration

from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.models.mel import read_extractor
from voicepatch.models.pretrained import Decoder, Pretrained, load_outer, outer_config
from voicepatch.models.speech_lm import Prompt
from voicepatch.models.tokens import Turn, read_turn

BORDERS = ("<|audio_start|>", "<|audio_end|>")
CHUNK, OF_A_CHUNK = 100, 13  # mel frames that are encoded together, and the positions that they give


class Qwen3Omni(Pretrained):
    """The thinker with the interface of `SpeechLM`."""

    def __init__(self, outer: Qwen3OmniMoeThinkerForConditionalGeneration, tokenizer, prompt: Prompt, extractor):
        super().__init__(Decoder(outer.model.language_model, outer.lm_head), tokenizer, prompt)
        self._encoder, self._extractor = outer.model.audio_tower, extractor

    def features(self, waveform: np.ndarray) -> torch.Tensor:
        found = self._extractor(
            waveform, sampling_rate=SAMPLE_RATE, padding=True, truncation=False, return_attention_mask=True,
            return_tensors="pt",
        )  # fmt: skip
        return found.input_features[0][:, found.attention_mask[0].bool()]

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        mel = features.to(self.llm.device, self.llm.dtype)
        return self._encoder(mel, feature_lens=torch.tensor([mel.shape[1]], device=mel.device)).last_hidden_state

    def n_audio(self, n_samples: int) -> int:
        whole, rest = divmod(n_samples // self._extractor.hop_length, CHUNK)
        for _ in range(3):
            rest = (rest - 1) // 2 + 1
        return whole * OF_A_CHUNK + rest


def load(folder: Path, device: str | None, dtype: str | None, question: str, labels: Sequence[str]) -> Qwen3Omni:
    """A checkpoint folder, whole or not at all."""
    cls = Qwen3OmniMoeThinkerForConditionalGeneration
    config = outer_config(cls, folder)
    extractor = read_extractor(folder, config.audio_config.num_mel_bins)
    tokenizer, prompt = read_turn(folder, config.audio_token_id, turn, question, labels)
    return Qwen3Omni(load_outer(cls, folder, config, device, dtype), tokenizer, prompt, extractor)


def turn(sound: str, question: str) -> Turn:
    """The turn as the model's chat template writes it; it has no system turn of its own."""
    documented = f"<|im_start|>user\n{BORDERS[0]}{sound}{BORDERS[1]}{question}<|im_end|>\n<|im_start|>assistant\n"
    return Turn(None, sound, question, documented, BORDERS)
