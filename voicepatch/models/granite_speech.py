"""Granite Speech: a conformer, a Q-Former of 3 frames for every 15 pairs of mel frames, and a Granite decoder.

About 10 frames a second. Granite multiplies embeddings on their way into block 0 and divides the logits. The class of
transformers leaves the division out; both are put where experiments see them: the product in `embed` and `encode`, the
division in the head. The LoRA of 3.3 is merged. Made for transcription and translation (arXiv 2505.08699).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import GraniteSpeechForConditionalGeneration, GraniteSpeechPlusForConditionalGeneration
from transformers.audio_utils import mel_filter_bank

from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.models.mel import check_fixed, read_settings
from voicepatch.models.pretrained import Decoder, Pretrained
from voicepatch.models.speech_lm import Prompt
from voicepatch.models.tokens import Tokens, Turn, read_prompt

# The system turn of the model card of 3.3, with a fixed date; the models after it have none by default.
SYSTEM = (
    "Knowledge Cutoff Date: April 2024.\nToday's Date: December 19, 2024.\n"
    "You are Granite, developed by IBM. You are a helpful AI assistant"
)
N_FFT, WINDOW, HOP, BINS = 512, 400, 160, 80
TURN = "<|start_of_role|>user<|end_of_role|>{sound}{question}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
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

    outer_class = GraniteSpeechForConditionalGeneration

    def __init__(self, outer: GraniteSpeechForConditionalGeneration, extractor: None):
        config, text = outer.config, outer.model.language_model
        self.llm = Decoder(text, ScaledHead(outer.lm_head, config.text_config.logits_scaling))
        self.encoder, self.projector = outer.model.encoder, outer.model.projector
        self._block, self._of_a_block = config.window_size, config.window_size // config.downsample_rate
        self._multiplier, text.embedding_multiplier = text.embedding_multiplier, 1.0

    @classmethod
    def read_features(cls, folder: Path, config: Any) -> None:
        """Check the settings of the features, which `log_mel_pairs` makes."""
        path, settings = read_settings(folder)
        inner = settings.get("melspec_kwargs")
        check_fixed(path, (inner if isinstance(inner, dict) else {}) | settings, FIXED)

    @classmethod
    def read_prompt(cls, folder: Path, config: Any, question: str, labels: Sequence[str]) -> tuple[Tokens, Prompt]:
        turn = Turn(None, TURN, message="{sound}{question}")
        if config.has_lora_adapter:
            system = f"<|start_of_role|>system<|end_of_role|>{SYSTEM}<|end_of_text|>\n"
            turn = Turn(SYSTEM, system + TURN, message=turn.message)
        return read_prompt(folder, config.audio_token_id, turn, question, labels)

    def features(self, waveform: np.ndarray) -> torch.Tensor:
        return log_mel_pairs(torch.from_numpy(waveform))

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        states = self.encoder(features[None].to(self.llm.device, self.llm.dtype)).last_hidden_state
        return self.projector(states)[0] * self._multiplier

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        return super().embed(ids) * self._multiplier

    def n_audio(self, n_samples: int) -> int:
        return math.ceil((n_samples // HOP + 1) // 2 / self._block) * self._of_a_block


class GraniteSpeechPlus(GraniteSpeech):
    """Granite Speech plus: its Q-Former also reads the outputs of earlier blocks of the conformer.

    Which ones, `cat_hidden_layers` of the configuration says. The encoder puts them beside its last output.
    """

    outer_class = GraniteSpeechPlusForConditionalGeneration


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
