"""Voxtral: Whisper's encoder over whole windows of 30 s, four states to a frame, and a Llama decoder.

    model = load(folder)                         # mistralai/Voxtral-Mini-3B-2507

12.5 frames a second, 375 for every 30 s begun. The encoder has no mask: the sound and the silence that it is padded
with attend to each other, so what is heard of a clip is in all 375, and the span is all of them (arXiv 2507.13264).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import VoxtralForConditionalGeneration

from voicepatch.models.bounded import At, bounded
from voicepatch.models.labels import LabelTokenizerHelper
from voicepatch.models.mel import log_mel, read_extractor
from voicepatch.models.pretrained import Decoder, Pretrained, load_outer, outer_config
from voicepatch.models.speech_lm import Prompt
from voicepatch.models.tekken import Tekken
from voicepatch.models.tokens import Tokens, settled

BORDERS = ("[BEGIN_AUDIO]", None)
SPAN = (
    "all positions of each 30 s begun, the silence after the sound included: the encoder has no mask, so sound and "
    "silence have attended to each other"
)


class Voxtral(Pretrained):
    """Voxtral with the interface of `SpeechLM`."""

    def __init__(self, outer: VoxtralForConditionalGeneration, tokenizer: Tokens, prompt: Prompt, extractor):
        super().__init__(Decoder(outer.model.language_model, outer.lm_head), tokenizer, prompt)
        self._encoder, self._projector = outer.model.audio_tower, outer.model.multi_modal_projector
        self._extractor, self._config = extractor, outer.config.audio_config

    def features(self, waveform: np.ndarray) -> torch.Tensor:
        """Mel windows `[n_windows, mel_bins, frames]`; their common maximum, not each one's own, sets the floor."""
        mel, _ = log_mel(self._extractor, waveform, self._extractor.n_samples)
        return torch.stack(mel.split(2 * self._config.max_source_positions, dim=1))

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        weight = self._encoder.conv1.weight
        states = self._encoder(features.to(weight.device, weight.dtype)).last_hidden_state
        return self._projector(states.reshape(-1, self._config.intermediate_size))

    def n_audio(self, n_samples: int) -> int:
        of_a_window = self._config.max_source_positions * self._config.hidden_size // self._config.intermediate_size
        return -(-n_samples // self._extractor.n_samples) * of_a_window


def make_turn(tokenizer: Tekken, question: str) -> Prompt:
    """The turn as the tokenizer's library writes it; there is no system turn beside a sound."""
    before = [tokenizer.special(name) for name in ("<s>", "[INST]", "[BEGIN_AUDIO]")]
    after = [*tokenizer.encode(question), tokenizer.special("[/INST]")]
    return Prompt(None, f"<s>[INST][BEGIN_AUDIO][AUDIO]{question}[/INST]", before, after, BORDERS, SPAN)


def read_turn(at: At, folder: Path, question: str, labels: Sequence[str]) -> tuple[Tokens, Prompt]:
    """The tokens of a folder's `tekken.json`, and the turn."""
    at(folder / "tekken.json")
    tokenizer = Tekken(folder / "tekken.json")
    LabelTokenizerHelper(tokenizer, labels)
    return settled(folder, tokenizer, partial(make_turn, tokenizer, question), [*labels, question])


def load(folder: Path, device: str | None, dtype: str | None, question: str, labels: Sequence[str]) -> Voxtral:
    """A checkpoint folder, whole or not at all."""
    cls = VoxtralForConditionalGeneration
    config = outer_config(cls, folder)
    audio = config.audio_config
    extractor = read_extractor(folder, audio.num_mel_bins, 2 * audio.max_source_positions)
    tokenizer, prompt = bounded(read_turn, folder, question, labels)
    return Voxtral(load_outer(cls, folder, config, device, dtype), tokenizer, prompt, extractor)
