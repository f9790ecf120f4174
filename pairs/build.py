"""From clips to pairs that differ in one factor (SPEC section 3).

    sample = build_pairs(dataset.clips, "semantic", max_pairs=100, seed=42, task=dataset.task)
    pair = sample.pairs[0]          # pair.a is the recipient, pair.b the donor, pair.target the donor's label
    sample.report["pairs_possible"]

Clips which share the fixed factor form a group; inside it they are bucketed by the label that must differ. Any two
clips of two buckets are a pair, so the possible pairs are counted as products of bucket sizes and numbered without
being listed, and a uniform sample is a draw of numbers.
"""

import bisect
import hashlib
import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.text import escape, listing, short_repr
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import label_spellings
from voicepatch.types.pair import KINDS, Pair, PairSample, is_congruent
from voicepatch.types.task import Task, default_task

BATCH = 1024  # pairs whose distances are computed together
_FIXED = {"prosody": "text_id", "semantic": "prosody_label"}
_VARIED = {"prosody": "prosody_label", "semantic": "semantic_label"}
# The fixed factor's value, the speaker and the language; "" where one does not matter or the data do not name it.
_Group = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class _Block:
    """All pairs between two labels of one group: `left` × `right`, numbered from `start` row by row."""

    group: _Group
    start: int
    left: list[Clip]
    right: list[Clip]

    def __len__(self) -> int:
        return len(self.left) * len(self.right)

    def clips_at(self, number: int) -> tuple[Clip, Clip]:
        i, j = divmod(number - self.start, len(self.right))
        return self.left[i], self.right[j]


def build_pairs(
    clips: Sequence[Clip],
    kind: str,
    max_pairs: int = 100,
    seed: int = 42,
    same_speaker: bool | None = None,
    both_directions: bool = False,
    agreeing_recipient: bool = False,
    task: Task | None = None,
    max_acoustic_distance: float = 0,
) -> PairSample:
    """A uniform sample of the possible pairs of `kind`, at most `max_pairs` directed ones.

    Neither the sample nor the directions depend on the order of `clips`. A pair runs in one direction, drawn with the
    seed, or in both with `both_directions`; `max_pairs` is then rounded down to an even number. With `same_speaker`,
    clips without a speaker pair among themselves; likewise with the language, which is always the same in a pair. For
    None, `task` says whether a pair has one speaker; no task is the emotion task.
    A smaller `max_pairs` draws a part of what a larger one draws. Neighbours in the result share a group and, where
    possible, a clip. With `agreeing_recipient`, only pairs count in
    which one clip's two labels agree, and that clip is A (the no-conflict control of SPEC section 6). With a
    `max_acoustic_distance` above 0, pairs count whose clips differ by at most that many sd in each feature of
    `pairs.acoustics`; drawn pairs are tried in order, so a smaller sample is still a part of a larger one.

    Raises `UserError` when no pair is possible, or one text_id has two meanings (SPEC section 3).
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not one of {KINDS}")
    task = task or default_task()
    same_speaker = task.same_speaker if same_speaker is None else same_speaker
    if any(clip.semantic_label is None for clip in clips) and (kind == "semantic" or agreeing_recipient):
        what = "pairs without conflict" if agreeing_recipient else "semantic pairs"
        raise UserError(f"no {what}: the task has no label of the words (words: null); run prosody pairs only")
    directions = 2 if both_directions and not agreeing_recipient else 1
    if max_pairs < directions:
        raise UserError(f"max_pairs is {max_pairs}; it must be at least {directions} here", BAD_USAGE)
    _check_meanings(clips, task)

    groups = _groups(clips, kind, same_speaker)
    blocks = _blocks(groups, kind, agreeing_recipient)
    possible = sum(map(len, blocks))
    if not possible:
        raise UserError(_why_none(clips, kind, same_speaker, agreeing_recipient, task))

    drawn, wanted = _drawn(random.Random(f"{seed}:{kind}"), possible), max_pairs // directions
    matching = {"max_acoustic_distance": max_acoustic_distance, "tried": 0, "left_out": 0, "without_a_value": 0}
    if max_acoustic_distance:
        numbers = _matched(blocks, drawn, wanted, clips, matching)
    else:
        numbers = list(itertools.islice(drawn, wanted))
    if not numbers:
        raise UserError(
            f"no {kind} pairs: each of the {possible} possible ones differs by more than {max_acoustic_distance:g} sd "
            "in pitch, level, length or spectrum, or has no pitch; give a larger --max-acoustic-distance"
        )
    pairs: list[Pair] = []
    sampled: Counter[_Group] = Counter()
    for group, first, second in _decode(blocks, numbers):
        is_reversed = _agrees(second) if agreeing_recipient else _is_reversed(first, second, kind, seed)
        a, b = (second, first) if is_reversed else (first, second)
        pairs += [_pair(kind, a, b), _pair(kind, b, a)][:directions]
        sampled[group] += directions

    possible_in: Counter[_Group] = Counter()
    for block in blocks:
        possible_in[block.group] += len(block)
    skipped = [
        {"group": _name(group), "n_clips": sum(map(len, buckets.values())), "reason": _why_skipped(buckets, kind, task)}
        for group, buckets in groups.items()
        if not possible_in[group]
    ]
    varied = _VARIED[kind]
    transitions = Counter(f"{getattr(pair.a, varied)} -> {getattr(pair.b, varied)}" for pair in pairs)
    report = {
        "kind": kind,
        "seed": seed,
        "max_pairs": max_pairs,
        "same_speaker": same_speaker,
        "both_directions": both_directions,
        "n_clips": len(clips),
        "pairs_possible": possible,
        "pairs_sampled": len(pairs),
        "n_congruent": sum(is_congruent(kind, pair.a.prosody_label, pair.target) for pair in pairs),
        "per_group": {_name(group): {"possible": n, "sampled": sampled[group]} for group, n in possible_in.items()},
        "per_transition": dict(sorted(transitions.items())),
        "groups_skipped": skipped,
        "label_spellings": label_spellings(clips),
        "warnings": _warnings(clips, kind, same_speaker, skipped, len(groups)),
    }
    if max_acoustic_distance:
        report["matching"] = matching
        report["warnings"].append(
            f"{kind}: {matching['left_out']} of {matching['tried']} pairs drawn differ by more than "
            f"{max_acoustic_distance:g} sd in sound, or have no pitch ({matching['without_a_value']}), and are left out"
        )
    return PairSample(distinct(pairs), report)


def pairs_possible(clips: Sequence[Clip], kind: str, same_speaker: bool = True) -> int:
    """How many pairs `build_pairs` would draw from; products of counts, so that a large corpus takes no longer."""
    return sum(map(len, _blocks(_groups(clips, kind, same_speaker), kind)))


def distinct(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The pairs as they are; `UserError` where two have one name, since records know a pair by its name alone."""
    names = Counter(pair.pair_id for pair in pairs)
    for name, n in names.items():
        if n > 1:
            raise UserError(
                f"{n} pairs are called {escape(name)}; rename their clips, without '->' and ':' in a clip_id"
            )
    return tuple(pairs)


def _groups(clips: Sequence[Clip], kind: str, same_speaker: bool) -> dict[_Group, dict[str, list[Clip]]]:
    """group → label that must differ → clips, all sorted, as the numbering of pairs must not depend on the input."""
    groups: defaultdict[_Group, defaultdict[str, list[Clip]]] = defaultdict(lambda: defaultdict(list))
    for clip in sorted(clips, key=lambda clip: clip.clip_id):
        group = (getattr(clip, _FIXED[kind]), (same_speaker and clip.speaker) or "", clip.language or "")
        groups[group][getattr(clip, _VARIED[kind])].append(clip)
    return {group: dict(sorted(groups[group].items())) for group in sorted(groups)}


def _name(group: _Group) -> str:
    value, speaker, language = group
    details = ", ".join(f"{what} {name}" for what, name in (("speaker", speaker), ("language", language)) if name)
    return f"{value} ({details})" if details else value


def _agrees(clip: Clip) -> bool:
    return clip.semantic_label == clip.prosody_label


def _blocks(groups: dict[_Group, dict[str, list[Clip]]], kind: str, agreeing_recipient: bool = False) -> list[_Block]:
    # Two semantic labels imply two text_ids, since _check_meanings has passed: the semantic rule needs no further test.
    blocks: list[_Block] = []
    start = 0
    for group, buckets in groups.items():
        for left, right in combinations(buckets.values(), 2):
            # Inside a group the fixed label is one, so a bucket's clips agree all or none.
            if agreeing_recipient and not (_agrees(left[0]) or _agrees(right[0])):
                continue
            blocks.append(_Block(group, start, left, right))
            start += len(left) * len(right)
    return blocks


def _drawn(generator: random.Random, possible: int) -> Iterator[int]:
    """The numbers below `possible` in the order of a shuffle, which is never made as a whole."""
    swapped: dict[int, int] = {}
    for left in range(possible, 0, -1):
        place = generator.randrange(left)
        yield swapped.get(place, place)
        swapped[place] = swapped.pop(left - 1, left - 1)


def _matched(
    blocks: list[_Block], drawn: Iterator[int], wanted: int, clips: Sequence[Clip], matching: dict[str, float]
) -> list[int]:
    """The first `wanted` numbers whose clips are close enough; `matching` gets the counts of those tried."""
    from tqdm import tqdm  # these two imports take long, and help does not wait for them

    from pairs.acoustics import clip_table, distances, in_sd

    units, starts = in_sd(clip_table(clips)), [block.start for block in blocks]
    numbers: list[int] = []
    with tqdm(desc="matching pairs", total=wanted, unit="pair", delay=2, leave=False) as progress:
        while len(numbers) < wanted and (batch := list(itertools.islice(drawn, BATCH))):
            tried = [blocks[bisect.bisect_right(starts, number) - 1].clips_at(number) for number in batch]
            a, b = ([clip.clip_id for clip in side] for side in zip(*tried, strict=True))
            for number, row in zip(batch, distances(units, a, b).tolist(), strict=True):
                if len(numbers) == wanted:
                    break
                matching["tried"] += 1
                if all(value <= matching["max_acoustic_distance"] for value in row):  # false for a missing one
                    numbers.append(number)
                    progress.update()
                else:
                    matching["left_out"] += 1
                    matching["without_a_value"] += any(value != value for value in row)
    return numbers


def _decode(blocks: list[_Block], numbers: Iterable[int]) -> list[tuple[_Group, Clip, Clip]]:
    """The pairs of these numbers, each sorted by clip_id, and all of them by group and clip_ids."""
    starts = [block.start for block in blocks]
    drawn = []
    for number in numbers:
        block = blocks[bisect.bisect_right(starts, number) - 1]
        first, second = sorted(block.clips_at(number), key=lambda clip: clip.clip_id)
        drawn.append((block.group, first, second))
    return sorted(drawn, key=lambda pair: (pair[0], pair[1].clip_id, pair[2].clip_id))


def _is_reversed(first: Clip, second: Clip, kind: str, seed: int) -> bool:
    """A fair coin for one pair, the same whatever else is sampled. Not `hash`, which differs between processes."""
    key = json.dumps([seed, kind, first.clip_id, second.clip_id])
    return hashlib.sha256(key.encode()).digest()[0] % 2 == 1


def _pair(kind: str, a: Clip, b: Clip) -> Pair:
    return Pair(f"{kind}:{a.clip_id}->{b.clip_id}", kind, a, b, getattr(b, _VARIED[kind]))


def _check_meanings(clips: Iterable[Clip], task: Task) -> None:
    meaning: dict[str, str | None] = {}
    for clip in clips:
        known = meaning.setdefault(clip.text_id, clip.semantic_label)
        if known != clip.semantic_label:
            raise UserError(
                f"clip {short_repr(clip.clip_id)}: text_id {short_repr(clip.text_id)} has {task.words} "
                f"{clip.semantic_label!r} here and {known!r} elsewhere; give one text_id one meaning"
            )


def _varied(kind: str, task: Task) -> str:
    """The data's column of the label that differs in a pair."""
    return str(task.voice if kind == "prosody" else task.words)


def _why_skipped(buckets: dict[str, list[Clip]], kind: str, task: Task) -> str:
    (label, clips), *_ = buckets.items()
    return "only one clip" if len(clips) == 1 else f"every {_varied(kind, task)} is {label}"


def _why_none(clips: Sequence[Clip], kind: str, same_speaker: bool, agreeing_recipient: bool, task: Task) -> str:
    if not clips:
        return f"no {kind} pairs: there are no clips; check the data set"
    varied = _varied(kind, task)
    fixed = "text_id" if kind == "prosody" else task.voice
    if agreeing_recipient and _blocks(_groups(clips, kind, same_speaker), kind):
        return f"no {kind} pairs without conflict: no clip that pairs has the same label of voice and words; add some"
    if same_speaker and _blocks(_groups(clips, kind, same_speaker=False), kind):
        return (
            f"no {kind} pairs: no speaker has two clips with the same {fixed} and different {varied}; "
            "add such clips, or let a pair have two speakers (--any-speaker)"
        )
    return (
        f"no {kind} pairs: clips with the same {fixed} all have one {varied} "
        f"({len({getattr(clip, _FIXED[kind]) for clip in clips})} {fixed}s, {len(clips)} clips); "
        f"add clips with the same {fixed} and another {varied}"
    )


def _warnings(clips: Sequence[Clip], kind: str, same_speaker: bool, skipped: list[dict], n_groups: int) -> list[str]:
    warnings = []
    if skipped:
        names = listing(f"{group['group']} ({group['reason']})" for group in skipped)
        warnings.append(f"{kind}: {len(skipped)} of {n_groups} groups offer no pair and are skipped: {names}")
    nameless = sum(clip.speaker is None for clip in clips)
    if same_speaker and 0 < nameless < len(clips):
        warnings.append(f"{kind}: {nameless} of {len(clips)} clips name no speaker and pair among themselves")
    return warnings
