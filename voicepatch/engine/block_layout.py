"""The locations in a decoder's blocks, in the order of computing, found by looking at one short forward.

layout = block_layout(llm)
layout.order[3]["mlp", "output"]         # before or after another location of block 3
layout.added_to[3]["mlp", "output"]      # ("post_attention_layernorm", "input"): their sum leaves the block
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from voicepatch.engine.sites import ATTENTION, BLOCK, MASK, MLP, first_of
from voicepatch.models.speech_lm import CausalLM

Location = tuple[str, str]  # path of a module in a block, and "input", "output" or "attention_mask"
N_POSITIONS = 3


@dataclass(frozen=True)
class BlockLayout:
    """For each block: `order` ranks the locations that it passes once, with a row a position.

    `added_to` names, for a location whose value plus that of another one is exactly the block's output, the other one.
    `is_sum` says whether every block gives its input plus what its attention and its MLP give, as far as is known.
    """

    order: list[dict[Location, int]]
    added_to: list[dict[Location, Location]]
    is_sum: bool


class _BlockValues:
    """The values at the locations of one block in a forward."""

    def __init__(self) -> None:
        self.values: dict[Location, torch.Tensor] = {}
        self.excluded: set[Location] = set()

    def see(self, at: Location, value: Any) -> None:
        value = first_of(value)
        if at in self.values or not isinstance(value, torch.Tensor) or value.shape[:2] != (1, N_POSITIONS):
            self.excluded.add(at)
        else:
            self.values[at] = value

    def locations(self) -> dict[Location, torch.Tensor]:
        return {at: value for at, value in self.values.items() if at not in self.excluded and at[0] != BLOCK}

    def added_to(self) -> dict[Location, Location]:
        leaves = self.values.get((BLOCK, "output"))
        if leaves is None:
            return {}
        wide = {at: value for at, value in self.locations().items() if value.shape == leaves.shape}
        return {
            at: other
            for at, value in wide.items()
            for other, residual in wide.items()
            if at[1] == "output" and other[1] == "input" and torch.equal(residual + value, leaves)
        }

    def is_sum(self, multiplier: float) -> bool:
        """Whether the output is the input plus `multiplier` times what attention and MLP give, but for rounding.

        True where a block has no modules of these names, because nothing is known then.
        """
        places = ((BLOCK, "input"), (BLOCK, "output"), (ATTENTION, "output"), (MLP, "output"))
        if not all(place in self.values for place in places):
            return True
        there = self.values[BLOCK, "output"].device  # the input is where the block before left it
        taken, left, attended, computed = (self.values[place].to(there).float() for place in places)
        parts = multiplier * (attended + computed)
        rounding = 2 * torch.finfo(self.values[BLOCK, "output"].dtype).eps * left.norm()
        return bool((left - taken - parts).norm() <= 0.05 * parts.norm() + rounding)


def block_layout(llm: CausalLM) -> BlockLayout:
    """The layout of every block of a decoder."""
    blocks = [_BlockValues() for _ in llm.model.layers]

    def watch(seen: _BlockValues, path: str, module: nn.Module) -> list[Any]:
        def see_input(_: nn.Module, args: Any, kwargs: Any) -> None:
            taken = [*args, *kwargs.values(), None][0]
            seen.see((path, "input"), taken)
            if path == ATTENTION and MASK in kwargs:  # a mask has a row a position, whatever the block is given
                seen.see((path, MASK), taken)

        return [
            module.register_forward_pre_hook(see_input, with_kwargs=True),
            module.register_forward_hook(lambda _, args, output: seen.see((path, "output"), output)),
        ]

    handles = [
        handle
        for seen, block in zip(blocks, llm.model.layers, strict=True)
        for path, module in block.named_modules()
        for handle in watch(seen, path, module)
    ]
    try:
        with torch.inference_mode():
            weight = llm.get_input_embeddings().weight
            llm(inputs_embeds=weight[None, :N_POSITIONS], use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    order = [{at: rank for rank, at in enumerate(seen.locations())} for seen in blocks]
    multiplier = residual_multiplier(llm)
    is_sum = all(seen.is_sum(multiplier) for seen in blocks)
    return BlockLayout(order, [seen.added_to() for seen in blocks], is_sum)


def residual_multiplier(llm: CausalLM) -> float:
    """What Granite's blocks multiply the outputs of attention and MLP by before they add them to the stream; else 1."""
    return getattr(llm.config, "residual_multiplier", 1.0)
