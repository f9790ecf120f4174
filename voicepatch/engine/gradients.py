"""Gradients of a clip's readout at the values of its own run, for first-order estimates of what a write would do.

    gradients = Gradients(llm, recordings)
    gradients.at(clip, (17, 4), Site(3, "mlp", "output"))     # [2, T, width]: of the logits of tokens 17 and 4

One forward and one backward a token give a location at all layers; they are made when they are first needed.
"""

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from voicepatch.engine.block_layout import Location
from voicepatch.engine.failures import Mistake
from voicepatch.engine.recordings import Recordings
from voicepatch.engine.sites import Site, first_of
from voicepatch.models.speech_lm import CausalLM, ClipInput

Tokens = tuple[int, ...]
Found = dict[tuple[Tokens, Location], list[torch.Tensor]]


class Gradients:
    """The gradients of clips, of each location at all layers; they live as long as their `ClipInput`."""

    def __init__(self, llm: CausalLM, recordings: Recordings):
        self._llm, self._recordings = llm, recordings
        self._made: WeakKeyDictionary[ClipInput, Found] = WeakKeyDictionary()
        self._wanted: list[Location] = []

    def at(self, clip: ClipInput, tokens: Tokens, site: Site) -> torch.Tensor:
        """Gradients `[tokens, T, width]` of the readout's logits; `Mistake` for what is not one value a position."""
        if not self._recordings.has(site):
            raise Mistake(f"lm.gradient: {site.name} of layer {site.layer} is not one value with a row a position")
        location = (site.path, site.end)
        if location not in self._wanted:
            self._wanted.append(location)
        found = self._made.setdefault(clip, {})
        if (tokens, location) not in found:
            missing = [other for other in self._wanted if (tokens, other) not in found]
            found |= {(tokens, other): made for other, made in self._compute(clip, tokens, missing).items()}
        return found[tokens, location][site.layer]

    def nbytes(self, clip: ClipInput) -> int:
        """Bytes that the gradients of a clip take on the model's device."""
        return sum(tensor.nbytes for tensors in self._made.get(clip, {}).values() for tensor in tensors)

    def _compute(
        self, clip: ClipInput, tokens: Tokens, locations: Sequence[Location]
    ) -> dict[Location, list[torch.Tensor]]:
        values: dict[Location, list[torch.Tensor]] = {location: [] for location in locations}
        blocks = self._llm.model.layers
        handles = [_watched(block, location, values[location]) for block in blocks for location in locations]
        try:
            # Outside inference mode, whose tensors autograd cannot save. The input requires a gradient, since no weight
            # does.
            with torch.inference_mode(False), torch.enable_grad():
                embeds = clip.inputs_embeds.clone().requires_grad_()
                logits = self._llm(inputs_embeds=embeds, use_cache=False, logits_to_keep=1).logits[0, -1].float()
                if not tokens or not all(0 <= token < len(logits) for token in tokens):
                    raise Mistake(
                        f"lm.gradient: tokens {list(tokens)}: give at least one, each from 0 to {len(logits) - 1}, as "
                        "in lm.gradient(pair.a, pair.label_ids.values())"
                    )
                flat = [value for location in locations for value in values[location]]
                each = [
                    torch.autograd.grad(
                        logits[token], flat, retain_graph=True, allow_unused=True, materialize_grads=True
                    )
                    for token in tokens
                ]
        finally:
            for handle in handles:
                handle.remove()
        together = [torch.cat(of_value) for of_value in zip(*each, strict=True)]
        n = len(blocks)
        return {location: together[i * n : (i + 1) * n] for i, location in enumerate(locations)}


def _watched(block: nn.Module, location: Location, values: list[torch.Tensor]) -> Any:
    """A hook that appends the value at a location of a block in each forward."""
    path, end = location
    module: nn.Module = block.get_submodule(path) if path else block

    def into(_: nn.Module, args: Any, kwargs: Any) -> None:
        values.append([*args, *kwargs.values()][0])

    def out(_: nn.Module, args: Any, output: Any) -> None:
        values.append(first_of(output))

    register: Callable[..., Any] = module.register_forward_pre_hook if end == "input" else module.register_forward_hook
    return register(into, with_kwargs=True) if end == "input" else register(out)
