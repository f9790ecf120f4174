"""What is recorded of a clip's own, unpatched run, and how a later run stands on it.

    tape = record(traced, clip)                  # one forward, once a clip
    past = Past(tape, 34)                        # the keys and values of its first 34 positions, frozen

A causal decoder never looks ahead, so what stands before the first changed position needs no computing again.
"""

from dataclasses import dataclass
from typing import Any

import nnsight
import torch
from nnsight import NNsight
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from models.opens2s_io import ClipInput


@dataclass(frozen=True)
class Tape:
    """One unpatched run over T positions.

    `streams[l]` is the residual stream after block l, `[1, T, hidden]`; `keys[l]` and `values[l]` are that block's,
    `[1, kv_heads, T, head_dim]`, the keys rotated; `logits [1, vocabulary]` is the readout in float32.
    """

    streams: list[torch.Tensor]
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    logits: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Bytes that the tape holds on the model's device."""
        return sum(tensor.nbytes for tensor in (*self.streams, *self.keys, *self.values, self.logits))


def record(traced: NNsight, clip: ClipInput) -> Tape:
    """Run `clip` once, unpatched, and keep what later runs need of it."""
    n_layers = traced.config.num_hidden_layers
    # The blocks hand their keys and values to any cache that is passed to them, whatever use_cache says.
    cache = DynamicCache()
    with torch.inference_mode():
        with traced.trace(inputs_embeds=clip.inputs_embeds, past_key_values=cache, use_cache=False, logits_to_keep=1):
            streams = nnsight.save([stream_of(traced.model.layers[layer].output) for layer in range(n_layers)])
            logits = traced.lm_head.output[:, -1].float().save()
    return Tape(streams, [layer.keys for layer in cache.layers], [layer.values for layer in cache.layers], logits)


def stream_of(output: torch.Tensor | tuple) -> torch.Tensor:
    """The residual stream in what a block returns."""
    # A tuple up to transformers 4.53, a tensor since 4.54; indexing a tensor with [0] would drop the batch.
    return output[0] if isinstance(output, tuple) else output


class _FrozenLayer(DynamicLayer):
    """Keys and values that new ones are joined to for one attention, and that never change."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor):
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = len(key_states)
        past = (tensor.expand(rows, -1, -1, -1) for tensor in (self.keys, self.values))
        return tuple(torch.cat(both, dim=-2) for both in zip(past, (key_states, value_states), strict=True))


class Past(Cache):
    """The first `n` positions of a recorded run, as a cache that stores nothing: every row stands on the same ones."""

    def __init__(self, tape: Tape, n: int):
        kept = zip(tape.keys, tape.values, strict=True)
        super().__init__(layers=[_FrozenLayer(keys[:, :, :n], values[:, :, :n]) for keys, values in kept])


class _Said(nn.Module):
    """Stands for a block: its output is what the tape holds."""

    def __init__(self, layer: int | None = None):
        super().__init__()
        self.layer = layer

    def forward(self, tape: Tape) -> torch.Tensor:
        return tape.logits[:, None] if self.layer is None else tape.streams[self.layer]


class Replay(nn.Module):
    """A decoder that computes nothing: its blocks and head give what a tape holds, to be traced like the real one."""

    def __init__(self, n_layers: int):
        super().__init__()
        self.model = nn.Module()
        self.model.layers = nn.ModuleList(_Said(layer) for layer in range(n_layers))
        self.lm_head = _Said()

    def forward(self, tape: Tape) -> torch.Tensor:
        for block in self.model.layers:
            block(tape)
        return self.lm_head(tape)
