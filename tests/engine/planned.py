"""Places in a decoder at which the tests of the planner read and write."""

import torch

LAYER = 1
SITES = {
    "input": ("", "input"),
    "output": ("", "output"),
    "attention": ("self_attn", "output"),
    "mlp": ("mlp", "output"),
    "o_proj": ("self_attn.o_proj", "input"),
    "q_proj": ("self_attn.q_proj", "output"),
    "k_norm": ("self_attn.k_norm", "output"),
    "mlp input": ("mlp", "input"),
    "norm": ("post_attention_layernorm", "output"),
    "down_proj": ("mlp.down_proj", "input"),
}


def place(lm, layer, path, end):
    """The value there, through `lm.layers`."""
    module = lm.layers[layer]
    for name in path.split(".") if path else ():
        module = getattr(module, name)
    value = getattr(module, end)
    return value[0] if isinstance(value, tuple) else value


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
