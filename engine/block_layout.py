"""The places in a decoder's blocks, in the order of computing, found by looking at one short forward.

layout = block_layout(llm)
layout.order[3]["mlp", "output"]         # before or behind another place of block 3
layout.added_to[3]["mlp", "output"]      # ("post_attention_layernorm", "input"): their sum leaves the block
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.sites import BLOCK, first_of

Place = tuple[str, str]  # path of a module in a block, "input" or "output"
N_POSITIONS = 3


@dataclass(frozen=True)
class BlockLayout:
    """For each block: `order` ranks the places that it passes once, with a row a position.

    `added_to` names, for a place whose value plus that of another is exactly what leaves the block, that other.
    """

    order: list[dict[Place, int]]
    added_to: list[dict[Place, Place]]


class _Seen:
    """What passes the places of one block in a forward."""

    def __init__(self) -> None:
        self.values: dict[Place, torch.Tensor] = {}
        self.mixed: set[Place] = set()

    def see(self, place: Place, value: Any) -> None:
        value = first_of(value)
        if place in self.values or not isinstance(value, torch.Tensor) or value.shape[:2] != (1, N_POSITIONS):
            self.mixed.add(place)
        else:
            self.values[place] = value

    def places(self) -> dict[Place, torch.Tensor]:
        return {place: value for place, value in self.values.items() if place not in self.mixed and place[0] != BLOCK}

    def added_to(self) -> dict[Place, Place]:
        leaves = self.values.get((BLOCK, "output"))
        wide = {
            place: value for place, value in self.places().items() if leaves is not None and value.shape == leaves.shape
        }
        return {
            place: other
            for place, value in wide.items()
            for other, residual in wide.items()
            if place[1] == "output" and other[1] == "input" and torch.equal(residual + value, leaves)
        }


def block_layout(llm: nn.Module) -> BlockLayout:
    """The layout of every block of a decoder."""
    blocks = [_Seen() for _ in llm.model.layers]

    def watch(seen: _Seen, path: str, module: nn.Module) -> list[Any]:
        return [
            module.register_forward_pre_hook(
                lambda _, args, kwargs: seen.see((path, "input"), [*args, *kwargs.values(), None][0]), with_kwargs=True
            ),
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
    order = [{place: rank for rank, place in enumerate(seen.places())} for seen in blocks]
    return BlockLayout(order, [seen.added_to() for seen in blocks])
