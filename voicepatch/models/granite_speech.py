"""Granite Speech: a conformer, a Q-Former of 3 frames for every 15 pairs of mel frames, and a Granite decoder.

    model = load(folder)                         # ibm-granite/granite-speech-3.3-2b

About 10 frames a second. Granite multiplies embeddings on their way into block 0 and divides the logits. The class of
transformers leaves the division out; both are put where experiments see them: the product in `embed` and `encode`, the
division in the head. The LoRA of 3.3 is merged. Made for transcription and translation (arXiv 2505.08699).
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import GraniteSpeechForConditionalGeneration
from transformers.audio_utils import mel_filter_bank

from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.errors import UserError
from voicepatch.models.mel import read_settings
from voicepatch.models.pretrained import Decoder, Pretrained, load_outer, outer_config
from voicepatch.models.speech_lm import Prompt
from voicepatch.models.tokens import Turn, read_turn

# What the card of 3.3 gives, with a date that does not move; the models after it have no system turn by default.
SYSTEM = (
    "Knowledge Cutoff Date: April 2024.\nToday's Date: December 19, 2024.\n"
    "You are Granite, developed by IBM. You are a helpful AI assistant"
)
N_FFT, WINDOW, HOP, BINS = 512, 400, 160, 80
FIXED = {"sampling_rate": SAMPLE_RATE, "n_fft": N_FFT, "win_length": WINDOW, "hop_length": HOP, "n_mels": BINS}


class ScaledHead(nn.Module):
    """A head whose output is the answer's logits, the division included."""

    def __init__(self, head: nn.Module, scaling: float):
        super().__init__()
        self.head, self.scaling = head, scaling

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.head(hidden) / self.scaling


class GraniteSpeech(Pretrained):
    """Granite Speech with the interface of `SpeechLM`."""

    def __init__(self, outer: GraniteSpeechForConditionalGeneration, tokenizer: Any, prompt: Prompt):
        config, text = outer.config, outer.model.language_model
        super().__init__(Decoder(text, ScaledHead(outer.lm_head, config.text_config.logits_scaling)), tokenizer, prompt)
        self._encoder, self._projector = outer.model.encoder, outer.model.projector
        self._block, self._of_a_block = config.window_size, config.window_size // config.downsample_rate
        self._multiplier, text.embedding_multiplier = text.embedding_multiplier, 1.0

    def features(self, waveform: np.ndarray) -> torch.Tensor:
        return log_mel_pairs(torch.from_numpy(waveform))

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        states = self._encoder(features[None].to(self.llm.device, self.llm.dtype)).last_hidden_state
        return self._projector(states)[0] * self._multiplier

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        return super().embed(ids) * self._multiplier

    def n_audio(self, n_samples: int) -> int:
        return math.ceil((n_samples // HOP + 1) // 2 / self._block) * self._of_a_block


def log_mel_pairs(samples: torch.Tensor) -> torch.Tensor:
    """Log-mel frames two by two, `[pairs, 160]`, as torchaudio's `MelSpectrogram` gives them to 2e-6."""
    padded = torch.stft(
        samples, N_FFT, HOP, WINDOW, torch.hann_window(WINDOW), center=True, pad_mode="reflect", return_complex=True
    )
    filters = mel_filter_bank(N_FFT // 2 + 1, BINS, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm=None, mel_scale="htk")
    mel = (torch.from_numpy(filters).float().T @ padded.abs().square()).T
    log = mel.clamp_min(1e-10).log10()
    log = torch.maximum(log, log.max() - 8.0) / 4 + 1
    return log[: len(log) // 2 * 2].reshape(-1, 2 * BINS)


def load(folder: Path, device: str | None, dtype: str | None, question: str, labels: Sequence[str]) -> GraniteSpeech:
    """A checkpoint folder, whole or not at all."""
    cls = GraniteSpeechForConditionalGeneration
    config = outer_config(cls, folder)
    path, settings = read_settings(folder)
    inner = settings.get("melspec_kwargs")
    settings = (inner if isinstance(inner, dict) else {}) | settings
    for key, value in FIXED.items():
        if settings.get(key, value) != value:
            raise UserError(f"{path}: {key} is {settings[key]!r}, but Granite Speech has {value!r}; fetch it again")
    system = SYSTEM if config.has_lora_adapter else None
    tokenizer, prompt = read_turn(folder, config.audio_token_id, partial(turn, system), question, labels)
    return GraniteSpeech(load_outer(cls, folder, config, device, dtype), tokenizer, prompt)


def turn(system: str | None, sound: str, question: str) -> Turn:
    """The turn of the model card."""

    def part(role: str, content: str) -> str:
        return f"<|start_of_role|>{role}<|end_of_role|>{content}<|end_of_text|>\n"

    head = part("system", system) if system else ""
    text = head + part("user", sound + question) + "<|start_of_role|>assistant<|end_of_role|>"
    return Turn(system, sound, question, text, inline=True)
