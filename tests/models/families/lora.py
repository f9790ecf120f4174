"""A plain LoRA as peft writes it, and a copy of the model in which it is merged in another way than the program's."""

import copy
import json

import torch
from safetensors.torch import save_file
from torch import nn

# What peft 0.21.2 writes for LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj", "v_proj"]), the values left out
# that switch a feature off: they are null, false or empty.
PEFT = {
    "bias": "none", "inference_mode": True, "init_lora_weights": True, "lora_alpha": 12, "lora_dropout": 0.1,
    "megatron_core": "megatron.core", "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": 4,
    "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", "revision": "main",
}  # fmt: skip
OFF = {
    **dict.fromkeys(("alora_invocation_tokens", "arrow_config", "auto_mapping", "base_model_name_or_path")),
    **dict.fromkeys(("corda_config", "eva_config", "exclude_modules", "kasa_config", "layer_replication")),
    **dict.fromkeys(("layers_pattern", "layers_to_transform", "lora_ga_config", "megatron_config", "modules_to_save")),
    **dict.fromkeys(("monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora")),
    **{"alpha_pattern": {}, "rank_pattern": {}, "loftq_config": {}, "velora_config": None},
    **dict.fromkeys(("ensure_weight_tying", "fan_in_fan_out", "lora_bias", "use_dora", "use_qalora"), False),
}
FILES = ("adapter_config.json", "adapter_model.safetensors")
PROJECTIONS = ("q_proj", "v_proj", "qkv_proj")


def write_adapter(folder, outer, names, **settings):
    """A plain LoRA of the query and value projections; gives a copy of `outer` in which it is merged by einsum.

    `names` gives the name that a module of `outer` had in training; None leaves it out.
    """
    folder.mkdir(exist_ok=True)
    tensors, generator, changed = {}, torch.Generator().manual_seed(1), copy.deepcopy(outer)
    for name, module in changed.named_modules():
        if name.endswith(PROJECTIONS) and isinstance(module, nn.Linear) and names(name):
            a = torch.randn(4, module.in_features, generator=generator) * 0.1
            b = torch.randn(module.out_features, 4, generator=generator) * 0.1
            key = f"base_model.model.{names(name)}"
            tensors |= {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}
            module.weight.data += torch.einsum("or,ri->oi", b, a) * (6 if settings.get("use_rslora") else 3)
    assert tensors
    save_file(tensors, folder / FILES[1])
    (folder / FILES[0]).write_text(json.dumps(PEFT | OFF | settings))
    return changed
