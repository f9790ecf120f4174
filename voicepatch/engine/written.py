"""Runs an experiment as it is written: every trace is a real nnsight trace, one forward each.

lm = WrittenLM(llm)
logits = experiment.run(lm, pair, layer)
lm.writes()                                  # what its last trace wrote
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from nnsight import NNsight
from nnsight.intervention.interleaver import EarlyStopException

from voicepatch.engine.failures import Mistake
from voicepatch.engine.gradients import Gradients
from voicepatch.engine.lm import LM
from voicepatch.engine.masks import attends_to_nothing, check_rows, of_inputs
from voicepatch.engine.recordings import Recordings
from voicepatch.engine.sites import MASK, Site, Value, Write, as_index, first_of, plain, with_first
from voicepatch.engine.transfer import fetched
from voicepatch.models.speech_lm import CausalLM, ClipInput

NESTED = "a trace is opened inside another; end the first one before it, and save what the second needs of it"


@dataclass
class WrittenTrace:
    """One trace: over which clip, in which line of which file, and the readouts that were taken in it."""

    clip: ClipInput
    where: tuple[str, int]
    tracer: Any
    readouts: list[torch.Tensor] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        """Whether its `with` has begun and not ended."""
        return self.tracer.info is not None and self.tracer.info.frame is not None


class WrittenLM(LM):
    """nnsight around a decoder; values are the model's own tensors, and track what is assigned to them."""

    def __init__(self, llm: CausalLM, gradients: Gradients | None = None):
        super().__init__(llm, gradients or Gradients(llm, Recordings(llm, with_past=False)))
        self._traced = NNsight(llm)
        self.forget()

    def _trace(self, clip: ClipInput) -> Any:
        """The nnsight tracer of one forward over `clip`."""
        if self.traces and self.traces[-1].is_open:
            raise Mistake(NESTED)
        self._forget_values()
        # A copy, since what is written into the first block's input would change the clip.
        embeds = clip.inputs_embeds.clone()
        tracer = self._traced.trace(inputs_embeds=embeds, use_cache=False, logits_to_keep=1)
        opened = sys._getframe(2)
        self.traces.append(WrittenTrace(clip, (opened.f_code.co_filename, opened.f_lineno), tracer))
        return tracer

    @contextmanager
    def ending_early(self) -> Iterator[None]:
        """Within it, a forward ends as soon as the body of its trace has nothing left to read."""
        modules = (*self._llm.model.layers, self._llm.lm_head)
        handles = [module.register_forward_pre_hook(self._stop_when_read, prepend=True) for module in modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _stop_when_read(self, *_: Any) -> None:
        """Before a block or the head: end the forward where the trace's body has ended, with nothing left to read."""
        interleaver = self._traced.interleaver
        bodies = interleaver.mediators
        if interleaver.interleaving and bodies and not interleaver.observers and not any(b.alive for b in bodies):
            raise EarlyStopException

    @property
    def logits(self) -> torch.Tensor:
        return self._read_out(self._traced.lm_head.output[:, -1].float())

    def unembed(self, stream: torch.Tensor) -> torch.Tensor:
        self.unembedded = True
        return self._read_out(super().unembed(stream))

    def _read_out(self, logits: torch.Tensor) -> torch.Tensor:
        self.traces[-1].readouts.append(logits)
        return logits

    @property
    def model(self) -> Any:
        self.used_raw_attribute = self.reached_model = True
        return self._traced

    def read(self, site: Site) -> torch.Tensor:
        if site not in self._values and site.end == MASK:
            self._read_mask(site)
        if site not in self._values:
            raw = getattr(self._envoy(site.layer, site.path), site.end)
            tensor = first_of(raw)
            self._raw_outputs[site] = raw
            self._values[site] = Value(site, tensor.clone(), tensor, keeps_versions=False)
        return self._values[site].tensor

    def _read_mask(self, site: Site) -> None:
        """Give the attention a mask of numbers, which the experiment then changes in place."""
        envoy = self._envoy(site.layer, site.path)
        args, kwargs = envoy.inputs
        if MASK not in kwargs:
            raise Mistake(f"lm.attention_mask: {type(self._llm).__name__} passes no attention_mask to its attention")
        mask = of_inputs(args, kwargs).clone()
        envoy.inputs = (args, {**kwargs, MASK: mask[:, None]})
        self._values[site] = Value(site, mask.clone(), mask, keeps_versions=False)

    def write(self, site: Site, tensor: Any) -> None:
        if site.end == MASK:
            self.read(site)[:] = tensor
            return
        self.read(site)
        raw = tensor if isinstance(tensor, tuple) else with_first(self._raw_outputs[site], tensor)
        value = self._values[site]
        value.replace(first_of(raw))
        setattr(self._envoy(site.layer, site.path), site.end, plain(with_first(raw, value.tensor)))

    def raw_output(self, site: Site) -> Any:
        self.read(site)
        return with_first(self._raw_outputs[site], self._values[site].tensor)

    def raw_attribute(self, layer: int, path: str, name: str) -> Any:
        self.used_raw_attribute = self.reached_model = True
        return self._envoy(layer, path)

    def forget(self) -> None:
        """Reset what was traced and read so far, and whether a module itself was accessed."""
        self.traces: list[WrittenTrace] = []
        self.reached_model = False
        self._forget_values()

    def _forget_values(self) -> None:
        # `used_raw_attribute` says whether the last trace may have written unseen (`reached_model`: whether any trace
        # may), `unembedded` whether it read a stream out.
        self._values: dict[Site, Value] = {}
        self._raw_outputs: dict[Site, Any] = {}
        self.used_raw_attribute = self.unembedded = False

    def is_of_earlier_trace(self, result: torch.Tensor) -> bool:
        """Whether `result` is a readout of another trace than the last, and none of that one."""
        *earlier, last = self.traces
        before = [readout for trace in earlier for readout in trace.readouts]
        if any(_share(result, readout) for readout in before):
            return True
        is_equal = any(torch.equal(result, readout) for readout in before)
        return is_equal and bool(last.readouts) and not any(torch.equal(result, readout) for readout in last.readouts)

    def writes(self) -> list[tuple[Write, torch.Tensor]]:
        """What the last trace wrote, each with what stood there before, in the order in which it was used."""
        values = list(self._values.values())
        if not values:
            return []
        changed = fetched([value.changed() for value in values])
        found = []
        for value, differs in zip(values, changed, strict=True):
            positions = value.written(differs)
            if len(positions):
                index = as_index(positions, 0, value.original.device)
                write = Write(value.site, positions, value.tensor[0, index], None, value.replaced)
                if value.site.end == MASK:
                    check_rows(value.site.layer, attends_to_nothing(write.values).tolist())
                found.append((write, value.original[0, index]))
        return found

    def _envoy(self, layer: int, path: str) -> Any:
        envoy = self._traced.model.layers[layer]
        for name in path.split(".") if path else ():
            envoy = envoy[int(name)] if name.isdecimal() else getattr(envoy, name)
        return envoy


def _share(x: torch.Tensor, y: torch.Tensor) -> bool:
    return x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()
