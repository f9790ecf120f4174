"""What is recorded of a clip's own, unpatched run, and how a later run stands on it.

    recordings = Recordings(llm, with_past=True)
    recordings.of(clip).streams[3]               # one forward, once a clip
    recordings.at(clip, Site(3, "mlp", "output"))  # recorded when it is first asked for, at all layers in one forward
    past = Past(recordings, clip, 34)              # the keys and values of its first 34 positions, frozen

A causal decoder never looks ahead, so what stands before the first changed position needs no computing again.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import nnsight
import torch
from nnsight import NNsight
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from voicepatch.engine.block_layout import BlockLayout, Location, block_layout
from voicepatch.engine.masks import additive
from voicepatch.engine.sites import BLOCK, MASK, Site, Write, as_index, first_of
from voicepatch.models.speech_lm import CausalLM, ClipInput


@dataclass(frozen=True)
class Recording:
    """One unpatched run over T positions.

    `streams[l]` is the residual stream after block l, `[1, T, hidden]`; `keys[l]` and `values[l]` are that block's,
    `[1, kv_heads, T, head_dim]`, the keys rotated, empty where no past is needed; `logits [1, vocabulary]` is the
    readout in float32. `locations` holds further values, a list over layers each, and `rest` what modules returned
    beside.
    """

    streams: list[torch.Tensor]
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    logits: torch.Tensor
    locations: dict[Location, list[torch.Tensor]] = field(default_factory=dict)
    rest: dict[Location, list[Any]] = field(default_factory=dict)

    @cached_property
    def nbytes(self) -> int:
        """Bytes that the recording holds on the model's device."""
        # Blocks share one mask, or have none.
        locations = [t for (_, end), tensors in self.locations.items() if end != MASK for t in tensors]
        return sum(tensor.nbytes for tensor in (*self.streams, *self.keys, *self.values, *locations, self.logits))


class Recordings:
    """The recordings of clips, each made when it is first needed; one lives as long as its `ClipInput`.

    `with_past` says that keys and values are recorded as well.
    """

    def __init__(self, llm: CausalLM, with_past: bool):
        self._llm, self._with_past = llm, with_past
        self._traced = NNsight(llm)
        self._made: WeakKeyDictionary[ClipInput, Recording] = WeakKeyDictionary()
        self._wanted: list[Location] = []

    def of(self, clip: ClipInput) -> Recording:
        """The clip's unpatched run."""
        if clip not in self._made:
            self._made[clip] = self._record(clip)
        return self._made[clip]

    def at(self, clip: ClipInput, site: Site) -> torch.Tensor:
        """The value at a site in the clip's unpatched run, `[1, T, width]`."""
        if site.is_stream:
            if site.end == "output":
                return self.of(clip).streams[site.layer]
            return self.of(clip).streams[site.layer - 1] if site.layer else clip.inputs_embeds
        value = self._location(clip, site).locations[site.path, site.end][site.layer]
        if site.end == MASK:
            n = len(clip.input_ids)
            return additive(value, n, n, self.of(clip).streams[site.layer])
        return value

    def rest(self, clip: ClipInput, site: Site) -> tuple | None:
        """What the module returned behind that value, or None where it returned nothing but the value."""
        if site.is_stream and site.end == "input":
            return None
        recording = self.of(clip) if site.is_stream else self._location(clip, site)
        return recording.rest[site.path, site.end][site.layer]

    def nbytes(self, clip: ClipInput) -> int:
        """What the recording of a clip takes on the device; 0 before there is one."""
        made = self._made.get(clip)
        return made.nbytes if made else 0

    def rank(self, site: Site) -> tuple[int, int]:
        """Where a site comes in the order of computing."""
        if site.is_stream:
            return site.layer, -1 if site.end == "input" else sys.maxsize
        return site.layer, self._layout.order[site.layer][site.path, site.end]

    def has(self, site: Site) -> bool:
        """Whether the model passes the site once in a forward, with one row a position."""
        return site.is_stream or (site.path, site.end) in self._layout.order[site.layer]

    def leaving(self, clip: ClipInput, write: Write) -> Write | None:
        """The write into what leaves the block that is the same as this one in it; None where there is no such."""
        site = write.site
        other = None if site.is_stream else self._layout.added_to[site.layer].get((site.path, site.end))
        if other is None:
            return None
        index = as_index(write.positions, 0, write.values.device)
        stream = self.at(clip, Site(site.layer, *other))[0, index] + write.values
        return replace(write, site=Site(site.layer, BLOCK, "output"), values=stream)

    def _location(self, clip: ClipInput, site: Site) -> Recording:
        location = (site.path, site.end)
        if location not in self._wanted:
            self._wanted = sorted([*self._wanted, location], key=self._layout.order[site.layer].__getitem__)
        if location not in self.of(clip).locations:
            self._made[clip] = self._record(clip)
        return self._made[clip]

    def _record(self, clip: ClipInput) -> Recording:
        layers = self._traced.model.layers
        # The blocks hand their keys and values to any cache that is passed to them, whatever use_cache says.
        cache = DynamicCache() if self._with_past else None
        wanted = self._wanted
        with torch.inference_mode():
            with self._traced.trace(
                inputs_embeds=clip.inputs_embeds, past_key_values=cache, use_cache=False, logits_to_keep=1
            ):
                found = nnsight.save({location: [] for location in [*wanted, (BLOCK, "output")]})
                for layer in layers:
                    for path, end in wanted:
                        module = layer.get(path)
                        found[path, end].append(module.inputs[1][MASK] if end == MASK else getattr(module, end))
                    found[BLOCK, "output"].append(layer.output)
                logits = self._traced.lm_head.output[:, -1].float().save()
        values = {location: [first_of(raw) for raw in raw_outputs] for location, raw_outputs in found.items()}
        rest = {
            location: [raw[1:] if isinstance(raw, tuple) else None for raw in raw_outputs]
            for location, raw_outputs in found.items()
        }
        past = cache.layers if cache else []
        streams = values.pop((BLOCK, "output"))
        return Recording(
            streams, [layer.keys for layer in past], [layer.values for layer in past], logits, values, rest
        )

    @cached_property
    def _layout(self) -> BlockLayout:
        return block_layout(self._llm)


@dataclass(frozen=True)
class PastWrite:
    """Keys or values of one block that a row stands on at `positions`: another clip's own there."""

    layer: int
    positions: Sequence[int]
    of_keys: bool
    clip: ClipInput


class _FrozenLayer(DynamicLayer):
    """Keys and values that new ones are joined to for one attention, and that never change.

    `changes` are (row, index of positions, whether keys, tensor `[kv_heads, n, head_dim]`) that some rows stand on.
    """

    def __init__(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        changes: Sequence[tuple[int, Any, bool, torch.Tensor]] = (),
    ):
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True
        self._changes = changes

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = len(key_states)
        keys, values = (past.expand(rows, -1, -1, -1) for past in (self.keys, self.values))
        keys, values = torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)
        for row, index, of_keys, tensor in self._changes:
            (keys if of_keys else values)[row, :, index] = tensor
        return keys, values


class Past(Cache):
    """The first `n` positions of a clip's recorded run, as a cache that stores nothing, for the rows of a forward.

    Every row stands on the same ones, but for what `writes` says of its number.
    """

    def __init__(self, recordings: Recordings, clip: ClipInput, n: int, writes: Sequence[tuple[int, PastWrite]] = ()):
        changes: dict[int, list[tuple[int, Any, bool, torch.Tensor]]] = {}
        for row, write in writes:
            other = recordings.of(write.clip)
            recorded = (other.keys if write.of_keys else other.values)[write.layer][0]
            index = as_index(write.positions, 0, recorded.device)
            changes.setdefault(write.layer, []).append((row, index, write.of_keys, recorded[:, index]))
        own = recordings.of(clip)
        super().__init__(
            layers=[
                _FrozenLayer(keys[:, :, :n], values[:, :, :n], changes.get(layer, ()))
                for layer, (keys, values) in enumerate(zip(own.keys, own.values, strict=True))
            ]
        )
