"""An experiment as it is written: every trace a real one of nnsight, a forward each.

lm = WrittenLM(llm)
logits = experiment.run(lm, pair, layer)
lm.writes()                                  # what its last trace wrote
"""

from typing import Any

import torch
from nnsight import NNsight
from nnsight.intervention.interleaver import EarlyStopException
from torch import nn

from engine.lm import LM
from engine.sites import Site, Value, Write, as_index, first_of, with_first
from models.speech_lm import ClipInput


class WrittenLM(LM):
    """nnsight around a decoder; the values it hands out are the model's own, and note what is assigned to them."""

    def __init__(self, llm: nn.Module):
        super().__init__(llm)
        self._traced = NNsight(llm)
        for module in (*llm.model.layers, llm.lm_head):
            module.register_forward_pre_hook(self._stop_when_read)
        self.traced: set[int] = set()  # the id of each clip that was traced
        self.forget()

    def trace(self, clip: ClipInput) -> Any:
        """The nnsight tracer of one forward over `clip`."""
        self.forget()
        self.traced.add(id(clip))
        # A copy, since what is written into the first block's input would change the clip.
        return self._traced.trace(inputs_embeds=clip.inputs_embeds.clone(), use_cache=False, logits_to_keep=1)

    def _stop_when_read(self, *_: Any) -> None:
        """Before a block or the head: end the forward where the trace's body has ended, with nothing left to read."""
        interleaver = self._traced.interleaver
        bodies = interleaver.mediators
        if interleaver.interleaving and bodies and not interleaver.observers and not any(b.alive for b in bodies):
            raise EarlyStopException

    @property
    def logits(self) -> torch.Tensor:
        return self._traced.lm_head.output[:, -1].float()

    def unembed(self, stream: torch.Tensor) -> torch.Tensor:
        self.unembedded = True
        return super().unembed(stream)

    @property
    def model(self) -> Any:
        self.went_beyond = True
        return self._traced

    def read(self, site: Site) -> torch.Tensor:
        if site not in self._values:
            whole = getattr(self._envoy(site.layer, site.path), site.end)
            tensor = first_of(whole)
            self._wholes[site] = whole
            self._values[site] = Value(site, tensor.clone(), tensor, keeps_versions=False)
        return self._values[site].tensor

    def write(self, site: Site, tensor: Any) -> None:
        self.read(site)
        whole = tensor if isinstance(tensor, tuple) else with_first(self._wholes[site], tensor)
        self._values[site].replace(first_of(whole))
        setattr(self._envoy(site.layer, site.path), site.end, _plain(whole))

    def whole(self, site: Site) -> Any:
        self.read(site)
        return with_first(self._wholes[site], self._values[site].tensor)

    def beyond(self, layer: int, path: str, name: str) -> Any:
        self.went_beyond = True
        return getattr(self._envoy(layer, path), name)

    def forget(self) -> None:
        """Forget what was handed out so far.

        `went_beyond` says whether anything could be written unseen, `unembedded` whether a stream was read out.
        """
        self._values: dict[Site, Value] = {}
        self._wholes: dict[Site, Any] = {}
        self.went_beyond = self.unembedded = False

    def writes(self) -> list[tuple[Write, torch.Tensor]]:
        """What the last trace wrote, each with what stood there before, in the order in which it was used."""
        values = list(self._values.values())
        if not values:
            return []
        changed = torch.stack([value.changed() for value in values]).tolist()
        found = []
        for value, differs in zip(values, changed, strict=True):
            positions = value.written(differs)
            if len(positions):
                index = as_index(positions, 0, value.original.device)
                write = Write(value.site, positions, value.tensor[0, index], None, value.replaced)
                found.append((write, value.original[0, index]))
        return found

    def _envoy(self, layer: int, path: str) -> Any:
        envoy = self._traced.model.layers[layer]
        for name in path.split(".") if path else ():
            envoy = envoy[int(name)] if name.isdecimal() else getattr(envoy, name)
        return envoy


def _plain(whole: Any) -> Any:
    """Without the class that notes assignments, which is no concern of the model."""
    if isinstance(whole, tuple):
        return tuple(_plain(part) for part in whole)
    return whole.as_subclass(torch.Tensor) if isinstance(whole, torch.Tensor) else whole
