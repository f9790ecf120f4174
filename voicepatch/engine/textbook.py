"""Activation patching as in the literature: one forward a layer, with plain hooks. The engines are checked against it.

logits = textbook(llm, embed_a, embed_b, a_span, b_span, layers)
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from voicepatch.engine.sites import first_of
from voicepatch.models.speech_lm import CausalLM

Hook = Callable[[int, torch.Tensor], torch.Tensor | None]


def textbook(
    llm: CausalLM,
    embed_a: Callable[[], torch.Tensor],
    embed_b: Callable[[], torch.Tensor],
    a_span: slice,
    b_span: slice,
    layers: Iterable[int],
    alpha: float = 1.0,
) -> torch.Tensor:
    """`[1 + n_layers, vocabulary]`: A's own readout, then A with B's span written in at each of `layers`.

    `embed_a()` and `embed_b()` give `inputs_embeds [1, T, hidden]` and are called before every forward, so that an
    encoder can be part of it.
    """
    donor: dict[int, torch.Tensor] = {}

    def keep(layer: int, stream: torch.Tensor) -> None:
        donor[layer] = stream[:, b_span].clone()

    with hooked(llm, keep):
        _readout(llm, embed_b())
    rows = [_readout(llm, embed_a())]
    for patched in layers:

        def write(layer: int, stream: torch.Tensor, patched: int = patched) -> torch.Tensor | None:
            if layer != patched:
                return None
            stream = stream.clone()
            stream[:, a_span] = (1 - alpha) * stream[:, a_span] + alpha * donor[layer]
            return stream

        with hooked(llm, write):
            rows.append(_readout(llm, embed_a()))
    return torch.cat(rows)


@contextmanager
def hooked(llm: CausalLM, hook: Hook) -> Iterator[None]:
    """Inside, `hook(layer, stream)` sees every block's output, and replaces it by what it returns, if anything."""

    def forward_hook(layer: int) -> Callable[..., Any]:
        def see(module: torch.nn.Module, args: Any, output: Any) -> Any:
            stream = hook(layer, first_of(output))
            if stream is None:
                return output
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        return see

    handles = [block.register_forward_hook(forward_hook(layer)) for layer, block in enumerate(llm.model.layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _readout(llm: CausalLM, embeds: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return llm(inputs_embeds=embeds, use_cache=False, logits_to_keep=1).logits[:, -1].float()
