"""The decoder as an experiment sees it: layers to read, layers to write, a readout. One module for nnsight's habits.

    with lm.trace(pair.b):
        donor = nnsight.save({l: lm.hidden(l)[:, pair.b_span].clone() for l in layers})
    for group in lm.passes(layers):
        with lm.trace(pair.a):
            for l in group:
                lm.branch(l, pair.a_span, donor[l])
            logits = lm.readout().save()        # row 0 is A itself, then A patched at each layer of the group

Inside a trace, layers are used in the order in which they run, and what should outlive it is `.save()`d. A slice keeps
its whole tensor alive, hence `.clone()`. A trace's body is read from its file, so it cannot hold `return` or begin
with `try`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from nnsight import NNsight

from errors import BAD_USAGE, UserError
from models.opens2s_io import ClipInput

ENGINES = ("sweep", "stepwise")


@dataclass(frozen=True)
class Write:
    """What a patched row begins with: `n` positions from `start` on of the output of `layer`, at dose `alpha`.

    `shift` is how far the stream moved there: the norm of the change over the norm of A's own stream.
    """

    layer: int
    start: int
    n: int
    alpha: float
    shift: torch.Tensor


class TracedLM:
    """nnsight around `model.llm_model`, with the number of rows in the batch kept out of sight.

    `engine` decides how a list of layers becomes traces (`passes`) and what `branch` does in them:
    `stepwise` is the textbook procedure, a trace a layer that overwrites A's only row; `sweep` is one trace in which
    the batch grows by one row at every layer, since nothing before a layer depends on the patch in it.
    """

    def __init__(self, llm: torch.nn.Module, engine: str = "sweep"):
        if engine not in ENGINES:
            raise UserError(f"--engine {engine}: unknown; use one of {', '.join(ENGINES)}", BAD_USAGE)
        self.llm, self.engine = llm, engine
        self.n_layers: int = llm.config.num_hidden_layers
        self.writes: list[Write] = []
        self._traced = NNsight(llm)
        self._rows: dict[int, int] = {}

    def trace(self, clip: ClipInput) -> Any:
        """The nnsight tracer of one forward over one clip; use it as `with lm.trace(clip):`."""
        self._rows = {}
        # One unpadded row: its causal mask and rotary table broadcast over the rows that `branch` adds.
        return self._traced.trace(inputs_embeds=clip.inputs_embeds, use_cache=False, logits_to_keep=1)

    def passes(self, layers: Iterable[int]) -> Iterator[tuple[int, ...]]:
        """The groups of layers that share a trace; together their readouts give row 0 and one row a layer, in order."""
        if self.engine == "sweep":
            yield tuple(layers)
            return
        yield ()
        for layer in layers:
            yield (layer,)

    def hidden(self, layer: int) -> torch.Tensor:
        """The residual stream after block `layer`: `[rows, T, hidden]`, whatever type the block returns."""
        return _stream(self._traced.model.layers[layer].output)

    def branch(self, layer: int, span: slice, value: torch.Tensor, alpha: float = 1.0) -> None:
        """Let A go on from here with `(1 - alpha) * A + alpha * value` in the output of `layer` at `span`.

        `value` is `[1, len(span), hidden]`. The new row is noted in `writes`.
        """
        stream = self.hidden(layer)
        row = stream[:1].clone()
        own = row[:, span]
        new = _mixed(layer, own, value, alpha)
        start = range(row.shape[1])[span].start
        self.writes.append(Write(layer, start, own.shape[1], alpha, _relative_shift(own, new)))
        row[:, span] = new
        self._rows[layer] = 0 if self.engine == "stepwise" else len(stream)
        self._set_hidden(layer, row if self.engine == "stepwise" else torch.cat([stream, row]))

    def also(self, layer: int, began: int, span: slice, value: torch.Tensor, alpha: float = 1.0) -> None:
        """Write at a further `layer`, before any `branch` there, into the row that `branch` began at layer `began`."""
        stream = self.hidden(layer).clone()
        row = slice(self._rows[began], self._rows[began] + 1)
        stream[row, span] = _mixed(layer, stream[row, span], value, alpha)
        self._set_hidden(layer, stream)

    def _set_hidden(self, layer: int, stream: torch.Tensor) -> None:
        block = self._traced.model.layers[layer]
        output = block.output
        block.output = (stream, *output[1:]) if isinstance(output, tuple) else stream

    def write_embeddings(self, span: slice, value: torch.Tensor) -> None:
        """Replace what enters the first block at `span` by `value [1, len(span), hidden]`."""
        first = self._traced.model.layers[0]
        stream = first.input.clone()  # the input is the caller's own tensor
        stream[:, span] = value
        first.input = stream

    def readout(self) -> torch.Tensor:
        """Logits at the last position, `[rows, vocabulary]` in float32."""
        return self._traced.lm_head.output[:, -1].float()


def _mixed(layer: int, own: torch.Tensor, value: torch.Tensor, alpha: float) -> torch.Tensor:
    if own.shape != value.shape:
        raise ValueError(
            f"layer {layer}: a value of shape {list(value.shape)} cannot replace A's stream of shape "
            f"{list(own.shape)}; both are [1, positions, hidden]"
        )
    if not 0 < alpha <= 1:
        raise ValueError(f"layer {layer}: alpha is {alpha}, but a dose is in (0, 1]")
    # alpha 1 is the value itself: A + (B - A) would not be, in floating point.
    return value if alpha == 1 else torch.lerp(own, value, alpha)


def _stream(output: torch.Tensor | tuple) -> torch.Tensor:
    # A tuple up to transformers 4.53, a tensor since 4.54; indexing a tensor with [0] would drop the batch.
    return output[0] if isinstance(output, tuple) else output


def _relative_shift(own: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    own, new = own.float(), new.float()
    return (new - own).norm() / own.norm().clamp_min(torch.finfo(torch.float32).tiny)
