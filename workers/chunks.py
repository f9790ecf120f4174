"""Neighbouring pairs that one worker takes together.

    cut(pairs, n_workers=8)             # lists of pairs, in order

A clip is encoded and recorded once for all its pairs of a chunk, so a cut through many clips costs as many recordings.
Small chunks recompute, large ones leave workers without work at the end: the size is the largest whose run ends nearly
as soon as that of the best.
"""

import heapq
from collections.abc import Sequence

from pairs import Pair

# Chunks at work and finished ones that wait for an earlier one are held in memory: a size must not follow a list's.
SIZES = (4, 8, 16, 32, 64, 128)
NEARLY = 1.05
RECORDING = 3  # what encoding and recording a clip costs, in pairs (the demo's; the larger the model, the less)


def cut(pairs: Sequence[Pair], n_workers: int) -> list[list[Pair]]:
    """The pairs in chunks, cut near equal distances where the fewest clips are needed on both sides."""
    if not pairs:
        return []
    rounds = -(-len(pairs) // (n_workers * SIZES[-1]))  # so many chunks at least for each worker
    even = [-(-len(pairs) // (n_workers * n)) for n in range(rounds, rounds + 4)]
    sizes = sorted({min(size, len(pairs)) for size in (*SIZES, *even)})
    needed = _needed_on_both_sides(pairs)
    ways = [_cut(pairs, size, needed) for size in sizes]
    ends = [_end(chunks, n_workers) for chunks in ways]
    return next(way for way, end in zip(reversed(ways), reversed(ends), strict=True) if end <= NEARLY * min(ends))


def n_clips(pairs: Sequence[Pair]) -> int:
    """How many clips some pairs have."""
    return len({clip.clip_id for pair in pairs for clip in (pair.a, pair.b)})


def _needed_on_both_sides(pairs: Sequence[Pair]) -> list[int]:
    """Of each place between two pairs, before the pair of that number, how many clips have pairs on both sides."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, pair in enumerate(pairs):
        for clip in (pair.a, pair.b):
            first.setdefault(clip.clip_id, number)
            last[clip.clip_id] = number
    opened, closed = [0] * (len(pairs) + 1), [0] * (len(pairs) + 1)
    for clip_id, number in first.items():
        opened[number + 1] += 1
        closed[last[clip_id] + 1] += 1
    needed, now = [], 0
    for begin, end in zip(opened, closed, strict=True):
        now += begin - end
        needed.append(now)
    return needed


def _cut(pairs: Sequence[Pair], size: int, needed: Sequence[int]) -> list[list[Pair]]:
    chunks, start = [], 0
    while len(pairs) - start > size + size // 2:
        places = range(start + size - size // 4, start + size + size // 4 + 1)
        end = min(places, key=lambda place: (needed[place], abs(place - start - size)))
        chunks.append(list(pairs[start:end]))
        start = end
    return [*chunks, list(pairs[start:])]


def _end(chunks: Sequence[Sequence[Pair]], n_workers: int) -> int:
    """When the last worker is done, each taking the next chunk when it is free."""
    free = [0] * n_workers
    for chunk in chunks:
        heapq.heapreplace(free, free[0] + len(chunk) + RECORDING * n_clips(chunk))
    return max(free)
