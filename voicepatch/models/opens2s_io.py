"""From a prompt and a sound to what OpenS2S's decoder reads, and where the sound is in it.

    model = OpenS2SLM.load(folder, "cpu", "float32", question, labels)      # a SpeechLM
    frames = model.encode(model.features(waveform))      # [n_audio, hidden]
    clip = join(model, frames)                           # inputs_embeds [1, T, hidden], expanded ids, span

The one place that knows OpenS2S's system turn, its use of the chat template, and its audio placeholder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from voicepatch.errors import UserError
from voicepatch.models.mel import log_mel, read_extractor
from voicepatch.models.opens2s import OpenS2S, OpenS2SConfig, audio_length
from voicepatch.models.pretrained import Pretrained, outer_config
from voicepatch.models.speech_lm import PLACEHOLDER_ID, Prompt
from voicepatch.models.tokens import Tokens, Turn, read_prompt

SYSTEM = "You are a helpful assistant."
AUDIO_START, AUDIO, AUDIO_END, TTS_START = "<|im_audio_start|>", "<|im_audio|>", "<|im_audio_end|>", "<|im_tts_start|>"
TURN = Turn(
    SYSTEM,
    f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{AUDIO_START}{{sound}}{AUDIO_END}{{question}}<|im_end|>\n"
    f"<|im_start|>assistant\n<think>\n\n</think>\n\n{TTS_START}",
    borders=(AUDIO_START, AUDIO_END),
    end=TTS_START,
    message="{sound}{question}",
)


class OpenS2SLM(Pretrained):
    """OpenS2S with the interface of `SpeechLM`."""

    outer_class = OpenS2S

    def __init__(self, model: OpenS2S, extractor: WhisperFeatureExtractor):
        self.model, self.llm, self.extractor = model, model.llm_model, extractor

    @classmethod
    def read_config(cls, folder: Path, has_weights: bool = True) -> OpenS2SConfig:
        return outer_config(folder, OpenS2SConfig.from_checkpoint, has_weights)

    @classmethod
    def read_features(cls, folder: Path, config: OpenS2SConfig) -> WhisperFeatureExtractor:
        audio = config.audio_encoder_config
        return read_extractor(folder / "audio", audio.num_mel_bins, 2 * audio.max_source_positions)

    @classmethod
    def read_prompt(cls, folder: Path, config: Any, question: str, labels: Sequence[str]) -> tuple[Tokens, Prompt]:
        return read_prompt(folder, AUDIO, TURN, question, labels)

    def features(self, waveform: np.ndarray) -> tuple[torch.Tensor, int]:
        return log_mel(self.extractor, waveform)

    def encode(self, features: tuple[torch.Tensor, int]) -> torch.Tensor:
        return self.model.encode(*features)

    def n_audio(self, n_samples: int) -> int:
        n_convs = len(self.model.audio_adapter.subsampler.conv_layers)
        return audio_length(-(-n_samples // self.extractor.hop_length), self.model.window_frames, n_convs)


def expand_ids(ids: Sequence[int], n_audio: int) -> torch.Tensor:
    """Ids with one placeholder to the expanded ids `[T]`, in which the placeholder stands once for each audio frame."""
    flat = torch.as_tensor(ids, dtype=torch.long).flatten()
    repeats = torch.ones_like(flat)
    repeats[flat == PLACEHOLDER_ID] = n_audio
    return flat.repeat_interleave(repeats)


def find_audio_span(input_ids: Sequence[int] | torch.Tensor) -> torch.Tensor:
    """Positions `[n_audio]` of the run between `<|im_audio_start|>` and `<|im_audio_end|>` in **expanded** ids.

    Raises `UserError` unless there is exactly one run (SPEC section 4).
    """
    indices = (torch.as_tensor(input_ids).flatten() == PLACEHOLDER_ID).nonzero().flatten()
    n_spans = int((indices.diff() != 1).sum()) + 1 if len(indices) else 0
    if n_spans != 1:
        raise UserError(f"the input holds {n_spans} audio spans, but exactly one is needed; give one clip a prompt")
    return indices
