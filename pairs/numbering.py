"""The possible pairs of clips, numbered without being listed, so that a uniform sample is a draw of numbers.

    groups = grouped(clips, "semantic", same_speaker=True)
    blocks = blocks_of(groups, Roles())
    for group, first, second in decoded(blocks, shuffled(random.Random(42), sum(map(len, blocks)))): ...

Clips which share the fixed factor form a group; inside it they are bucketed by the label that must differ. Any two
clips of two buckets are a pair, so pairs are counted as products of bucket sizes.
"""

import bisect
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from voicepatch.types.clip import Clip

FIXED = {"prosody": "text_id", "semantic": "prosody_label"}
VARIED = {"prosody": "prosody_label", "semantic": "semantic_label"}
# The fixed factor's value, the speaker and the language; "" where one does not matter or the data do not name it.
Group = tuple[str, str, str]
Groups = dict[Group, dict[str, list[Clip]]]


class Candidate(NamedTuple):
    """Two clips of a group that may be a pair, sorted by clip_id."""

    group: Group
    first: Clip
    second: Clip


@dataclass(frozen=True)
class Roles:
    """What a clip must fulfil to be the recipient A of a pair, and to be its donor B."""

    of_a: tuple[Callable[[Clip], bool], ...] = ()
    of_b: tuple[Callable[[Clip], bool], ...] = ()

    def fits(self, clip: Clip) -> tuple[bool, bool]:
        """Whether a clip may be A, and whether it may be B."""
        return all(holds(clip) for holds in self.of_a), all(holds(clip) for holds in self.of_b)

    def directions(self, first: Clip, second: Clip) -> list[tuple[Clip, Clip]]:
        """The directions (A, B) that two clips allow."""
        (first_a, first_b), (second_a, second_b) = self.fits(first), self.fits(second)
        there = [(first, second)] if first_a and second_b else []
        return [*there, *([(second, first)] if second_a and first_b else [])]


@dataclass(frozen=True, slots=True)
class Block:
    """All pairs between two labels of one group: `left` × `right`, numbered from `start` row by row."""

    group: Group
    start: int
    left: list[Clip]
    right: list[Clip]

    def __len__(self) -> int:
        return len(self.left) * len(self.right)

    def clips_at(self, number: int) -> tuple[Clip, Clip]:
        i, j = divmod(number - self.start, len(self.right))
        return self.left[i], self.right[j]


def grouped(clips: Sequence[Clip], kind: str, same_speaker: bool) -> Groups:
    """group → label that must differ → clips, all sorted, as the numbering of pairs must not depend on the input."""
    groups: defaultdict[Group, defaultdict[str, list[Clip]]] = defaultdict(lambda: defaultdict(list))
    for clip in sorted(clips, key=lambda clip: clip.clip_id):
        group = (getattr(clip, FIXED[kind]), (same_speaker and clip.speaker) or "", clip.language or "")
        groups[group][getattr(clip, VARIED[kind])].append(clip)
    return {group: dict(sorted(groups[group].items())) for group in sorted(groups)}


def blocks_of(groups: Groups, roles: Roles) -> list[Block]:
    """The pairs that `roles` allow in at least one direction."""
    # Two semantic labels imply two text_ids, as `build_pairs` checks: the semantic rule needs no further test.
    blocks: list[Block] = []
    start = 0
    for group, buckets in groups.items():
        for left, right in combinations([_by_role(bucket, roles) for bucket in buckets.values()], 2):
            for (left_a, left_b), lefts in left.items():
                for (right_a, right_b), rights in right.items():
                    if (left_a and right_b) or (right_a and left_b):
                        blocks.append(Block(group, start, lefts, rights))
                        start += len(lefts) * len(rights)
    return blocks


def pairs_possible(clips: Sequence[Clip], kind: str, same_speaker: bool = True) -> int:
    """How many pairs `build_pairs` would draw from; products of counts, so that a large corpus takes no longer."""
    return sum(map(len, blocks_of(grouped(clips, kind, same_speaker), Roles())))


def _by_role(bucket: Sequence[Clip], roles: Roles) -> dict[tuple[bool, bool], list[Clip]]:
    """The clips by whether they may be A, and B."""
    found: dict[tuple[bool, bool], list[Clip]] = {}
    for clip in bucket:
        found.setdefault(roles.fits(clip), []).append(clip)
    return found


def shuffled(generator: random.Random, possible: int) -> Iterator[int]:
    """The numbers below `possible` in the order of a shuffle, which is never made as a whole."""
    swapped: dict[int, int] = {}
    for left in range(possible, 0, -1):
        place = generator.randrange(left)
        yield swapped.get(place, place)
        swapped[place] = swapped.pop(left - 1, left - 1)


def decoded(blocks: Sequence[Block], numbers: Iterable[int]) -> Iterator[Candidate]:
    """The pairs of these numbers."""
    starts = [block.start for block in blocks]
    for number in numbers:
        block = blocks[bisect.bisect_right(starts, number) - 1]
        first, second = sorted(block.clips_at(number), key=lambda clip: clip.clip_id)
        yield Candidate(block.group, first, second)
