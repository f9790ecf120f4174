"""Music Flamingo: Audio Flamingo 3 with tokens around the sound, and with the time of each frame in it.

25 frames a second. The encoder's states are rotated by the time at which they stand in the clip. The maximum audio
length is 1200 s (arXiv 2511.10289).
"""

import torch
from transformers import MusicFlamingoForConditionalGeneration
from transformers.models.musicflamingo.modeling_musicflamingo import apply_rotary_time_emb

from voicepatch.models.audio_flamingo3 import AudioFlamingo3
from voicepatch.models.tokens import Turn

# The chat template of the checkpoint writes this where a conversation has no system turn.
SYSTEM = (
    "You are Music Flamingo, a multimodal assistant for language and music. On each turn you receive an audio clip "
    "which contains music and optional text, you will receive at least one or both; use your world knowledge and "
    "reasoning to help the user with any task. Interpret the entirety of the content any input music--regardlenss of "
    "whether the user calls it audio, music, or sound."
)


class MusicFlamingo(AudioFlamingo3):
    """Music Flamingo with the interface of `SpeechLM`."""

    outer_class = MusicFlamingoForConditionalGeneration
    max_windows = 40
    turn = Turn(
        SYSTEM,
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|sound_bos|>{{sound}}<|sound_eos|>{{question}}"
        "<|im_end|>\n<|im_start|>assistant\n",
        borders=("<|sound_bos|>", "<|sound_eos|>"),
        adds_borders=True,
    )

    def __init__(self, outer: MusicFlamingoForConditionalGeneration, extractor: object):
        super().__init__(outer, extractor)
        self._rotary, self._seconds = outer.model.pos_emb, 4 * outer.config.audio_frame_step

    def _in_time(self, number: int, states: torch.Tensor) -> torch.Tensor:
        n = states.shape[1]
        seconds = number * n * self._seconds + torch.arange(n, device=states.device) * self._seconds
        return apply_rotary_time_emb(states, *self._rotary(seconds[None], seq_len=n))
