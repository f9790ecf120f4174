"""An adapter (LoRA) merged into the weights of a loaded model: W + (alpha / r) · B · A, alpha / √r for an rsLoRA.

    merge_adapter(Path("runs/my-lora"), outer, decoder)

Plain LoRA and rsLoRA are merged here, so that the result does not depend on what is installed. The other kinds in
`WITH_PEFT` are merged by peft, an optional requirement; all others are errors.
"""

import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import rename_source_key

from voicepatch.errors import UserError
from voicepatch.models.checkpoint import is_finite
from voicepatch.models.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_json

# The keys of peft's LoraConfig for which the sum above is right, with their values: any value for None.
PLAIN: dict[str, tuple[Any, ...] | None] = {
    **dict.fromkeys(("r", "lora_alpha", "use_rslora")),  # part of the sum
    # Provenance, training, and the modules with a LoRA, which the names of the tensors give too.
    **dict.fromkeys(("auto_mapping", "base_model_name_or_path", "revision", "peft_version", "task_type")),
    **dict.fromkeys(("inference_mode", "lora_dropout", "megatron_core", "qalora_group_size", "runtime_config")),
    **dict.fromkeys(("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")),
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian"),  # the others change the base weights, or may
}
# Keys that peft needs to merge rightly, with the values for which it does.
WITH_PEFT: dict[str, tuple[Any, ...] | None] = {
    **dict.fromkeys(("rank_pattern", "alpha_pattern", "modules_to_save", "target_parameters")),
    **dict.fromkeys(("use_dora", "lora_bias"), (True,)),
    "bias": ("all", "lora_only"),
    "init_lora_weights": ("pissa", "olora", *(f"pissa_niter_{n}" for n in range(1, 100))),
}
OFF: tuple[Any, ...] = (None, False, "", [], {})  # the values of any other key: the feature of its name is off
PREFIX = "base_model.model."
NAME = re.compile(rf"(?:{re.escape(PREFIX)})?(?P<module>.+?)(?:\.base_layer)*\.(?P<part>lora_\w+(?:\.\w+)*|\w+)")
HALF = re.compile(r"lora_([AB])(?:\.\w+)?\.weight")


def merge_adapter(adapter: Path, outer: nn.Module, decoder: nn.Module) -> None:
    """Merge the adapter of a folder into a model in memory.

    The adapter was trained on the model `outer`, under the names of its class or of its checkpoint, or on the `decoder`
    alone. Raises `UserError` for an adapter of another model and for one that cannot be merged exactly.
    """
    settings, path = read_json(adapter / ADAPTER_CONFIG), adapter / ADAPTER_WEIGHTS
    odd = {key: value for key, value in settings.items() if not _allows(PLAIN.get(key, OFF), value)}
    refused = [_short(key, value) for key, value in odd.items() if not _allows(WITH_PEFT.get(key, ()), value)]
    scale = _scale(settings)
    if refused or scale is None:
        what = ", ".join(refused) or "r, lora_alpha and use_rslora"
        raise UserError(
            f"{adapter / ADAPTER_CONFIG}: {what} cannot be merged here; merge it with peft (merge_and_unload(), then "
            "save_pretrained()) and pass the merged folder"
        )
    tensors = _read(path)
    modules = _modules(path, tensors, outer, decoder, settings.get("base_model_name_or_path"))
    needs_peft = [_short(*one) for one in odd.items()] or [name for name in tensors if not _is_linear(name, modules)]
    if needs_peft:
        _merge_with_peft(adapter, settings, needs_peft[0], tensors, modules)
    else:
        _merge(path, tensors, modules, settings["r"], scale)
    for name, module in modules.items():
        if not all(is_finite(tensor.detach()) for tensor in module.parameters(recurse=False)):
            raise UserError(f"{path}: {name} is not finite after merging; pass --dtype float32")


def _allows(values: tuple[Any, ...] | None, value: Any) -> bool:
    return values is None or value in values


def _short(key: str, value: Any) -> str:
    return f"{key} {json.dumps(value)[:40]}"


def _is_linear(name: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a tensor is half of the LoRA of a linear layer."""
    module, part = _parts(name)
    return HALF.fullmatch(part) is not None and isinstance(modules[module], nn.Linear)


def _parts(name: str) -> tuple[str, str]:
    """The module of an adapter's tensor and the part of it: `layers.0.q_proj` and `lora_A.weight`."""
    found = NAME.fullmatch(name)
    return (found["module"], found["part"]) if found else (name, "")


def _scale(settings: Mapping[str, Any]) -> float | None:
    """The factor of B · A; None where the settings give none."""
    rank: Any = settings.get("r")
    alpha: Any = settings.get("lora_alpha")
    of_root = settings.get("use_rslora") or False
    if type(rank) is not int or rank <= 0 or type(of_root) is not bool:
        return None
    if type(alpha) not in (int, float) or not 0 < alpha < math.inf:
        return None
    return float(alpha / (math.sqrt(rank) if of_root else rank))


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter by name, the first part of which is `PREFIX`."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); fetch it again") from None
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not is_finite(tensor):
            raise UserError(f"{path}: {name} holds NaN, infinite values or no floats; fetch the file again")
    return {PREFIX + name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}


def _modules(
    path: Path, tensors: Iterable[str], outer: nn.Module, decoder: nn.Module, base: str | None
) -> dict[str, nn.Module]:
    """The module that each tensor belongs to, by the module's name where the adapter was trained."""
    names = {_parts(name)[0] for name in tensors}
    outer_modules, renamed = dict(outer.named_modules()), _renaming(outer)
    best: dict[str, nn.Module] = {}
    ways: tuple[tuple[dict[str, nn.Module], Callable[[str], str]], ...] = (
        (outer_modules, str),
        (dict(decoder.named_modules()), str),
        (outer_modules, renamed),
    )
    for modules, name_in in ways:
        found = {name: modules[name_in(name)] for name in sorted(names) if name_in(name) in modules}
        best = found if len(found) > len(best) else best
    if len(best) < len(names) or not names:
        raise UserError(
            f"{path}: holds {min(names - best.keys(), default='no tensor')}, which the base has no module for; it was "
            f"trained on another model ({base}): name that with --base FOLDER"
        )
    return best


def _renaming(outer: nn.Module) -> Callable[[str], str]:
    """From a module's name in the checkpoint to its name in the class, which transformers has changed over time."""
    if not isinstance(outer, PreTrainedModel):
        return str
    renamings = [one for one in get_model_conversion_mapping(outer) if not hasattr(one, "operations")]
    prefix, state, tail = outer.base_model_prefix, outer.state_dict(), ".weight"
    return lambda name: rename_source_key(name + tail, renamings, [], prefix, state)[0].removesuffix(tail)


def _merge(
    path: Path, tensors: Mapping[str, torch.Tensor], modules: Mapping[str, nn.Module], rank: int, scale: float
) -> None:
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        module, part = _parts(name)
        pair = halves.setdefault(module, {})
        half = part[len("lora_")]
        if half in pair:
            raise UserError(f"{path}: holds more than one LoRA for {module}; keep one of them")
        pair[half] = tensor
    for name, pair in halves.items():
        layer = cast(nn.Linear, modules[name])
        rows, columns = layer.weight.shape
        if {half: tuple(tensor.shape) for half, tensor in pair.items()} != {"A": (rank, columns), "B": (rows, rank)}:
            raise UserError(
                f"{path}: {name} has half a LoRA, or another shape than [{rows}, {columns}] with rank {rank}; take "
                "adapter and base from one training"
            )
        a, b = (pair[half].to(layer.weight.device, torch.float32) for half in "AB")
        merged = (layer.weight.float() + scale * (b @ a)).to(layer.weight.dtype)
        # A new parameter: the old one may be another module's too, as with tied embeddings.
        layer.weight = nn.Parameter(merged, requires_grad=False)


def _merge_with_peft(
    adapter: Path,
    settings: Mapping[str, Any],
    what: str,
    tensors: Mapping[str, torch.Tensor],
    modules: Mapping[str, nn.Module],
) -> None:
    """Merge by peft, in a tree with these modules alone, under the names that they had in training.

    `what` is the setting or the tensor that needs peft.
    """
    if find_spec("peft") is None:
        raise UserError(
            f"{adapter / ADAPTER_CONFIG}: {what} needs peft: python -m pip install -r requirements-peft.txt"
        )
    from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

    for module in modules.values():
        for name, value in module.named_parameters(recurse=False):  # as above, no weight that is another module's too
            module.register_parameter(name, nn.Parameter(value.detach().clone(), requires_grad=False))
    on = {key: value for key, value in settings.items() if value not in OFF and key != "runtime_config"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = PeftModel(_tree(modules), LoraConfig(**on | {"inference_mode": True}))
            found = set_peft_model_state_dict(model, dict(tensors))
            missing = get_peft_model_state_dict(model, save_embedding_layers=False).keys() - tensors.keys()
            if others := [*found.unexpected_keys, *sorted(missing)]:
                raise UserError(f"{adapter / ADAPTER_WEIGHTS}: {others[0]} does not fit {what}; fetch both files again")
            merged = model.merge_and_unload()
    except (UserError, MemoryError):
        raise
    except Exception as error:  # of code that is not the program's
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"{adapter}: peft cannot merge it ({reason}); take adapter and base from one training"
        ) from None
    for name, module in modules.items():
        module.load_state_dict(merged.get_submodule(name).state_dict(), assign=True)


def _tree(modules: Mapping[str, nn.Module]) -> nn.Module:
    """A module that holds others under their names, as `layers.0.mlp`."""
    root = nn.Module()
    for path, module in modules.items():
        at, (*parents, last) = root, path.split(".")
        for name in parents:
            if name not in dict(at.named_children()):
                at.add_module(name, nn.Module())
            at = at.get_submodule(name)
        at.add_module(last, module)
    return root
