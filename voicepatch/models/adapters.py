"""A LoRA that comes with a checkpoint, merged into its weights: W + (alpha / r) · B · A, alpha / √r for an rsLoRA.

    tensors |= merged(folder, "speech-lora", config, tensors)

peft is not needed, and without it transformers would load such a checkpoint without its adapter.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from voicepatch.errors import UserError
from voicepatch.models.checkpoint import is_finite
from voicepatch.models.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_json

# The keys of peft's LoraConfig for which the sum above is right, with their values: any value for None.
PLAIN = {
    **dict.fromkeys(("r", "lora_alpha", "use_rslora")),  # part of the sum
    # Provenance, training, and the modules with a LoRA, which the names of the tensors give too.
    **dict.fromkeys(("auto_mapping", "base_model_name_or_path", "revision", "peft_version", "task_type")),
    **dict.fromkeys(("inference_mode", "lora_dropout", "megatron_core", "qalora_group_size")),
    "runtime_config": None,
    **dict.fromkeys(("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")),
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian"),  # the others change the base weights, or may
}
OFF: tuple[Any, ...] = (None, False, "", [], {})  # the values of any other key: the feature of its name is off
KEY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<half>[AB])(?:\.\w+)?\.weight")


def merged(
    folder: Path, adapter: str, config: Mapping[str, Any], weights: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The weights that the adapter in `folder/adapter` changes, in float32; none where the model has no adapter.

    `weights` are the checkpoint's, by name: tensors or slices of safetensors. Raises `UserError` where the model needs
    an adapter that is not there, and for one that cannot be merged exactly.
    """
    where = folder / adapter
    if config.get("has_lora_adapter") is False:  # in Granite's configuration
        return {}
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (where / name).is_file():
            raise UserError(f"{where / name}: missing; without the LoRA in it this is another model, so fetch it")
    return _merged(where, weights)


def _merged(where: Path, weights: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    settings = read_json(where / ADAPTER_CONFIG)
    odd = [
        f"{key} {json.dumps(value)[:40]}"
        for key, value in settings.items()
        if value not in (PLAIN[key] or [value] if key in PLAIN else OFF)
    ]
    rank: Any = settings.get("r")
    alpha: Any = settings.get("lora_alpha")
    of_root = settings.get("use_rslora") or False
    numbers = type(rank) is int and rank > 0 and type(alpha) in (int, float) and 0 < alpha < math.inf
    if odd or not numbers or type(of_root) is not bool:
        what = ", ".join(odd) or "r, lora_alpha and use_rslora"
        raise UserError(
            f"{where / ADAPTER_CONFIG}: {what} cannot be merged here; merge it with peft and save the model"
        )
    scale = alpha / (math.sqrt(rank) if of_root else rank)
    path = where / ADAPTER_WEIGHTS
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); fetch it again") from None
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        found = KEY.fullmatch(name)
        if not found:
            raise UserError(f"{path}: {name} is no part of a LoRA of linear layers; fetch it again")
        if not is_finite(tensor):
            raise UserError(f"{path}: {name} holds NaN or infinite values; fetch the file again")
        pair = halves.setdefault(found["module"], {})
        if found["half"] in pair:
            raise UserError(f"{path}: holds more than one LoRA for {found['module']}; keep one of them")
        pair[found["half"]] = tensor.float()
    return dict(_changed(path, module, pair, weights, rank, scale) for module, pair in halves.items())


def _changed(
    path: Path, module: str, pair: Mapping[str, torch.Tensor], weights: Mapping[str, Any], rank: int, scale: float
) -> tuple[str, torch.Tensor]:
    # The names before `layers` differ between an adapter and a base that were saved by different versions.
    tail = "layers." + module.partition("layers.")[2] + ".weight"
    names = [name for name in weights if name.endswith(tail) and name[: -len(tail)].endswith(("model.", "."))]
    if len(names) != 1 or pair.keys() != {"A", "B"}:
        raise UserError(f"{path}: {module} has {len(names)} places in the weights, or half a LoRA; fetch both again")
    weight = weights[names[0]][:].float()
    rows, columns = weight.shape if weight.dim() == 2 else (0, 0)
    if (pair["A"].shape, pair["B"].shape) != ((rank, columns), (rows, rank)):
        raise UserError(
            f"{path}: {module} has another shape than {names[0]} with rank {rank}; take both from one checkpoint"
        )
    return names[0], weight + scale * (pair["B"] @ pair["A"])
