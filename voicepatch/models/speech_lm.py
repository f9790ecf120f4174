"""A speech language model as everything outside `models/` sees it, whatever its family.

    model = load_speech_lm(checkpoint_folder("Qwen/Qwen2-Audio-7B-Instruct"))
    clip = join(model, model.encode(model.features(waveform)))      # inputs_embeds [1, T, hidden], ids, span
    logits = model.llm(inputs_embeds=clip.inputs_embeds, use_cache=False).logits[:, -1]

Positions are always those of the *expanded* sequence, in which each audio frame has a place of its own (SPEC sections 1
and 4).
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.models.adapter_folder import adapter_of
from voicepatch.models.devices import pick_devices, pick_dtype
from voicepatch.models.families import family_of
from voicepatch.models.family import Family, own_code
from voicepatch.models.folder import read_config
from voicepatch.models.labels import Tokenizer
from voicepatch.models.placement import spread
from voicepatch.types.task import Task, default_task

Embed = Callable[[Sequence[int]], torch.Tensor]  # text `[n, hidden]`, as block 0 reads it
PLACEHOLDER_ID = -200  # stands for the sound in the ids; no row of an embedding table


@dataclass(frozen=True)
class Prompt:
    """The turn, the same for every clip: ids on both sides of the sound, and the complete text.

    `system` is the system turn, None where the model has none. `borders` are the tokens directly beside the sound,
    None on a side without such a token. `span` describes what the span holds beside the sound, if anything.
    `date` is the fixed date that a chat template gets if it asks for the date; None if it does not.
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


class CausalLM(Protocol):
    """The part of transformers' `Qwen3ForCausalLM` that is used of a decoder.

    `model.layers` are its blocks, `model.norm` its final norm, and the output of `lm_head` is the answer's logits.
    """

    config: Any
    model: Any
    lm_head: Any

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def get_input_embeddings(self) -> Any: ...

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...


class SpeechLM(Protocol):
    """The interface of a model, which each family gives.

    `llm` is the decoder. `max_samples` is the maximum audio length, None for no maximum. A model may also have
    `reference(waveform)`, the logits `[vocabulary]` that its own code gives for a clip: they are compared with those
    here before anything is measured. One that has `ask(question, labels)`, which gives the same weights with another
    prompt, can be asked several questions without being loaded again; `labels` are what it may write as an answer.
    """

    llm: CausalLM
    tokenizer: Tokenizer
    prompt: Prompt
    max_samples: int | None

    def features(self, waveform: np.ndarray) -> Any:
        """The encoder's input for 16 kHz mono samples; computed on the processor, in any thread."""

    def encode(self, features: Any) -> torch.Tensor:
        """The audio frames `[n_audio, hidden]` of one clip, as block 0 reads them; never of several clips together."""

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        """Embeddings of text `[n, hidden]`, as block 0 reads them."""

    def n_audio(self, n_samples: int) -> int:
        """Positions that a clip of `n_samples` samples takes, from the duration alone."""


def load_speech_lm(
    folder: Path,
    device: str | None = None,
    dtype: str | None = None,
    task: Task | None = None,
    random_weights: int | None = None,
    adapter: Path | None = None,
) -> SpeechLM:
    """Load a checkpoint folder of any known family; `UserError` for what cannot be loaded completely.

    `task` is the emotion task for None. `random_weights` is the seed of random weights, None for the checkpoint's own.
    `adapter` is the folder of an adapter to merge, None for the one in the checkpoint's folder, if any. A family from
    outside gets the question, the labels, the seed and the adapter's folder if its `load` has parameters of the names
    `question`, `labels`, `random_weights` and `adapter`; `UserError` where a seed or an adapter is given and it has no
    such parameter.

    `device` defaults to CUDA where there is one, `dtype` to bfloat16 on CUDA and float32 elsewhere, whatever the
    checkpoint was saved in. Of several devices, as in `cuda:0,cuda:1`, each gets some of the decoder's blocks.
    """
    devices = pick_devices(device)
    if len(devices) > 1:
        chosen = str(pick_dtype(dtype, devices[0])).removeprefix("torch.")
        model = load_speech_lm(folder, "cpu", chosen, task, random_weights, adapter)
        spread(model, devices)
        return model
    config = read_config(folder)
    family, task = family_of(config), task or default_task()
    adapter = adapter_of(folder, family, config, adapter)
    if family.is_builtin:
        return family.load(folder, device, dtype, task.asked(), task.texts, random_weights, adapter)
    more = {"question": task.asked(), "labels": task.texts, "random_weights": random_weights, "adapter": adapter}
    parameters = inspect.signature(family.load).parameters
    if random_weights is not None and "random_weights" not in parameters:
        raise UserError(
            f"--random-weights: {family.where}: load has no parameter random_weights, the seed of the weights that it "
            "draws; add one, or leave the option out",
            BAD_USAGE,
        )
    if adapter is not None and family.adapter is None and "adapter" not in parameters:
        raise UserError(
            f"{adapter}: {family.where}: load has no parameter adapter, the folder of the adapter that it merges; add "
            "one, or merge the adapter with peft (merge_and_unload(), then save_pretrained())"
        )
    with own_code(family, "load"):
        model = family.load(folder, device, dtype, **{name: more[name] for name in more if name in parameters})
    check_speech_lm(model, family)
    return model


def family_of_model(model: SpeechLM) -> Family:
    """The family of a model that was loaded elsewhere: its class; `UserError` where it is no `SpeechLM`."""
    kind = type(model)
    family = Family(kind.__name__, "", lambda *_: model, f"{sys.modules[kind.__module__].__dict__.get('__file__')}:1")
    check_speech_lm(model, family)
    return family


def check_speech_lm(model: Any, family: Family) -> None:
    """Raise `UserError` where a model from outside lacks something that a `SpeechLM` has."""
    for owner, names in (
        ("the model", ("llm", "tokenizer", "prompt", "max_samples", "features", "encode", "embed", "n_audio")),
        ("its llm", ("model.layers", "model.norm", "lm_head", "config.num_hidden_layers", "config.hidden_size")),
        ("its llm", ("device", "dtype")),
    ):
        for name in names:
            found = model if owner == "the model" else model.llm
            for part in name.split("."):
                if not hasattr(found, part):
                    raise UserError(f"{family.where}: {owner} has no {name}; docs/own-model.md lists what a model has")
                found = getattr(found, part)
    if not isinstance(model.prompt, Prompt):
        raise UserError(f"{family.where}: the model's prompt is no voicepatch.Prompt")


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
