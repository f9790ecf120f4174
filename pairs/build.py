"""From clips to pairs that differ in one factor (SPEC section 3).

    sample = build_pairs(dataset.clips, "semantic", max_pairs=100, seed=42, task=dataset.task)
    pair = sample.pairs[0]          # pair.a is the recipient, pair.b the donor, pair.target the donor's label
    sample.report["pairs_possible"]

The possible pairs are numbered in `pairs.numbering`; a sample is a draw of numbers.
"""

import hashlib
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from pairs.answered import Answered, Chosen
from pairs.numbering import (
    FIXED,
    VARIED,
    Candidate,
    Group,
    Roles,
    blocks_of,
    decoded,
    grouped,
    pairs_possible,
    shuffled,
)
from pairs.selected import Selection
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.text import escape, listing, short_repr
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import label_spellings
from voicepatch.types.pair import KINDS, Answers, Pair, PairSample, is_congruent
from voicepatch.types.selection import Condition, read_conditions
from voicepatch.types.task import Task, default_task

BATCH = 1024  # pairs whose distances are computed together


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
    where: Sequence[str | Condition] = (),
    answers: Answers | None = None,
) -> PairSample:
    """A uniform sample of the possible pairs of `kind`, at most `max_pairs` directed ones.

    Neither the sample nor the directions depend on the order of `clips`. A pair runs in one direction, drawn with the
    seed, or in both with `both_directions`; `max_pairs` is then rounded down to an even number. With `same_speaker`,
    clips without a speaker pair among themselves; likewise with the language, which is always the same in a pair. For
    None, `task` says whether a pair has one speaker; no task is the emotion task.
    `where` has conditions on all clips (`text_type=explicit`), on A (`a.prosody_label=sad`) or on B. A pair counts if
    it fulfils those of A and B in one direction at least, and it runs only in a direction in which it does.
    A smaller `max_pairs` draws a part of what a larger one draws. Neighbours in the result share a group and, where
    possible, a clip. With `agreeing_recipient`, only pairs count in
    which one clip's two labels agree, and that clip is A (the no-conflict control of SPEC section 6). With a
    `max_acoustic_distance` above 0, pairs count whose clips differ by at most that many sd in each feature of
    `pairs.acoustics`; drawn pairs are tried in order, so a smaller sample is still a part of a larger one. With
    `answers` (`runs.unpatched.answers_of`), pairs count in which A and B, unpatched, each give their own label of the
    factor that differs; they are tried in order too.

    Raises `UserError` when no pair is possible, one text_id has two meanings (SPEC section 3), or no clip has a column
    or a value of `where`.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not one of {KINDS}")
    task = task or default_task()
    same_speaker = task.same_speaker if same_speaker is None else same_speaker
    if any(clip.semantic_label is None for clip in clips) and (kind == "semantic" or agreeing_recipient):
        what = "pairs without conflict" if agreeing_recipient else "semantic pairs"
        raise UserError(f"no {what}: the task has no label of the words (words: null); run prosody pairs only")
    least = 2 if both_directions and not agreeing_recipient else 1
    if max_pairs < least:
        raise UserError(f"max_pairs is {max_pairs}; it must be at least {least} here", BAD_USAGE)
    selection = Selection(clips, read_conditions(where, clips, task), kind, same_speaker)
    all_clips, clips = clips, selection.clips
    _check_meanings(clips, task)

    roles = selection.roles(agreeing_recipient)
    groups = grouped(clips, kind, same_speaker)
    blocks = blocks_of(groups, roles)
    possible = sum(map(len, blocks))
    if not possible:
        raise UserError(selection.why_none() or _why_none(clips, kind, same_speaker, agreeing_recipient, task))

    drawn = decoded(blocks, shuffled(random.Random(f"{seed}:{kind}"), possible))
    matching = {"max_acoustic_distance": max_acoustic_distance, "tried": 0, "left_out": 0, "without_a_value": 0}
    if max_acoustic_distance:
        drawn = _matched(drawn, max_pairs, all_clips, matching)
    with_directions: Iterator[Chosen] = (
        (candidate, _directions(candidate, roles, both_directions, kind, seed)) for candidate in drawn
    )
    answered = Answered(kind, answers) if answers else None
    if answered:
        with_directions = answered.of(with_directions, max_pairs - least + 1, least)
    chosen: list[Chosen] = []
    n_chosen = 0
    while n_chosen <= max_pairs - least and (one := next(with_directions, None)):
        chosen.append(one)
        n_chosen += len(one[1])
    if answered and not chosen and answered.counts["tried"]:
        raise UserError(f"no {kind} pairs that the model answers: {answered.line}; leave --only answered out")
    if not chosen:
        raise UserError(
            f"no {kind} pairs: each of the {possible} possible ones differs by more than {max_acoustic_distance:g} sd "
            "in pitch, level, length or spectrum, or has no pitch; give a larger --max-acoustic-distance"
        )
    pairs: list[Pair] = []
    sampled: Counter[Group] = Counter()
    for candidate, directed in sorted(chosen, key=_group_and_names):
        pairs += [_pair(kind, a, b) for a, b in directed]
        sampled[candidate.group] += len(directed)

    possible_in: Counter[Group] = Counter()
    for block in blocks:
        possible_in[block.group] += len(block)
    skipped = [
        {"group": _name(group), "n_clips": sum(map(len, buckets.values())), "reason": _why_skipped(buckets, kind, task)}
        for group, buckets in groups.items()
        if not possible_in[group]
    ]
    varied = VARIED[kind]
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
    if selection.conditions:
        report["selection"] = selection.report()
    if max_acoustic_distance:
        report["matching"] = matching
        report["warnings"].append(
            f"{kind}: {matching['left_out']} of {matching['tried']} pairs drawn differ by more than "
            f"{max_acoustic_distance:g} sd in sound, or have no pitch ({matching['without_a_value']}), and are left out"
        )
    if answered:
        report["answered"] = answered.counts
        report["warnings"].append(f"{kind}: {answered.line}; the results hold for such pairs")
    return PairSample(distinct(pairs), report, tuple(clips), selection.conditions, answers)


def _group_and_names(chosen: Chosen) -> tuple[Group, str, str]:
    candidate, _ = chosen
    return candidate.group, candidate.first.clip_id, candidate.second.clip_id


def _directions(
    candidate: Candidate, roles: Roles, both_directions: bool, kind: str, seed: int
) -> list[tuple[Clip, Clip]]:
    """The directions (A, B) in which a pair runs."""
    allowed = roles.directions(candidate.first, candidate.second)
    if _is_reversed(candidate.first, candidate.second, kind, seed):
        allowed.reverse()
    return allowed if both_directions else allowed[:1]


def distinct(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The pairs as they are; `UserError` where two have one name, since records know a pair by its name alone."""
    names = Counter(pair.pair_id for pair in pairs)
    for name, n in names.items():
        if n > 1:
            raise UserError(
                f"{n} pairs are called {escape(name)}; rename their clips, without '->' and ':' in a clip_id"
            )
    return tuple(pairs)


def _name(group: Group) -> str:
    value, speaker, language = group
    details = ", ".join(f"{what} {name}" for what, name in (("speaker", speaker), ("language", language)) if name)
    return f"{value} ({details})" if details else value


def _matched(
    drawn: Iterator[Candidate], wanted: int, clips: Sequence[Clip], matching: dict[str, float]
) -> Iterator[Candidate]:
    """Those of the drawn pairs whose clips are close enough; `matching` gets the counts of those tried."""
    from tqdm import tqdm  # these two imports take long, and help does not wait for them

    from pairs.acoustics import clip_table, distances, in_sd

    units = in_sd(clip_table(clips))
    with tqdm(desc="matching pairs", total=wanted, unit="pair", delay=2, leave=False) as progress:
        while batch := list(itertools.islice(drawn, BATCH)):
            a, b = [one.first.clip_id for one in batch], [one.second.clip_id for one in batch]
            for candidate, row in zip(batch, distances(units, a, b).tolist(), strict=True):
                matching["tried"] += 1
                if all(value <= matching["max_acoustic_distance"] for value in row):  # false for a missing one
                    progress.update()
                    yield candidate
                else:
                    matching["left_out"] += 1
                    matching["without_a_value"] += any(value != value for value in row)


def _is_reversed(first: Clip, second: Clip, kind: str, seed: int) -> bool:
    """A fair coin for one pair, the same whatever else is sampled. Not `hash`, which differs between processes."""
    key = json.dumps([seed, kind, first.clip_id, second.clip_id])
    return hashlib.sha256(key.encode()).digest()[0] % 2 == 1


def _pair(kind: str, a: Clip, b: Clip) -> Pair:
    return Pair(f"{kind}:{a.clip_id}->{b.clip_id}", kind, a, b, getattr(b, VARIED[kind]))


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
    if agreeing_recipient and pairs_possible(clips, kind, same_speaker):
        return f"no {kind} pairs without conflict: no clip that pairs has the same label of voice and words; add some"
    if same_speaker and pairs_possible(clips, kind, same_speaker=False):
        return (
            f"no {kind} pairs: no speaker has two clips with the same {fixed} and different {varied}; "
            "add such clips, or let a pair have two speakers (--any-speaker)"
        )
    return (
        f"no {kind} pairs: clips with the same {fixed} all have one {varied} "
        f"({len({getattr(clip, FIXED[kind]) for clip in clips})} {fixed}s, {len(clips)} clips); "
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
