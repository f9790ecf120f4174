"""What heads and MLPs add to the residual stream, and what a stream or a part of it adds to the logits.

added = lm.head_output(3, 0, mixed)          # of the input of o_proj
logits = lm.direct(added, stream)
"""

from functools import cached_property
from typing import Any

import torch
from torch import nn

from voicepatch.engine.block_layout import block_layout, residual_multiplier
from voicepatch.errors import UserError
from voicepatch.models.speech_lm import CausalLM


class StreamParts:
    """The parts of a decoder's residual stream. The base of `LM`."""

    def __init__(self, llm: CausalLM):
        self._llm, self._blocks = llm, llm.model.layers
        self.n_layers: int = llm.config.num_hidden_layers
        self.n_heads: int = llm.config.num_attention_heads
        self.residual_multiplier = residual_multiplier(llm)

    def layer(self, number: int) -> int:
        """A non-negative layer number; `IndexError` for a layer that the model does not have."""
        try:
            return range(self.n_layers)[number]
        except IndexError:
            raise IndexError(f"layer {number}: the model has layers 0-{self.n_layers - 1}") from None

    def head_columns(self, layer: int, head: int) -> slice:
        """The columns of a head in the input of `o_proj` of a block."""
        width = self.head_width(layer)
        return slice(head * width, (head + 1) * width)

    def head_width(self, layer: int) -> int:
        """How many columns of the input of `o_proj` a head of a block has."""
        o_proj = self._blocks[self.layer(layer)].self_attn.o_proj
        return o_proj.in_features // self.n_heads

    @property
    def head_dim(self) -> int:
        """The width of a head in every block; `UserError` where blocks differ."""
        widths = sorted({self.head_width(layer) for layer in range(self.n_layers)})
        if len(widths) > 1:
            raise UserError(
                f"lm.head_dim: heads have {' or '.join(map(str, widths))} columns, by block; use "
                "lm.head_columns(layer, head)"
            )
        return widths[0]

    def unembed(self, stream: torch.Tensor) -> torch.Tensor:
        """The final norm and the head, applied to a residual stream `[1, n, hidden]` at its last position.

        Gives logits `[1, vocabulary]` in float32, as `logits` does for the last block's output. `UserError` for a model
        whose final norm is not `model.norm`, or whose head is not `lm_head`.
        """
        norm, head = self._norm_and_head
        # The modules' functions, not the modules: nnsight would take a call for the forward's own.
        return head.forward(norm.forward(stream[:, -1:].as_subclass(torch.Tensor)))[:, -1].float()

    def direct(self, part: torch.Tensor, stream: torch.Tensor) -> torch.Tensor:
        """What a part of the residual stream adds to the logits by itself: direct logit attribution.

        `part` and the last block's output `stream` are `[1, n, hidden]`; of both the last position counts. The final
        norm has the scale that it has for the whole stream, so the logits `[1, vocabulary]`, in float32, of parts that
        sum to the stream sum to its logits. `UserError` for blocks that add more than their parts, a final norm that
        does more than to scale, and a head that is not linear.
        """
        self.check_sums()
        if not self._is_linear:
            raise UserError(f"{type(self._llm).__name__}: its head caps or bends the logits, so parts do not add up")
        norm, head = self._norm_and_head
        part, stream = (value[:, -1:].as_subclass(torch.Tensor).to(self._llm.device) for value in (part, stream))
        # A norm of the root mean square has w * x * s(x); s is that of the whole stream.
        weight = norm.forward(torch.ones_like(stream)).float()
        normed, weighted = norm.forward(stream).float(), weight * stream.float()
        scale = (normed * weighted).sum(-1, keepdim=True) / weighted.square().sum(-1, keepdim=True)
        if not (normed - scale * weighted).norm() <= 1e-2 * normed.norm():  # of a LayerNorm it is NaN
            raise UserError(
                f"{type(self._llm).__name__}: its final norm does more than to scale, so parts do not add up"
            )
        zero, read = torch.zeros_like(stream), (scale * weight * part.float()).to(stream.dtype)
        return (head.forward(read) - head.forward(zero))[:, -1].float()

    def head_output(self, layer: int, head: int, mixed: torch.Tensor) -> torch.Tensor:
        """What one head adds to the stream `[1, n, hidden]`, of the input of `o_proj` `[1, n, heads * head_dim]`."""
        self.check_sums()
        columns = self.head_columns(layer, head)
        alone = torch.zeros_like(mixed.as_subclass(torch.Tensor))
        alone[..., columns] = mixed[..., columns]
        o_proj = self._blocks[self.layer(layer)].self_attn.o_proj
        return self.residual_multiplier * (o_proj.forward(alone) - o_proj.forward(torch.zeros_like(alone)))

    def check_sums(self) -> None:
        """Raise `UserError` where a block gives something else than its input plus its attention's and MLP's outputs.

        Used outside a trace.
        """
        if not self._is_sum:
            raise UserError(
                "the blocks of this model change what attention and MLP give before they add it to the stream, so the "
                "stream is no sum of heads and MLPs; use heads, mlp, components or attribution, which need no sum"
            )

    @cached_property
    def _is_sum(self) -> bool:
        return block_layout(self._llm).is_sum

    @cached_property
    def _is_linear(self) -> bool:
        """Whether twice a stream gives twice the logits, but for rounding."""
        norm, head = self._norm_and_head
        read = norm.forward(self._llm.get_input_embeddings().weight[:1])
        zero, once, twice = (head.forward(factor * read).float() for factor in (0, 1, 2))
        return bool((twice - 2 * once + zero).norm() <= 1e-2 * (twice - zero).norm())

    @property
    def _norm_and_head(self) -> tuple[Any, Any]:
        norm, head = getattr(self._llm.model, "norm", None), getattr(self._llm, "lm_head", None)
        if not isinstance(norm, nn.Module) or not isinstance(head, nn.Module):
            missing = "final norm (model.norm)" if not isinstance(norm, nn.Module) else "head (lm_head)"
            raise UserError(f"{type(self._llm).__name__}: its {missing} is not found, so no stream can be read out")
        return norm, head
