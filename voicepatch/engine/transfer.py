"""Numbers brought from the devices to the processor, in as few transfers as can be: each waits for the device.

fetched([torch.tensor([True, False]), torch.tensor([True])])         # [[True, False], [True]]
"""

from collections.abc import Sequence
from typing import Any

import torch


def fetched(vectors: Sequence[torch.Tensor]) -> list[list[Any]]:
    """Vectors of one dtype as lists, brought to the processor in one transfer from each device."""
    found: dict[int, list[Any]] = {}
    for device in dict.fromkeys(vector.device for vector in vectors):
        there = [number for number, vector in enumerate(vectors) if vector.device == device]
        sizes = [len(vectors[number]) for number in there]
        parts = torch.cat([vectors[number] for number in there]).cpu().split(sizes)
        found |= {number: part.tolist() for number, part in zip(there, parts, strict=True)}
    return [found[number] for number in range(len(vectors))]
