"""The decoder as an experiment sees it: layers to read, layers to write, a readout. One module for nnsight's habits.

    with lm.unpatched(pair.b):                          # B's own run
        donor = nnsight.save({l: lm.hidden(l)[:, pair.b_span].clone() for l in layers})
    for group in lm.passes(layers):
        with lm.trace(pair.a, known=pair.known()):      # A's run, to be written into
            for l in group:
                lm.branch(l, pair.a_span, donor[l])
            logits = lm.readout().save()                # row 0 is A itself, then A patched at each layer of the group

Inside a trace, layers are used in the order in which they run, and what should outlive it is `.save()`d. A slice keeps
its whole tensor alive, hence `.clone()`. A trace's body is read from its file, so it cannot hold `return` or begin
with `try`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from nnsight import NNsight

from errors import BAD_USAGE, UserError
from interventions.core.tape import Past, Replay, Tape, record, stream_of
from models.opens2s_io import ClipInput

ENGINES = ("auto", "tail", "sweep", "stepwise")
# `(clip, n)`: at every layer, the first n positions of the patched rows are those of `clip`'s own run.
Known = tuple[ClipInput, int]


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


@dataclass(frozen=True)
class _Tail:
    """A trace over the positions from `n` on alone; `own` is A's record, `past` the one that the first n are from."""

    n: int
    own: Tape
    past: Tape


class TracedLM:
    """nnsight around `model.llm_model`, with rows, and positions that need no computing, kept out of sight.

    `engine` decides how a list of layers becomes traces (`passes`) and what is computed in them:

    - `stepwise` is the textbook procedure, a trace a layer that overwrites A's only row.
    - `sweep` is one trace in which the batch grows by one row at every layer, since nothing before a layer depends on
      the patch in it.
    - `tail` is a sweep over the positions that a patch can still change. What stands before them, and A's own row, come
      from the clips' unpatched runs, which are recorded once a clip (a record lives as long as its `ClipInput`).
    - `auto` is `tail` where every block attends to all positions before, else `sweep`.

    `max_rows` bounds the patched rows of one trace; a longer sweep is split.
    """

    def __init__(self, llm: torch.nn.Module, engine: str = "auto", max_rows: int | None = None):
        self.llm, self.engine, self.max_rows = llm, _resolved(llm, engine), max_rows
        self.n_layers: int = llm.config.num_hidden_layers
        self.writes: list[Write] = []
        self._model = NNsight(llm)
        self._replay = NNsight(Replay(self.n_layers))
        self._tapes: WeakKeyDictionary[ClipInput, Tape] = WeakKeyDictionary()
        self.reset()

    def reset(self) -> None:
        """Forget the writes and the place in a sweep; clips' records stay."""
        self.writes.clear()
        self._unlike: list[torch.Tensor] = []
        self._first_pass = True
        self._begin(self._model)

    def _begin(self, traced: NNsight, tail: _Tail | None = None) -> None:
        self._traced, self._tail = traced, tail
        self._rows: dict[int, int] = {}

    def unpatched(self, clip: ClipInput) -> Any:
        """The nnsight tracer of a clip's own run, to read and not to write; use it as `with lm.unpatched(clip):`."""
        if self.engine != "tail":
            return self.trace(clip)
        self._begin(self._replay)
        return self._replay.trace(self.record(clip))

    def trace(self, clip: ClipInput, known: Known | None = None) -> Any:
        """The nnsight tracer of one forward over `clip` that may be written into; use it as `with lm.trace(clip):`.

        `known` saves work, and changes no result. With `(clip, n)` the body writes nothing before position n of the
        clip itself; with `(other, n)` what it writes there is `other`'s own stream, which `branch` checks.
        """
        if known is None or self.engine != "tail" or not 0 < known[1] < len(clip.input_ids):
            self._begin(self._model)
            # One unpadded row: its causal mask and rotary table broadcast over the rows that `branch` adds.
            return self._model.trace(inputs_embeds=clip.inputs_embeds, use_cache=False, logits_to_keep=1)
        source, n = known
        tail = _Tail(n, self.record(clip), self.record(source))
        self._begin(self._model, tail)
        # The one row that enters makes way for the first patched one.
        return self._model.trace(
            inputs_embeds=clip.inputs_embeds[:, n:],
            past_key_values=Past(tail.past, n),
            use_cache=False,
            logits_to_keep=1,
        )

    def record(self, clip: ClipInput) -> Tape:
        """The clip's unpatched run, computed the first time."""
        if clip not in self._tapes:
            self._tapes[clip] = record(self._model, clip)
        return self._tapes[clip]

    def recorded_bytes(self, clip: ClipInput) -> int:
        """What the record of a clip takes on the device; 0 before there is one."""
        tape = self._tapes.get(clip)
        return tape.nbytes if tape else 0

    def passes(self, layers: Iterable[int]) -> Iterator[tuple[int, ...]]:
        """The groups of layers that share a trace; together their readouts give row 0 and one row a layer, in order."""
        layers = tuple(layers)
        self._first_pass = True
        if self.engine == "stepwise":
            yield ()
        size = 1 if self.engine == "stepwise" else self.max_rows or max(1, len(layers))
        for start in range(0, len(layers), size):
            yield layers[start : start + size]
            self._first_pass = False
        self._first_pass = True

    def hidden(self, layer: int) -> torch.Tensor:
        """The residual stream after block `layer`, `[rows, T, hidden]`, row 0 being A's own.

        In a trace with something `known`, and in an `unpatched` one, that row is all there is to read.
        """
        return self._tail.own.streams[layer] if self._tail else self._stream(layer)

    def branch(self, layer: int, span: slice, value: torch.Tensor, alpha: float = 1.0) -> None:
        """Let A go on from here with `(1 - alpha) * A + alpha * value` in the output of `layer` at `span`.

        `value` is `[1, len(span), hidden]`. The new row is noted in `writes`.
        """
        own = self.hidden(layer)[:1]
        before = own[:, span]
        new = _mixed(layer, before, value, alpha)
        start = range(own.shape[1])[span].start
        self.writes.append(Write(layer, start, before.shape[1], alpha, _relative_shift(before, new)))
        row = self._written(layer, own, start, new)
        if self.engine == "stepwise" or (self._tail and not self._rows):
            stream = row
        else:
            stream = torch.cat([self._stream(layer), row])
        self._rows[layer] = len(stream) - 1
        self._set_stream(layer, stream)

    def also(self, layer: int, began: int, span: slice, value: torch.Tensor, alpha: float = 1.0) -> None:
        """Write at a further `layer`, before any `branch` there, into the row that `branch` began at layer `began`."""
        stream = self._stream(layer).clone()
        row = stream[self._rows[began]][None]
        if self._tail:
            row = torch.cat([self._tail.past.streams[layer][:, : self._tail.n], row], dim=1)
        new = _mixed(layer, row[:, span], value, alpha)
        stream[self._rows[began]] = self._written(layer, row, range(row.shape[1])[span].start, new)[0]
        self._set_stream(layer, stream)

    def _written(self, layer: int, row: torch.Tensor, start: int, new: torch.Tensor) -> torch.Tensor:
        """`row [1, T, hidden]` with `new` from `start` on, cut to the positions that this trace computes."""
        n = self._tail.n if self._tail else 0
        is_known = max(0, min(n - start, new.shape[1]))  # how many of the new positions lie before n
        if is_known:
            past = self._tail.past.streams[layer][:, start : start + is_known]
            unlike = new[:, :is_known] != past
            self._unlike.append((unlike & ~(new[:, :is_known].isnan() & past.isnan())).any())
        row = row[:, n:].clone()
        row[:, start + is_known - n : start + new.shape[1] - n] = new[:, is_known:]
        return row

    def _stream(self, layer: int) -> torch.Tensor:
        return stream_of(self._traced.model.layers[layer].output)

    def _set_stream(self, layer: int, stream: torch.Tensor) -> None:
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
        """Logits at the last position, `[rows, vocabulary]` in float32; A's own row comes with the first pass alone."""
        last = self.n_layers - 1
        if self._tail:
            # A's own row joins the others for the head, so that a row which is A's own gets the same logits exactly.
            own = self._tail.own.streams[last][:, self._tail.n :]
            rows = [self._stream(last)] if self._rows else []
            self._set_stream(last, torch.cat([own, *rows]))
        logits = self._traced.lm_head.output[:, -1].float()
        return logits if self._first_pass or self.engine == "stepwise" else logits[1:]

    def check_known(self) -> None:
        """`UserError` when something else than what was `known` stood there; a plugin's mistake, so it is named."""
        if self._unlike and bool(torch.stack(self._unlike).any()):
            raise UserError(
                "what was written before position n of `known=(clip, n)` is not that clip's own stream; pass "
                "known=(pair.a, n) with n the first position that is written"
            )


def _resolved(llm: torch.nn.Module, engine: str) -> str:
    if engine not in ENGINES:
        raise UserError(f"--engine {engine}: unknown; use one of {', '.join(ENGINES)}", BAD_USAGE)
    # A block with a window of its own needs another mask over the recorded positions.
    attends_to_all = set(getattr(llm.config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    if engine == "tail" and not attends_to_all:
        raise UserError("--engine tail: some blocks of this model attend to a window only; use sweep", BAD_USAGE)
    return ("tail" if attends_to_all else "sweep") if engine == "auto" else engine


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


def _relative_shift(own: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    own, new = own.float(), new.float()
    return (new - own).norm() / own.norm().clamp_min(torch.finfo(torch.float32).tiny)
