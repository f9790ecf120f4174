"""From the main experiment's pairs to those of its controls (SPEC section 6).

    with_random_donor(sample, dataset.clips)         # same recipients and targets, in the same order

The decorator of a control with other pairs than the main experiment names one of these functions.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from pairs.build import build_pairs, distinct
from voicepatch.errors import UserError
from voicepatch.text import escape, listing
from voicepatch.types.clip import Clip
from voicepatch.types.pair import Pair, PairSample, half_of


def with_itself(sample: PairSample, clips: Sequence[Clip]) -> tuple[Pair, ...]:
    """Each recipient as its own donor."""
    return tuple(replace(pair, pair_id=f"self:{pair.pair_id}", b=pair.a) for pair in sample.pairs)


def each_clip(sample: PairSample, clips: Sequence[Clip]) -> tuple[Pair, ...]:
    """Every clip of the pairs once, with itself; the target is its own label of the varied factor."""
    kinds = {clip.clip_id: (clip, pair.kind) for pair in sample.pairs for clip in (pair.a, pair.b)}
    return tuple(Pair(f"clip:{name}", kind, c, c, getattr(c, f"{kind}_label")) for name, (c, kind) in kinds.items())


def clips_in_conflict(sample: PairSample, clips: Sequence[Clip]) -> tuple[Pair, ...]:
    """Those of `each_clip` whose words and voice have different labels; all of them where none has."""
    each = each_clip(sample, clips)
    differ = tuple(pair for pair in each if pair.a.semantic_label not in (None, pair.a.prosody_label))
    return differ or each


def with_random_donor(sample: PairSample, clips: Sequence[Clip]) -> tuple[Pair, ...]:
    """A random donor with another text and another prosody than A, neither of whose labels is the target."""

    def fits(pair: Pair, donor: Clip) -> bool:
        return (
            donor.text_id != pair.a.text_id
            and donor.prosody_label != pair.a.prosody_label
            and pair.target not in (donor.prosody_label, donor.semantic_label)
        )

    return _with_donors("random", fits, sample, clips)


def with_same_labels(sample: PairSample, clips: Sequence[Clip]) -> tuple[Pair, ...]:
    """Another clip with both of A's labels, and its text_type where the data have one, as the donor.

    The target is A's own label of the varied factor.
    """

    def fits(pair: Pair, donor: Clip) -> bool:
        same = all(
            getattr(donor, key) == getattr(pair.a, key) for key in ("semantic_label", "prosody_label", "text_type")
        )
        return same and donor.clip_id != pair.a.clip_id

    pairs = _with_donors("same-label", fits, sample, clips)
    return tuple(replace(pair, target=getattr(pair.a, f"{pair.kind}_label")) for pair in pairs)


def without_conflict(sample: PairSample, clips: Sequence[Clip]) -> tuple[Pair, ...]:
    """A separate sample, drawn like the main one, of pairs whose recipient's two labels agree."""
    keys = ("kind", "max_pairs", "seed", "same_speaker")
    closest = sample.report.get("matching", {}).get("max_acoustic_distance", 0)
    same = {key: sample.report[key] for key in keys} | {"max_acoustic_distance": closest}
    drawn = build_pairs(clips, **same, agreeing_recipient=True, where=sample.where, answers=sample.answers)
    return tuple(replace(pair, pair_id=f"no-conflict:{pair.pair_id}") for pair in drawn.pairs)


def halves_of_texts(pairs: Sequence[Pair], seed: int) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """The pairs whose texts are all in one random half of the texts, and those whose texts are all in the other.

    Pairs with a text of each half are in neither.
    """
    first = half_of({clip.text_id for pair in pairs for clip in (pair.a, pair.b)}, seed)
    found: tuple[list[Pair], list[Pair]] = [], []
    for pair in pairs:
        in_first = {clip.text_id in first for clip in (pair.a, pair.b)}
        if len(in_first) == 1:
            found[0 if in_first.pop() else 1].append(pair)
    return tuple(found[0]), tuple(found[1])


def of_other_texts(sample: PairSample, clips: Sequence[Clip]) -> tuple[Pair, ...]:
    """The pairs of the second half of the texts, which `confirm` does not rank by."""
    pairs = halves_of_texts(sample.pairs, sample.report["seed"])[1]
    if not pairs:
        raise UserError("confirm: no pair has all its texts in one half of the texts; take more pairs or more texts")
    return tuple(replace(pair, pair_id=f"ranked:{pair.pair_id}") for pair in pairs)


def _selected(sample: PairSample) -> str:
    left_out = [one.text for one in sample.where if not one.side]
    return f", or fewer conditions (--where {listing(left_out)})" if left_out else ""


def _with_donors(
    name: str, fits: Callable[[Pair, Clip], bool], sample: PairSample, clips: Sequence[Clip]
) -> tuple[Pair, ...]:
    clips = sorted(clips, key=lambda clip: clip.clip_id)
    pairs = []
    for pair in sample.pairs:
        # A donor speaks with A's voice and in A's language where the main pair's does and there is such a clip.
        same = [key for key in ("speaker", "language") if getattr(pair.a, key) == getattr(pair.b, key)]
        fitting = [clip for clip in clips if fits(pair, clip)]
        same_voice = [clip for clip in fitting if all(getattr(clip, key) == getattr(pair.a, key) for key in same)]
        donors = same_voice or fitting
        if not donors:
            raise UserError(
                f"control {name}: no clip can be the donor for {escape(pair.a.clip_id)} with target {pair.target}; "
                f"the data need more texts or labels for this control{_selected(sample)}"
            )
        donor = random.Random(f"{sample.report['seed']}:{name}:{pair.pair_id}").choice(donors)
        pairs.append(replace(pair, pair_id=f"{name}:{pair.pair_id}:{donor.clip_id}", b=donor))
    return distinct(pairs)
