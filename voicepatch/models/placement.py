"""One model on several devices: the blocks of its decoder in consecutive parts, and everything else on the first.

    shares(model, 2)                      # which blocks each device gets, and its bytes
    spread(model, pick_devices("cuda:0,cuda:1"))

A block, when it is called, takes what it is given to its own device. What leaves a block stays there, and so does what
is recorded of it, until the next block or the final norm asks for it. The readout is on the first device.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from voicepatch.errors import UserError


@dataclass(frozen=True)
class Share:
    """What a device holds: so many bytes of weights, and these blocks."""

    blocks: range
    nbytes: int


def modules_of(model: Any) -> list[nn.Module]:
    """The modules that a model is made of."""
    return [part for part in vars(model).values() if isinstance(part, nn.Module)]


def _n_bytes(modules: Iterable[nn.Module]) -> int:
    """Bytes of the tensors of modules, each counted once."""
    tensors = {id(t): t for part in modules for t in (*part.parameters(), *part.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def weight_bytes(model: Any) -> int:
    """Bytes of the tensors of a loaded model's parts."""
    return _n_bytes(modules_of(model))


def shares(model: Any, n_devices: int) -> list[Share]:
    """Consecutive blocks of the model's `llm` for each device, so that the fullest one holds as few bytes as can be.

    The first device may have none, since it holds everything else. With too few blocks, so have the last ones.
    """
    sizes = [_n_bytes([block]) for block in model.llm.model.layers]
    others = weight_bytes(model) - sum(sizes)
    low, high = max(others, *sizes), others + sum(sizes)
    while low < high:  # the smallest number of bytes on a device for which the devices are enough
        middle = (low + high) // 2
        low, high = (low, middle) if len(_filled(sizes, others, middle, n_devices)) <= n_devices else (middle + 1, high)
    found = _filled(sizes, others, low, n_devices)
    return found + [Share(range(len(sizes), len(sizes)), 0)] * (n_devices - len(found))


def _filled(sizes: Sequence[int], others: int, most: int, n_devices: int) -> list[Share]:
    """Devices that are filled one after the other, with at most so many bytes each.

    A device leaves a block for each of the `n_devices` that follow it.
    """
    found: list[Share] = []
    start, nbytes = 0, others
    for number, size in enumerate(sizes):
        n_after = n_devices - len(found) - 1
        if nbytes + size > most or (number > start and len(sizes) - number <= n_after):
            found.append(Share(range(start, number), nbytes))
            start, nbytes = number, 0
        nbytes += size
    return [*found, Share(range(start, len(sizes)), nbytes)]


def spread(model: Any, devices: Sequence[torch.device]) -> None:
    """Move a model that is on the processor to several devices; `UserError` for fewer blocks than devices."""
    llm, first = model.llm, devices[0]
    blocks = list(llm.model.layers)
    found = shares(model, len(devices))
    if not all(share.blocks for share in found[1:]):
        names = ",".join(map(str, devices))
        raise UserError(f"--device {names}: {len(blocks)} blocks are too few for {len(devices)} devices; name fewer")
    for share, device in zip(found, devices, strict=True):
        for number in share.blocks:
            _takes_inputs_to(blocks[number].to(device), device)
    inside = {module for block in blocks for module in block.modules()}
    for part in modules_of(model):
        for module in set(part.modules()) - inside:
            module._apply(lambda tensor: tensor.to(first), recurse=False)
    for module in _around(llm):
        _takes_inputs_to(module, first)


def _around(llm: Any) -> Iterator[nn.Module]:
    """The modules that a decoder calls beside its blocks: embeddings, the final norm, the head, …"""
    yield from (module for module in llm.children() if module is not llm.model)
    yield from (module for module in llm.model.children() if module is not llm.model.layers)


def _takes_inputs_to(module: nn.Module, device: torch.device) -> None:
    # In place of the function, not as a hook: what hooks see of an input is then where the module before left it.
    forward = module.forward

    @functools.wraps(forward)
    def there(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), (args, kwargs))
        return forward(*args, **kwargs)

    module.forward = there


def devices_of(llm: Any) -> list[torch.device]:
    """The devices that a decoder's weights are on, the first one first."""
    return list(dict.fromkeys(weight.device for weight in llm.parameters()))
