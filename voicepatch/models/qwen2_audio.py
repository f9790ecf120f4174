"""Qwen2-Audio: Whisper's encoder with a pool, a linear projector, and a Qwen2 decoder; 25 frames a second.

    model = load(folder)                         # Qwen/Qwen2-Audio-7B-Instruct

The class of the encoder is OpenS2S's too, but here the encoder must be kept from the padding by a mask: without one
the frames are others. It hears 30 s; what comes after is cut, as by the model's own processor (arXiv 2407.10759).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2AudioForConditionalGeneration
from transformers.masking_utils import create_bidirectional_mask

from voicepatch.models.mel import log_mel, read_extractor
from voicepatch.models.pretrained import Decoder, Pretrained, load_outer, outer_config
from voicepatch.models.speech_lm import Prompt
from voicepatch.models.tokens import Turn, read_turn

SYSTEM = "You are a helpful assistant."
BORDERS = ("<|audio_bos|>", "<|audio_eos|>")


class Qwen2Audio(Pretrained):
    """Qwen2-Audio with the interface of `SpeechLM`."""

    def __init__(self, outer: Qwen2AudioForConditionalGeneration, tokenizer, prompt: Prompt, extractor):
        super().__init__(Decoder(outer.model.language_model, outer.lm_head), tokenizer, prompt)
        self._encoder, self._projector = outer.model.audio_tower, outer.model.multi_modal_projector
        self._extractor = extractor
        self.max_samples = extractor.n_samples

    def features(self, waveform: np.ndarray) -> tuple[torch.Tensor, int]:
        return log_mel(self._extractor, waveform[: self.max_samples], self._extractor.n_samples)

    def encode(self, features: tuple[torch.Tensor, int]) -> torch.Tensor:
        mel, n_frames = features
        encoder = self._encoder
        mel = mel[None].to(encoder.device, encoder.dtype)
        heard = torch.arange(mel.shape[-1] // 2, device=mel.device) < (n_frames - 1) // 2 + 1
        like = torch.zeros(1, len(heard), 1, dtype=mel.dtype, device=mel.device)
        mask = create_bidirectional_mask(config=encoder.config, inputs_embeds=like, attention_mask=heard[None].long())
        states = encoder(mel, attention_mask=mask).last_hidden_state
        return self._projector(states)[0, : pooled_length(n_frames)]

    def n_audio(self, n_samples: int) -> int:
        return pooled_length(-(-min(n_samples, self._extractor.n_samples) // self._extractor.hop_length))


def pooled_length(n_frames: int) -> int:
    """Encoder positions of so many mel frames: a convolution of stride 2, then a pool over 2."""
    return ((n_frames - 1) // 2 - 1) // 2 + 1


def load(folder: Path, device: str | None, dtype: str | None, question: str, labels: Sequence[str]) -> Qwen2Audio:
    """A checkpoint folder, whole or not at all."""
    cls = Qwen2AudioForConditionalGeneration
    config = outer_config(cls, folder)
    audio = config.audio_config
    extractor = read_extractor(folder, audio.num_mel_bins, 2 * audio.max_source_positions)
    tokenizer, prompt = read_turn(folder, config.audio_token_id, turn, question, labels)
    return Qwen2Audio(load_outer(cls, folder, config, device, dtype), tokenizer, prompt, extractor)


def turn(sound: str, question: str) -> Turn:
    """The turn as the model's processor writes it."""
    documented = (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nAudio 1: {BORDERS[0]}{sound}{BORDERS[1]}\n"
        f"{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    return Turn(SYSTEM, sound, question, documented, BORDERS)
