"""A speech language model as everything outside `models/` sees it, whatever its family.

    model = load_speech_lm(checkpoint_folder("Qwen/Qwen2-Audio-7B-Instruct"))
    clip = join(model, model.encode(model.features(waveform)))      # inputs_embeds [1, T, hidden], ids, span
    logits = model.llm(inputs_embeds=clip.inputs_embeds, use_cache=False).logits[:, -1]

Positions are always those of the *expanded* sequence, in which each audio frame has a place of its own (SPEC sections 1
and 4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from models.families import family_of
from models.folder import read_config
from models.labels import Tokenizer

PROMPT = "What is the emotion of this audio? Answer with exactly one word: neutral, happy, sad, angry, or surprised."
Embed = Callable[[Sequence[int]], torch.Tensor]  # text `[n, hidden]`, as block 0 reads it
PLACEHOLDER_ID = -200  # stands for the sound in the ids; no row of an embedding table


@dataclass(frozen=True)
class Prompt:
    """The turn, the same for every clip: ids on both sides of the sound, and the whole as text.

    `system` is the system turn, None where the model has none. `borders` are the tokens directly beside the sound,
    None on a side that has no token of its own for it. `span` says what the span holds beside the sound, if anything.
    `date` is what a chat template that asks for the date was given, always the same one; None where none asks.
    """

    system: str | None
    text: str
    before: list[int]
    after: list[int]
    borders: tuple[str | None, str | None] = (None, None)
    span: str | None = None
    date: str | None = None


@dataclass(frozen=True, eq=False)
class ClipInput:
    """One clip as the decoder reads it; equal to itself alone, so that it can be a key.

    `inputs_embeds [1, T, hidden]`, `input_ids [T]` (expanded, -200 at the sound), `audio_indices [n_audio]`.
    """

    inputs_embeds: torch.Tensor
    input_ids: torch.Tensor
    audio_indices: torch.Tensor

    @property
    def span(self) -> slice:
        """The audio positions as a slice of the expanded sequence."""
        return slice(int(self.audio_indices[0]), int(self.audio_indices[-1]) + 1)

    @property
    def n_audio(self) -> int:
        return len(self.audio_indices)

    @property
    def readout_pos(self) -> int:
        """The last position, whose logits predict the first token of the answer."""
        return len(self.input_ids) - 1


class SpeechLM(Protocol):
    """What each family gives.

    `llm` has the face of `Qwen3ForCausalLM`: `model.layers`, `model.norm`, `lm_head`, whose output is the answer's
    logits, `config`, `device`, `dtype`. `max_samples` is how much of a clip the model hears, None for all of it.
    """

    llm: nn.Module
    tokenizer: Tokenizer
    prompt: Prompt
    max_samples: int | None

    def features(self, waveform: np.ndarray) -> Any:
        """What the encoder reads of 16 kHz mono samples; on the processor, and in any thread."""

    def encode(self, features: Any) -> torch.Tensor:
        """The audio frames `[n_audio, hidden]` of one clip, as block 0 reads them; never of several clips together."""

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        """Embeddings of text `[n, hidden]`, as block 0 reads them."""

    def n_audio(self, n_samples: int) -> int:
        """Positions that a clip of so many samples takes, from the duration alone."""


def load_speech_lm(folder: Path, device: str | None = None, dtype: str | None = None) -> SpeechLM:
    """Load a checkpoint folder of any known family; `UserError` for what cannot be loaded whole.

    `device` defaults to CUDA where there is one, `dtype` to bfloat16 on CUDA and float32 elsewhere, whatever the
    checkpoint was saved in.
    """
    return import_module(family_of(read_config(folder)).module).load(folder, device, dtype)


def join(model: SpeechLM, frames: torch.Tensor) -> ClipInput:
    """Audio frames `[n_audio, hidden]` in their place in the prompt."""
    return joined(model.embed, model.prompt.before, model.prompt.after, frames)


def joined(embed: Embed, before: Sequence[int], after: Sequence[int], frames: torch.Tensor) -> ClipInput:
    """Audio frames between the embeddings of the ids on both sides of them."""
    n = len(frames)
    text = embed([*before, *after])
    parts = text.split([len(before), len(after)])
    embeds = torch.cat([parts[0], frames.to(text), parts[1]])[None]
    ids = torch.tensor([*before, *[PLACEHOLDER_ID] * n, *after])
    return ClipInput(embeds, ids, torch.arange(len(before), len(before) + n))
