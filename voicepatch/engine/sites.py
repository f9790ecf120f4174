"""Where a decoder can be read and written, and how writes are detected.

value = Value(Site(3, "", "output"), original)      # original [1, T, D]
value.tensor[:, 5:9] = 0                            # what an experiment does
value.written()                                     # positions 5 to 8
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

BLOCK = ""
ATTENTION, MLP = "self_attn", "mlp"
KEYS, VALUES = "self_attn.k_proj", "self_attn.v_proj"
MASK = "attention_mask"


class Site(NamedTuple):
    """The input or the output of a module of block `layer`; `path` is the module's name in it, "" for the block.

    `end` is `attention_mask` for the mask that the attention of a block is given, one row a query position.
    """

    layer: int
    path: str
    end: str

    @property
    def name(self) -> str:
        """As records have it: `output`, `input`, `mlp.output`, `self_attn.o_proj.input`."""
        return f"{self.path}.{self.end}" if self.path else self.end

    @property
    def is_stream(self) -> bool:
        """Whether the value is the residual stream."""
        return self.path == BLOCK

    @property
    def is_key_or_value(self) -> bool:
        """Whether the value is the keys or the values of an attention, before any norm and rotary embedding."""
        return self.path in (KEYS, VALUES) and self.end == "output"


class Tracked(torch.Tensor):
    """A tensor that keeps the indices it was assigned at; what is computed from it is an ordinary tensor."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    indices: list[Any]  # type: ignore[assignment]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.indices.append((index, positions_of(index, self.shape)))
        torch.Tensor.__setitem__(self, index, value)


class Value:
    """What an experiment gets at a site, and what it has done with it: `tensor` is it now, `original` was there before.

    `keeps_versions` says that the tensor counts its changes, which an inference tensor does not; then it is
    compared with the original only where a change bypassed `__setitem__`, as `x[:, span].mul_(2)` does.
    """

    def __init__(self, site: Site, original: torch.Tensor, tensor: torch.Tensor, keeps_versions: bool):
        self.site, self.original, self.keeps_versions = site, original, keeps_versions
        self.replaced = False
        self._track(tensor)

    def _track(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor.as_subclass(Tracked)
        self.tensor.indices = []
        self._version = self.tensor._version if self.keeps_versions else 0

    def replace(self, tensor: torch.Tensor) -> None:
        """Replace the value by another tensor."""
        if tensor.shape != self.original.shape:
            raise wrong_shape(self.site, tensor, self.original.shape)
        self.replaced = True
        self._track(tensor.to(self.original.device))

    @property
    def needs_comparison(self) -> bool:
        """Whether it must be compared with the original, because `indices` may not be all that was written."""
        if not self.keeps_versions or self.replaced:
            return True
        return self.tensor._version != self._version + len(self.tensor.indices)

    @property
    def is_written(self) -> bool:
        """Whether anything may have been written, if only what was there before."""
        return self.replaced or bool(self.tensor.indices) or self.needs_comparison

    def changed(self) -> torch.Tensor:
        """`[T]`, true at the positions that differ from the original; where both are NaN, they do not."""
        new, old = self.tensor.as_subclass(torch.Tensor), self.original
        return ((new != old) & ~(new.isnan() & old.isnan())).flatten(2).any(2)[0]

    def written(self, changed: Sequence[bool] | None = None) -> Sequence[int]:
        """The positions written, in order; `changed` is what `changed()` gave, on the CPU, where it was asked for."""
        at = {position for _, positions in self.tensor.indices for position in positions}
        if changed is not None:
            at |= {position for position, differs in enumerate(changed) if differs}
        if self.replaced and not at:  # by something equal: a write all the same
            return range(self.original.shape[1])
        return as_range(sorted(at))


def wrong_shape(site: Site, tensor: torch.Tensor, shape: torch.Size) -> ValueError:
    """The error for a tensor that cannot stand at a site."""
    return ValueError(
        f"layer {site.layer}: a value of shape {list(tensor.shape)} cannot replace {site.name}, which has shape "
        f"{list(shape)}"
    )


@dataclass(frozen=True)
class Write:
    """Values `[n, …]` written at `positions` of a site; `mask`, of their shape, where not all elements are known.

    `replaced` says that the module was given another tensor, rather than that its own was written into.
    """

    site: Site
    positions: Sequence[int]
    values: torch.Tensor
    mask: torch.Tensor | None = None
    replaced: bool = False


def positions_of(index: Any, shape: torch.Size) -> Sequence[int]:
    """The positions (second dimension) that an assignment at `index` reaches; `IndexError` where it reaches nothing."""
    parts = index if isinstance(index, tuple) else (index,)
    if all(type(part) in (int, slice) for part in parts):
        picked = [range(size)[part] for part, size in zip(parts, shape, strict=False)]
        positions = picked[1] if len(picked) > 1 else range(shape[1])
        positions = [positions] if isinstance(positions, int) else positions
        is_empty = any(isinstance(part, range) and not len(part) for part in picked)
        positions = positions if isinstance(positions, list) or positions.step == 1 else sorted(positions)
    else:
        reached = torch.zeros(shape, dtype=torch.bool)
        on_cpu = tuple(part.cpu() if isinstance(part, torch.Tensor) else part for part in parts)
        reached[on_cpu] = True
        positions = as_range(reached.flatten(2).any(2).any(0).nonzero().flatten().tolist())
        is_empty = not len(positions)
    if is_empty:
        chosen = _as_text(parts)
        raise IndexError(f"[{chosen}] selects nothing of a value of shape {list(shape)}, so nothing is written")
    return positions


def _as_text(parts: tuple) -> str:
    def one(part: Any) -> str:
        if not isinstance(part, slice):
            return str(part)
        return ":".join("" if edge is None else str(edge) for edge in (part.start, part.stop))

    return ", ".join(map(one, parts))[:120]


def as_range(positions: list[int]) -> Sequence[int]:
    """Positions without a gap as a range, which indexes a tensor without copying it."""
    if positions and positions[-1] - positions[0] == len(positions) - 1:
        return range(positions[0], positions[-1] + 1)
    return positions


def as_index(positions: Sequence[int], shift: int, device: torch.device) -> slice | torch.Tensor:
    """Positions, `shift` less each, as what a tensor is indexed with."""
    if isinstance(positions, range):
        return slice(positions.start - shift, positions.stop - shift)
    return torch.tensor(positions, device=device) - shift


def first_of(output: Any) -> torch.Tensor:
    """The tensor in what a module returns or takes."""
    # Blocks return a tuple up to transformers 4.53 and a tensor since 4.54; indexing a tensor with [0] would drop the
    # batch. Attention returns a tuple in every version.
    return output[0] if isinstance(output, tuple) else output


def with_first(output: Any, tensor: torch.Tensor) -> Any:
    """What a module returned, with another tensor in it and its structure as it was."""
    return (tensor, *output[1:]) if isinstance(output, tuple) else tensor


def plain(part: Any) -> Any:
    """What a module is given, without the class that notes assignments, which is no concern of the model."""
    if isinstance(part, tuple):
        return tuple(plain(item) for item in part)
    if isinstance(part, dict):
        return {name: plain(item) for name, item in part.items()}
    return part.as_subclass(torch.Tensor) if isinstance(part, torch.Tensor) else part
