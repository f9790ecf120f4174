"""The decoder as an experiment sees it: what `lm` is in `def patch(lm, pair, layer)`.

    with lm.trace(pair.b):
        donor = lm.layers_output[layer][:, pair.b_span].save()
    with lm.trace(pair.a):
        lm.layers_output[layer][:, pair.a_span] = donor
        logits = lm.logits.save()

Two classes have this interface. `engine.written.WrittenLM` runs an experiment as it is written, in real nnsight traces;
`engine.plan.PlannedLM` answers from recordings and notes what is written. The names are nnterp's.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from voicepatch.engine.clip_copies import ClipCopies
from voicepatch.engine.failures import Mistake
from voicepatch.engine.gradients import Gradients, Tokens
from voicepatch.engine.pair_input import PairInput
from voicepatch.engine.sites import ATTENTION, BLOCK, KEYS, MASK, MLP, VALUES, Site, plain
from voicepatch.engine.source_text import check_sources
from voicepatch.engine.stream_parts import StreamParts
from voicepatch.errors import UserError
from voicepatch.models.speech_lm import CausalLM, ClipInput


class LM(StreamParts, ABC):
    """The blocks of the decoder, to read and to write, and the readout.

    Values are `[1, T, width]`: one clip, all positions of the expanded sequence, and the width of what is read. Inside
    a trace they are used in the order in which the model computes them.
    """

    def __init__(self, llm: CausalLM, gradients: Gradients):
        super().__init__(llm)
        self._gradients = gradients
        self.layers_input = BlockValues(self, BLOCK, "input")
        self.layers_output = BlockValues(self, BLOCK, "output")
        self.attentions_output = BlockValues(self, ATTENTION, "output")
        self.mlps_output = BlockValues(self, MLP, "output")
        self.keys = Projections(self, KEYS)
        self.values = Projections(self, VALUES)
        self.attention_mask = BlockValues(self, ATTENTION, MASK)
        self.layers = Blocks(self)
        self.clip_copies = ClipCopies()

    @contextmanager
    def copying_clips(self, pair: PairInput) -> Iterator[PairInput]:
        """Within it, the experiment gets copies of the pair's clips."""
        self.clip_copies = ClipCopies()
        try:
            yield self.clip_copies.pair(pair)
        finally:
            self.clip_copies = ClipCopies()

    def trace(self, clip: ClipInput) -> Any:
        """One forward over a clip; use it as `with lm.trace(clip):`."""
        check_sources()
        return self._trace(self.clip_copies.original(clip))

    @abstractmethod
    def _trace(self, clip: ClipInput) -> Any:
        """A tracer of one forward."""

    @property
    @abstractmethod
    def logits(self) -> torch.Tensor:
        """The readout: logits at the last position, `[1, vocabulary]` in float32."""

    def gradient(self, clip: ClipInput, tokens: Iterable[int]) -> "GradientLM":
        """Gradients of the logits of `tokens` at the readout of a clip's own run, by the names of the values.

        `lm.gradient(pair.a, pair.label_ids.values()).mlps_output[3]` is `[labels, T, hidden]`: how each label's logit
        changes with what the MLP of block 3 adds at each position. Used outside a trace; recorded once a clip.
        """
        return GradientLM(self._llm, self._gradients, self.clip_copies.original(clip), tuple(map(int, tokens)))

    @property
    @abstractmethod
    def model(self) -> Any:
        """nnsight's envoy of the decoder, for modules outside the blocks, such as `lm.model.model.norm`."""

    def band(self, layer: int, k: int, side: str = "from") -> range:
        """`k` layers that begin at `layer` (`from`), end there (`to`) or lie around it; fewer at the model's ends."""
        first = {"from": layer, "to": layer - k + 1, "around": layer - k // 2}[side]
        return range(max(first, 0), min(first + k, self.n_layers))

    @abstractmethod
    def read(self, site: Site) -> torch.Tensor:
        """The value at a site."""

    @abstractmethod
    def write(self, site: Site, tensor: torch.Tensor) -> None:
        """Replace the value at a site."""

    @abstractmethod
    def raw_output(self, site: Site) -> Any:
        """What the module returns or takes: the value itself, or a tuple that begins with it."""

    @abstractmethod
    def raw_attribute(self, layer: int, path: str, name: str) -> Any:
        """nnsight's envoy of a module, to access `name`, which is neither its input nor its output."""


class GradientLM(LM):
    """What `lm.gradient` gives: reading a value gives the gradients there, `[tokens, T, width]`."""

    def __init__(self, llm: CausalLM, gradients: Gradients, clip: ClipInput, tokens: Tokens):
        super().__init__(llm, gradients)
        self._clip, self._tokens = clip, tokens

    def read(self, site: Site) -> torch.Tensor:
        return self._gradients.at(self._clip, self._tokens, site)

    raw_output = read

    def write(self, site: Site, tensor: torch.Tensor) -> None:
        raise Mistake("lm.gradient: a gradient is read, not written; write into the values of a trace")

    def _trace(self, clip: ClipInput) -> Any:
        raise Mistake("lm.gradient: it has no trace; open one with lm.trace")

    @property
    def logits(self) -> torch.Tensor:
        raise Mistake("lm.gradient: the logits are what is differentiated; read them in a trace")

    @property
    def model(self) -> Any:
        raise Mistake("lm.gradient: gradients are known at the values of the blocks alone")

    def raw_attribute(self, layer: int, path: str, name: str) -> Any:
        raise Mistake(f"lm.gradient: {path or 'the block'}.{name} is no value; use .input or .output")


class BlockValues:
    """The same value in each block: `lm.mlps_output[3]` is that of block 3, and can be assigned."""

    def __init__(self, lm: LM, path: str, end: str):
        self._lm, self._path, self._end = lm, path, end

    def __len__(self) -> int:
        return self._lm.n_layers

    def __getitem__(self, layer: int) -> torch.Tensor:
        return self._lm.read(self._site(layer))

    def __setitem__(self, layer: int, value: torch.Tensor) -> None:
        self._lm.write(self._site(layer), value)

    def _site(self, layer: int) -> Site:
        return Site(self._lm.layer(layer), self._path, self._end)


class Projections(BlockValues):
    """The keys or the values of each block, `[1, T, kv_heads * head_dim]`, before any norm and rotary embedding."""

    def __init__(self, lm: LM, path: str):
        super().__init__(lm, path, "output")

    def __getitem__(self, layer: int) -> torch.Tensor:
        site = self._site(layer)
        if self._has(site.layer, site.path):
            return self._lm.read(site)
        together = f"{ATTENTION}.qkv_proj"
        if not self._has(site.layer, together):
            raise UserError(f"{type(self._lm._llm).__name__}: its attention has no k_proj and v_proj, and no qkv_proj")
        return self._lm.read(Site(site.layer, together, "output"))[..., self._columns(site.layer)]

    def _columns(self, layer: int) -> slice:
        """Their columns in a projection of queries, keys and values together."""
        lm, each = self._lm, self._lm.head_width(layer)
        width = each * (getattr(lm._llm.config, "num_key_value_heads", None) or lm.n_heads)
        start = each * lm.n_heads + (0 if self._path == KEYS else width)
        return slice(start, start + width)

    def __setitem__(self, layer: int, value: torch.Tensor) -> None:
        self[layer][:, :] = value

    def _has(self, layer: int, path: str) -> bool:
        return any(name == path for name, _ in self._lm._blocks[layer].named_modules())


class Blocks:
    """`lm.layers[3]`: the envoy of a block."""

    def __init__(self, lm: LM):
        self._lm = lm

    def __len__(self) -> int:
        return self._lm.n_layers

    def __getitem__(self, layer: int) -> "Module":
        return Module(self._lm, self._lm.layer(layer), BLOCK)


class Module:
    """nnsight's envoy of a block or of a module in it: `.input`, `.output`, its modules, and whatever else it has.

    As in nnsight, `.output` is what the module returns, which may be a tuple, and `.inputs` is `(args, kwargs)`.
    """

    def __init__(self, lm: LM, layer: int, path: str):
        vars(self).update(_lm=lm, _layer=layer, _path=path)

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}.{name}" if self._path else name
        try:
            self._lm._blocks[self._layer].get_submodule(path)
        except AttributeError:
            return getattr(self._lm.raw_attribute(self._layer, self._path, name), name)
        return Module(self._lm, self._layer, path)

    def __getitem__(self, index: int) -> "Module":
        return getattr(self, str(index))

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "inputs":
            setattr(self._lm.raw_attribute(self._layer, self._path, name), name, plain(value))
        elif name in ("input", "output"):
            self._lm.write(Site(self._layer, self._path, name), value)
        else:
            raise AttributeError(f"{name} of a module cannot be assigned; its input, inputs and output can")

    @property
    def input(self) -> Any:
        return self._lm.raw_output(Site(self._layer, self._path, "input"))

    @property
    def output(self) -> Any:
        return self._lm.raw_output(Site(self._layer, self._path, "output"))
