"""A LoRA that comes with a checkpoint, merged into its weights: W + (alpha / r) · B · A.

    tensors |= merged(folder, "speech-lora", config, tensors)

peft is not needed, and without it transformers would load such a checkpoint without its adapter.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from errors import UserError
from models.checkpoint import is_finite
from models.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_json

# What would make another sum of it than the one above, and the values with which it does not.
PLAIN = {
    "use_dora": (None, False),
    "use_rslora": (None, False),
    "fan_in_fan_out": (None, False),
    "lora_bias": (None, False),
    "bias": (None, "none"),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
}
KEY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<half>[AB])(?:\.\w+)?\.weight")


def merged(
    folder: Path, adapter: str, config: Mapping[str, Any], weights: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The weights that the adapter in `folder/adapter` changes, in float32; none where the model has no adapter.

    `weights` are the checkpoint's, by name: tensors or slices of safetensors. Raises `UserError` where the model needs
    an adapter that is not there, and for one that cannot be merged exactly.
    """
    where = folder / adapter
    if config.get("has_lora_adapter") is False:  # Granite's configuration says so; Phi-4's says nothing, and has one
        if (where / ADAPTER_CONFIG).is_file():
            raise UserError(f"{where / ADAPTER_CONFIG}: config.json says that there is no LoRA; fetch both files again")
        return {}
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (where / name).is_file():
            raise UserError(f"{where / name}: missing; the model hears by the LoRA in it, so fetch it")
    return _merged(where, weights)


def _merged(where: Path, weights: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    settings = read_json(where / ADAPTER_CONFIG)
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    numbers = all(type(value) in (int, float) and value > 0 for value in (rank, alpha))
    odd = [key for key, plain in PLAIN.items() if settings.get(key) not in plain]
    if settings.get("peft_type", "LORA") != "LORA" or not numbers or odd:
        what = ", ".join(odd) or "peft_type, r and lora_alpha"
        raise UserError(
            f"{where / ADAPTER_CONFIG}: {what} cannot be merged here; merge it with peft and save the model"
        )
    path = where / ADAPTER_WEIGHTS
    try:
        tensors = load_file(path)
    except Exception as error:  # safetensors has several
        raise UserError(f"{path}: not a readable safetensors file ({str(error)[:120]}); fetch it again") from None
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        found = KEY.fullmatch(name)
        if not found:
            raise UserError(f"{path}: {name} is no part of a LoRA of linear layers; fetch it again")
        if not is_finite(tensor):
            raise UserError(f"{path}: {name} holds NaN or infinite values; fetch the file again")
        halves.setdefault(found["module"], {})[found["half"]] = tensor.float()
    if not halves:
        raise UserError(f"{path}: holds no tensors; fetch it again")
    return dict(_changed(path, module, pair, weights, alpha / rank) for module, pair in halves.items())


def _changed(
    path: Path, module: str, pair: Mapping[str, torch.Tensor], weights: Mapping[str, Any], scale: float
) -> tuple[str, torch.Tensor]:
    # The names before `layers` differ between an adapter and a base that were saved by different versions.
    tail = "layers." + module.partition("layers.")[2] + ".weight"
    names = [name for name in weights if name.endswith(tail) and name[: -len(tail)].endswith(("model.", "."))]
    if len(names) != 1 or pair.keys() != {"A", "B"}:
        raise UserError(f"{path}: {module} has {len(names)} places in the weights, or half a LoRA; fetch both again")
    weight = weights[names[0]][:].float()
    if (pair["B"].shape[0], pair["A"].shape[1]) != weight.shape or pair["B"].shape[1] != pair["A"].shape[0]:
        raise UserError(f"{path}: {module} has another shape than {names[0]}; take both from one checkpoint")
    return names[0], weight + scale * (pair["B"] @ pair["A"])
