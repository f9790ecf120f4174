"""Each control's pairs keep what they should and change what they should."""

from dataclasses import replace
from pathlib import Path

import pytest

from pairs import Clip, build_pairs
from pairs.controls import with_itself, with_random_donor, with_same_labels, without_conflict
from voicepatch.errors import UserError
from voicepatch.types.task import default_task

LABELS = default_task().labels

CLIPS = [
    Clip(
        clip_id=f"{speaker}{text}_{prosody}",
        path=Path("x.wav"),
        text_id=f"{speaker}{text}",
        text="words",
        semantic_label=LABELS[text % 5],
        prosody_label=prosody,
        speaker=speaker,
        text_type=("explicit", "implicit")[text % 2],
    )
    for speaker in ("f", "m")
    for text in range(20)
    for prosody in LABELS
]


@pytest.fixture(params=["prosody", "semantic"])
def sample(request):
    return build_pairs(CLIPS, request.param, max_pairs=60)


def recipients_and_targets(pairs):
    return [(pair.a, pair.target) for pair in pairs]


def test_self_and_random_keep_recipients_targets_and_order(sample):
    for control in (with_itself, with_random_donor):
        pairs = control(sample, CLIPS)
        assert recipients_and_targets(pairs) == recipients_and_targets(sample.pairs)
        assert len({pair.pair_id for pair in pairs}) == len(pairs)
    assert all(pair.b == pair.a for pair in with_itself(sample, CLIPS))


def test_a_random_donor_has_another_text_another_prosody_and_no_label_like_the_target(sample):
    for pair in with_random_donor(sample, CLIPS):
        assert pair.b.text_id != pair.a.text_id and pair.b.prosody_label != pair.a.prosody_label
        assert pair.target not in (pair.b.semantic_label, pair.b.prosody_label)
        assert pair.b.speaker == pair.a.speaker


def test_random_donors_depend_on_the_seed_and_not_on_the_order_of_the_data(sample):
    donors = [pair.b for pair in with_random_donor(sample, CLIPS)]
    assert donors == [pair.b for pair in with_random_donor(sample, CLIPS[::-1])]
    other = replace(sample, report=sample.report | {"seed": 7})
    assert donors != [pair.b for pair in with_random_donor(other, CLIPS)]
    assert len(set(donors)) > 20


def test_a_same_label_donor_is_another_clip_with_both_labels_and_the_target_is_theirs(sample):
    pairs = with_same_labels(sample, CLIPS)
    assert [pair.a for pair in pairs] == [pair.a for pair in sample.pairs]
    for pair in pairs:
        assert pair.b.clip_id != pair.a.clip_id
        for key in ("semantic_label", "prosody_label", "text_type", "speaker"):
            assert getattr(pair.b, key) == getattr(pair.a, key)
        assert pair.target == getattr(pair.a, f"{pair.kind}_label")


def test_where_no_donor_has_the_voice_another_voice_donates():
    few = [clip for clip in CLIPS if clip.text_id in ("f0", "m0")]
    pairs = with_same_labels(build_pairs(few, "prosody"), few)
    assert pairs and all(pair.b.speaker != pair.a.speaker for pair in pairs)


def test_recipients_without_conflict_have_one_label_and_are_pairs_of_the_main_kind(sample):
    pairs = without_conflict(sample, CLIPS)
    assert len(pairs) == 60
    kind = sample.report["kind"]
    for pair in pairs:
        assert pair.a.semantic_label == pair.a.prosody_label
        assert pair.target == getattr(pair.b, f"{kind}_label") != getattr(pair.a, f"{kind}_label")
        assert pair.a.speaker == pair.b.speaker
        same = "text_id" if kind == "prosody" else "prosody_label"
        assert getattr(pair.a, same) == getattr(pair.b, same)


def test_all_pairs_without_conflict_can_be_drawn():
    for kind in ("prosody", "semantic"):
        drawn = build_pairs(CLIPS, kind, max_pairs=100_000, agreeing_recipient=True)
        every = build_pairs(CLIPS, kind, max_pairs=100_000, both_directions=True)
        expected = {(p.a, p.b) for p in every.pairs if p.a.semantic_label == p.a.prosody_label}
        assert {(p.a, p.b) for p in drawn.pairs} == expected
        assert drawn.report["pairs_possible"] == len(expected)


def test_data_without_a_donor_or_without_agreement_is_an_error():
    few = [clip for clip in CLIPS if clip.text_id in ("f0",)]
    sample = build_pairs(few, "prosody")
    with pytest.raises(UserError, match="control random: no clip can be the donor"):
        with_random_donor(sample, few)
    conflicting = [clip for clip in CLIPS if clip.semantic_label != clip.prosody_label]
    with pytest.raises(UserError, match="without conflict"):
        without_conflict(build_pairs(conflicting, "prosody"), conflicting)
