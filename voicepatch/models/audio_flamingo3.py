"""Audio Flamingo 3: a Whisper-like encoder over windows of 30 s, a projector of two layers, and a Qwen2 decoder.

    model = load(folder)                         # nvidia/audio-flamingo-3-hf

25 frames a second. No token stands between the sound and the text. It hears 600 s (arXiv 2507.08128).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AudioFlamingo3ForConditionalGeneration

from voicepatch.models.mel import log_mel, read_extractor
from voicepatch.models.pretrained import Decoder, Pretrained, load_outer, outer_config
from voicepatch.models.qwen2_audio import pooled_length
from voicepatch.models.speech_lm import Prompt
from voicepatch.models.tokens import Turn, read_turn

SYSTEM = "You are a helpful assistant."
MAX_WINDOWS = 20


class AudioFlamingo3(Pretrained):
    """Audio Flamingo 3 with the interface of `SpeechLM`."""

    def __init__(self, outer: AudioFlamingo3ForConditionalGeneration, tokenizer, prompt: Prompt, extractor):
        super().__init__(Decoder(outer.model.language_model, outer.lm_head), tokenizer, prompt)
        self._encoder, self._projector = outer.model.audio_tower, outer.model.multi_modal_projector
        self._extractor = extractor
        self.max_samples = self._most = MAX_WINDOWS * extractor.n_samples

    def features(self, waveform: np.ndarray) -> list[tuple[torch.Tensor, int]]:
        """The mel of each window, as of a clip of its own, and how many frames of it are sound."""
        size = self._extractor.n_samples
        starts = range(0, min(len(waveform), self._most), size)
        return [log_mel(self._extractor, waveform[start : start + size], size) for start in starts]

    def encode(self, features: list[tuple[torch.Tensor, int]]) -> torch.Tensor:
        return torch.cat([self._window(mel, n_frames) for mel, n_frames in features])

    def _window(self, mel: torch.Tensor, n_frames: int) -> torch.Tensor:
        mel = mel[None].to(self._encoder.device, self._encoder.dtype)
        heard = (torch.arange(mel.shape[-1], device=mel.device) < n_frames)[None].long()
        states = self._encoder(mel, input_features_mask=heard).last_hidden_state
        return self._projector(states)[0, : pooled_length(n_frames)]

    def n_audio(self, n_samples: int) -> int:
        return pooled_length(-(-min(n_samples, self._most) // self._extractor.hop_length))


def load(folder: Path, device: str | None, dtype: str | None, question: str, labels: Sequence[str]) -> AudioFlamingo3:
    """A checkpoint folder, whole or not at all."""
    cls = AudioFlamingo3ForConditionalGeneration
    config = outer_config(cls, folder)
    audio = config.audio_config
    extractor = read_extractor(folder, audio.num_mel_bins, 2 * audio.max_source_positions)
    tokenizer, prompt = read_turn(folder, config.audio_token_id, turn, question, labels)
    return AudioFlamingo3(load_outer(cls, folder, config, device, dtype), tokenizer, prompt, extractor)


def turn(sound: str, question: str) -> Turn:
    """The turn of a Qwen2 decoder, the sound before the question."""
    documented = (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{sound}{question}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    return Turn(SYSTEM, sound, question, documented)
