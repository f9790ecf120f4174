"""Finds what an experiment writes without running the model: its body runs as plain Python over recordings.

    lm = PlannedLM(llm, recordings, gradients)
    result = experiment.run(lm, pair, layer)             # or CannotPlan
    lm.traces[-1].values                                 # what was handed out, and written to

Before the first write, A's run equals its recording, so every value that is read is exact. After the first write a
value can be written but not read: reading it raises `CannotPlan`, and the experiment must run as it is written.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from nnsight.tracing import tracer as nnsight_tracer
from torch.utils._pytree import tree_map

from voicepatch.engine.failures import Mistake
from voicepatch.engine.gradients import Gradients
from voicepatch.engine.lm import LM
from voicepatch.engine.recordings import Recordings
from voicepatch.engine.sites import Site, Value, positions_of, wrong_shape
from voicepatch.engine.written import NESTED
from voicepatch.models.speech_lm import CausalLM, ClipInput

LATE = "a value is written to after a later one was used"


class CannotPlan(Exception):
    """What an experiment writes cannot be known before its traces run; the message gives the reason."""


class PlannedLM(LM):
    """Recordings with the interface of a decoder. Nothing is computed; what is written is noted in the trace."""

    def __init__(self, llm: CausalLM, recordings: Recordings, gradients: Gradients):
        super().__init__(llm, gradients)
        self._recordings = recordings
        self._open: PlannedTrace | None = None
        self.traces: list[PlannedTrace] = []

    def _trace(self, clip: ClipInput) -> "PlannedTrace":
        """An ordinary context manager."""
        return PlannedTrace(self, clip)

    @property
    def logits(self) -> torch.Tensor:
        return self._now.logits()

    def unembed(self, stream: Any) -> torch.Tensor:
        if isinstance(stream, _Unreadable):
            raise CannotPlan(stream._why)
        with torch.inference_mode():
            logits = super().unembed(stream)
        self._now.unembedded.append(logits)
        return logits

    @property
    def model(self) -> Any:
        raise CannotPlan("lm.model reaches outside the blocks")

    def read(self, site: Site) -> torch.Tensor:
        return self._now.read(site)

    def write(self, site: Site, tensor: Any) -> None:
        self._now.write(site, tensor)

    def raw_output(self, site: Site) -> Any:
        value = self.read(site)
        rest = self._recordings.rest(self._now.clip, site)
        # Copies, since a recording stays what it is whatever an experiment does to a module's other outputs.
        return value if rest is None else (value, *tree_map(_copied, rest))

    def raw_attribute(self, layer: int, path: str, name: str) -> Any:
        raise CannotPlan(f"{path or 'the block'}.{name} is not a place that the engine can plan")

    @property
    def _now(self) -> "PlannedTrace":
        if self._open is None:
            raise CannotPlan("a value of the model is used outside a trace")
        return self._open


class PlannedTrace:
    """One `with lm.trace(clip):` over the clip's recording: the values handed out, and what was written to them."""

    def __init__(self, lm: PlannedLM, clip: ClipInput):
        self.clip = clip
        self.values: dict[Site, Value] = {}
        self.write_only: dict[Site, WriteOnly] = {}
        self.was_written_late = False
        self._lm, self._recordings = lm, lm._recordings
        self.last: tuple[int, int] = (-1, 0)  # rank of what was used last
        self.unembedded: list[torch.Tensor] = []
        self._logits: Any = None

    def __enter__(self) -> "PlannedTrace":
        if self._lm._open:
            raise Mistake(NESTED)
        self._lm._open = self
        self._lm.traces.append(self)
        nnsight_tracer.inc()  # so that x.save() and nnsight.save(x) work as in a real trace
        return self

    def __exit__(self, *error: Any) -> None:
        nnsight_tracer.dec()
        self._lm._open = None

    def __getattr__(self, name: str) -> Any:
        if name in ("iter", "all"):  # in a real trace it would wait for ever for the next forward
            raise Mistake(
                f"tracer.{name} runs over the steps of a generation; a trace here is one forward, without steps"
            )
        raise AttributeError(name) if name.startswith("__") else CannotPlan(f"tracer.{name} needs a trace that runs")

    @property
    def first_written(self) -> Value | None:
        """The one value that could be read and was written; what was written later is in `blind`."""
        return next((value for value in self.values.values() if value.is_written), None)

    def read(self, site: Site) -> Any:
        for held in (self.values, self.write_only):
            if site in held:
                return held[site].tensor
        if not self._recordings.has(site):
            raise CannotPlan(f"{site.name} of layer {site.layer} is not one value with a row a position")
        rank = self._recordings.rank(site)
        if rank < self.last:
            raise CannotPlan(f"{site.name} of layer {site.layer} comes before what was used last")
        self.last = rank
        original = self._recordings.at(self.clip, site)
        if self.first_written:
            self.write_only[site] = WriteOnly(site, original, lambda: self.last == rank)
            return self.write_only[site].tensor
        # Made outside inference mode, so that the copy counts its changes.
        self.values[site] = Value(site, original, original.clone(), keeps_versions=True)
        return self.values[site].tensor

    def write(self, site: Site, tensor: Any) -> None:
        self.read(site)
        rest = self._recordings.rest(self.clip, site)
        if isinstance(tensor, tuple):
            if rest is None:
                raise CannotPlan(f"{site.name} is given a tuple, but is a tensor")
            tensor = tensor[0]
        if not isinstance(tensor, torch.Tensor):
            raise CannotPlan(f"{site.name} of layer {site.layer} is given what is no tensor")
        if site in self.values:
            self.values[site].replace(tensor)
        else:
            self.write_only[site].replace(tensor)

    def logits(self) -> Any:
        self.last = (self._lm.n_layers, 0)
        if self._logits is None:
            self._logits = (
                Readout("it computes with the patched logits")
                if self.first_written
                else self._recordings.of(self.clip).logits.clone()
            )
        return self._logits

    def read_out(self, result: Any) -> bool:
        """Whether `result` is a stream of this trace read out, with nothing written in it."""
        return not self.first_written and any(result is logits for logits in self.unembedded)

    def estimated(self, result: Any) -> bool:
        """Whether `result` is made from what was read in this trace, with nothing written in it."""
        return not self.first_written and isinstance(result, torch.Tensor)

    def gave(self, result: Any) -> bool:
        """Whether `result` is the readout of this trace, patched."""
        written = [value for value in self.values.values() if value.is_written]
        # Of values that were all read before the first write, only the last can still be written in time.
        self.was_written_late = len(written) > 1 or written[:1] != list(self.values.values())[-1:]
        return isinstance(result, Readout) and result is self._logits


def _copied(part: Any) -> Any:
    return part.clone() if isinstance(part, torch.Tensor) else part


class _Unreadable:
    """An unknown value; any use of it raises `CannotPlan`."""

    def __init__(self, why: str):
        self._why = why

    def __getattr__(self, name: str) -> Any:
        raise CannotPlan(self._why)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise CannotPlan(next(part._why for part in _leaves([args, kwargs]) if isinstance(part, _Unreadable)))


def _leaves(part: Any) -> list[Any]:
    if isinstance(part, dict):
        part = list(part.values())
    return [leaf for item in part for leaf in _leaves(item)] if isinstance(part, (list, tuple)) else [part]


def _refuse(name: str) -> Callable[..., Any]:
    def use(self: _Unreadable, *args: Any) -> Any:
        raise CannotPlan(self._why)

    use.__name__ = name
    return use


_OPERATORS = {name for name in dir(operator) if name.startswith("__") and hasattr(torch.Tensor, name)}
_OTHERS = {"__len__", "__iter__", "__bool__", "__float__", "__int__", "__array__", "__round__", "__contains__"}
_NOT = {"__doc__", "__name__", "__call__", "__setitem__"}
for _name in (_OPERATORS | {f"__r{name[2:]}" for name in _OPERATORS} | _OTHERS) - _NOT:
    if callable(getattr(torch.Tensor, _name, None)):
        setattr(_Unreadable, _name, _refuse(_name))


class Readout(_Unreadable):
    """The patched readout: to be saved and returned."""


class WriteOnly(_Unreadable):
    """A value after the first write, `[1, T, width]`: `value[:, span] = x` is noted, and it cannot be read."""

    def __init__(self, site: Site, like: torch.Tensor, in_time: Callable[[], bool]):
        super().__init__(f"{site.name} of layer {site.layer} is read after the first write")
        self.site, self.shape, self.dtype, self._in_time = site, like.shape, like.dtype, in_time
        self.values, self.mask = torch.zeros_like(like), torch.zeros_like(like, dtype=torch.bool)
        self.replaced = False

    @property
    def tensor(self) -> "WriteOnly":
        return self

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, tuple) and len(index) == 2 and index[0] is Ellipsis and isinstance(index[1], slice):
            return _Columns(self, index[1])
        raise CannotPlan(self._why)

    def __setitem__(self, index: Any, value: Any) -> None:
        if not self._in_time():
            raise CannotPlan(LATE)
        positions_of(index, self.shape)  # refuses an index that reaches nothing
        self.values[index] = value
        self.mask[index] = True

    def replace(self, tensor: torch.Tensor) -> None:
        if tensor.shape != self.shape:
            raise wrong_shape(self.site, tensor, self.shape)
        self.values.copy_(tensor)
        self.mask.fill_(True)
        self.replaced = True


class _Columns(_Unreadable):
    """Some columns of a value after the first write, `[1, T, columns]`."""

    def __init__(self, value: WriteOnly, columns: slice):
        super().__init__(value._why)
        self._value, self._at = value, columns

    def __setitem__(self, index: Any, value: Any) -> None:
        parts = index if isinstance(index, tuple) else (index,)
        if len(parts) > 2 or not all(isinstance(part, slice) for part in parts):
            raise CannotPlan(self._why)
        self._value[(*parts, *[slice(None)] * (2 - len(parts)), self._at)] = value
