"""Parts of a speech LLM that a family from outside is put together from (docs/own-model.md).

config = AutoConfig.from_pretrained(folder / "llm")
llm = load_module(partial(AutoModelForCausalLM.from_config, config), (folder / "llm", ""), device=device, dtype=dtype)
encoder = load_module(partial(WhisperEncoder, audio), (folder, "audio_tower."), device=device, dtype=dtype)
states = whisper_states(encoder, mel)          # one tensor [1, n, d_model] for each layer
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from voicepatch.errors import UserError
from voicepatch.models.checkpoint import stored_tensors
from voicepatch.models.devices import pick_device, pick_dtype
from voicepatch.models.family import Family
from voicepatch.models.pretrained import check_loaded

Module = TypeVar("Module", bound=nn.Module)


def load_module(
    make: Callable[[], Module], *places: tuple[Path, str], device: str | None = None, dtype: str | None = None
) -> Module:
    """The module that `make` gives with stored weights, in `eval()` mode.

    A place is a folder and the beginning of its tensors' names, which the module's own names lack. The first place that
    holds any such tensor is read. `device` defaults to CUDA where there is one, `dtype` to bfloat16 on CUDA and float32
    elsewhere. Raises `UserError` for weights that are quantised, missing, unexpected, misshapen or not finite.
    """
    target = pick_device(device)
    number_type = pick_dtype(dtype, target)
    paths, folder, prefix = _first_stored(places)
    module = _without_weights(make, number_type)
    own = module.state_dict()
    unexpected = [name for name in paths if name.removeprefix(prefix) not in own]
    misshapen, loaded = [], set()
    with ExitStack() as files, torch.no_grad():
        opened = {path: files.enter_context(safe_open(path, framework="pt")) for path in sorted(set(paths.values()))}
        for name, tensor in ((prefix + name, tensor) for name, tensor in own.items() if prefix + name in paths):
            stored = opened[paths[name]].get_tensor(name)
            if stored.shape != tensor.shape:
                misshapen.append((name, stored.shape, tensor.shape))
                continue
            tensor.copy_(stored)
            loaded.add(tensor.data_ptr())
    # A tensor may be tied to one that is stored.
    missing = [prefix + name for name, tensor in own.items() if tensor.data_ptr() not in loaded]
    found = {"mismatched_keys": misshapen, "missing_keys": missing, "unexpected_keys": unexpected}
    check_loaded(folder, module, found, number_type)
    return module.to(target).eval().requires_grad_(False)


def _first_stored(places: Sequence[tuple[Path, str]]) -> tuple[dict[str, Path], Path, str]:
    for number, (folder, prefix) in enumerate(places, 1):
        with suppress(UserError) if number < len(places) and folder.is_dir() else nullcontext():
            return stored_tensors(folder, Family("", "", print, "", parts=(prefix,))), folder, prefix
    raise ValueError("load_module needs a folder and the beginning of its tensors' names")


def _without_weights(make: Callable[[], Module], dtype: torch.dtype) -> Module:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights():
            module = make()
    finally:
        torch.set_default_dtype(usual)
    # Some classes take their dtype from a configuration. What is not stored, as rotary frequencies, stays in float32.
    weights = {id(weight): weight for weight in module.state_dict(keep_vars=True).values()}
    for weight in weights.values():
        if weight.is_floating_point():
            weight.data = torch.empty_like(weight.data, dtype=dtype)
    if isinstance(module, PreTrainedModel):
        module.tie_weights()
    return module


def whisper_states(
    encoder: WhisperEncoder, mel: torch.Tensor, visible: torch.Tensor | None = None
) -> list[torch.Tensor]:
    """The output of each layer of Whisper's encoder, `[1, n, d_model]`, before its last norm; n is half of the frames.

    `mel [mel_bins, frames]` has at most the frames of Whisper's window, and need not be padded. `visible [n, n]` or
    `[1, n]` says which positions each position attends to; None is all.
    """
    weight = encoder.conv1.weight
    states = F.gelu(encoder.conv1(mel[None].to(weight.device, weight.dtype)))
    states = F.gelu(encoder.conv2(states)).transpose(1, 2)
    states = states + encoder.embed_positions.weight[: states.shape[1]]
    mask = None
    if visible is not None:
        hidden = ~visible.to(weight.device).expand(states.shape[1], -1)
        mask = torch.zeros_like(hidden, dtype=weight.dtype).masked_fill(hidden, torch.finfo(weight.dtype).min)
        mask = mask[None, None]
    found = []
    for layer in encoder.layers:
        states = layer(states, mask)
        found.append(states)
    return found
