"""Voxtral: Whisper's encoder over whole windows of 30 s, four states to a frame, and a Llama decoder.

12.5 frames a second, 375 for each 30 s begun. The encoder has no mask: sound and padding attend to each other, so the
sound of a clip is in all 375 positions, and the span is all of them (arXiv 2507.13264).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import VoxtralForConditionalGeneration

from voicepatch.models.bounded import bounded
from voicepatch.models.mel import log_mel
from voicepatch.models.pretrained import Pretrained
from voicepatch.models.speech_lm import Prompt
from voicepatch.models.tekken import Tekken
from voicepatch.models.tokens import Tokens, tokens_of

SPAN = (
    "all positions of each 30 s begun, the silence after the sound included: the encoder has no mask, so sound and "
    "silence have attended to each other"
)


class Voxtral(Pretrained):
    """Voxtral with the interface of `SpeechLM`."""

    outer_class = VoxtralForConditionalGeneration

    def __init__(self, outer: VoxtralForConditionalGeneration, extractor: Any):
        super().__init__(outer, extractor)
        self._config = outer.config.audio_config

    @classmethod
    def read_prompt(cls, folder: Path, config: Any, question: str, labels: Sequence[str]) -> tuple[Tokens, Prompt]:
        return bounded(_read_prompt, folder, question, labels)

    def features(self, waveform: np.ndarray) -> torch.Tensor:
        """Mel windows `[n_windows, mel_bins, frames]`; their common maximum, not each one's own, sets the floor."""
        mel, _ = log_mel(self.extractor, waveform)
        return torch.stack(mel.split(2 * self._config.max_source_positions, dim=1))

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        weight = self.encoder.conv1.weight
        states = self.encoder(features.to(weight.device, weight.dtype)).last_hidden_state
        return self.projector(states.reshape(-1, self._config.intermediate_size))

    def n_audio(self, n_samples: int) -> int:
        of_a_window = self._config.max_source_positions * self._config.hidden_size // self._config.intermediate_size
        return -(-n_samples // self.extractor.n_samples) * of_a_window


def _read_prompt(folder: Path, question: str, labels: Sequence[str]) -> tuple[Tokens, Prompt]:
    """The tokens of `tekken.json`, and the turn as the tokenizer's library writes it: without a system turn."""
    tokenizer = Tekken(folder / "tekken.json")
    before = [tokenizer.special(name) for name in ("<s>", "[INST]", "[BEGIN_AUDIO]")]
    after = [*tokenizer.encode(question), tokenizer.special("[/INST]")]
    text = f"<s>[INST][BEGIN_AUDIO][AUDIO]{question}[/INST]"
    prompt = Prompt(None, text, before, after, borders=("[BEGIN_AUDIO]", None), span=SPAN)
    return tokens_of(tokenizer, prompt, question, labels), prompt
