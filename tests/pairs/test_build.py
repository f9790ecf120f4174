"""Pairs differ in one factor, and the sample of them depends on the clips and the seed alone."""

import json
import random
import time
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairs import KINDS, Clip, build_pairs, pair_row
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.types.task import default_task

LABELS = default_task().labels


def clip(clip_id, text=0, prosody="neutral", speaker=None, language=None):
    """Text number n means the label n modulo 5."""
    return Clip(
        clip_id, Path(f"{clip_id}.wav"), f"t{text}", f"text {text}", LABELS[text % 5], prosody, speaker, language
    )


def grid(n_texts=10, speakers=(None,)):
    """Every text in every prosody by every speaker."""
    return [
        clip(f"t{text}_{prosody}" + (f"_{speaker}" if speaker else ""), text, prosody, speaker)
        for text in range(n_texts)
        for prosody in LABELS
        for speaker in speakers
    ]


@st.composite
def clip_lists(draw):
    cells = st.tuples(st.integers(0, 7), st.sampled_from(LABELS), st.sampled_from([None, "f1", "m1"]))
    return [clip(f"c{i}", *cell) for i, cell in enumerate(draw(st.lists(cells, max_size=25)))]


def possible_pairs(clips, kind, same_speaker):
    """The table of SPEC section 3, read literally, over all combinations."""
    found = set()
    for a, b in combinations(clips, 2):
        if same_speaker and a.speaker != b.speaker:
            continue
        if kind == "prosody":
            fits = a.text_id == b.text_id and a.prosody_label != b.prosody_label
        else:
            fits = (
                a.prosody_label == b.prosody_label and a.text_id != b.text_id and a.semantic_label != b.semantic_label
            )
        if fits:
            found.add(frozenset({a.clip_id, b.clip_id}))
    return found


def unordered(pairs):
    return [frozenset({pair.a.clip_id, pair.b.clip_id}) for pair in pairs]


kinds = pytest.mark.parametrize("kind", KINDS)
any_kind = st.sampled_from(KINDS)


@given(clip_lists(), any_kind, st.booleans())
def test_an_uncapped_sample_is_exactly_the_set_of_possible_pairs(clips, kind, same_speaker):
    expected = possible_pairs(clips, kind, same_speaker)
    if not expected:
        with pytest.raises(UserError, match=f"no {kind} pairs"):
            build_pairs(clips, kind, same_speaker=same_speaker)
        return
    sample = build_pairs(clips, kind, max_pairs=10_000, same_speaker=same_speaker)
    assert set(unordered(sample.pairs)) == expected
    assert len(sample.pairs) == len(expected) == sample.report["pairs_possible"]


@given(clip_lists(), any_kind, st.integers(2, 30), st.integers(), st.booleans(), st.booleans())
def test_a_sample_keeps_every_promise(clips, kind, max_pairs, seed, same_speaker, both_directions):
    expected = possible_pairs(clips, kind, same_speaker)
    if not expected:
        return
    sample = build_pairs(clips, kind, max_pairs, seed, same_speaker, both_directions)
    for pair in sample.pairs:
        if kind == "prosody":
            assert pair.a.text_id == pair.b.text_id and pair.a.semantic_label == pair.b.semantic_label
            assert pair.a.prosody_label != pair.b.prosody_label == pair.target
        else:
            assert pair.a.prosody_label == pair.b.prosody_label and pair.a.text_id != pair.b.text_id
            assert pair.a.semantic_label != pair.b.semantic_label == pair.target
        assert pair.kind == kind
        assert not same_speaker or pair.a.speaker == pair.b.speaker
    drawn = Counter(unordered(sample.pairs))
    directions = 2 if both_directions else 1
    assert set(drawn.values()) == {directions}
    assert len(drawn) == min(max_pairs // directions, len(expected))
    assert len({pair.pair_id for pair in sample.pairs}) == len(sample.pairs)

    report = sample.report
    assert report["pairs_sampled"] == len(sample.pairs) == sum(report["per_transition"].values())
    assert sum(group["possible"] for group in report["per_group"].values()) == report["pairs_possible"]
    assert sum(group["sampled"] for group in report["per_group"].values()) == report["pairs_sampled"]
    assert json.loads(json.dumps(report)) == report


@given(clip_lists(), any_kind, st.randoms(use_true_random=False))
def test_the_sample_does_not_depend_on_file_order(clips, kind, shuffler):
    if not possible_pairs(clips, kind, same_speaker=True):
        return
    shuffled = list(clips)
    shuffler.shuffle(shuffled)
    assert build_pairs(shuffled, kind, max_pairs=5) == build_pairs(clips, kind, max_pairs=5)


def test_a_sample_is_the_same_in_every_process_and_python_version():
    """An interrupted run goes on with the pairs it began with, also after an upgrade."""
    prosody = build_pairs(grid(), "prosody", max_pairs=3).pairs
    semantic = build_pairs(grid(), "semantic", max_pairs=3).pairs
    assert [pair.pair_id for pair in prosody + semantic] == [
        "prosody:t0_happy->t0_sad",
        "prosody:t2_angry->t2_happy",
        "prosody:t5_angry->t5_happy",
        "semantic:t8_happy->t0_happy",
        "semantic:t3_sad->t1_sad",
        "semantic:t5_surprised->t4_surprised",
    ]


@kinds
def test_another_seed_draws_another_sample(kind):
    first, second = (set(unordered(build_pairs(grid(), kind, 20, seed).pairs)) for seed in (1, 2))
    assert first != second


def test_the_kinds_draw_from_separate_streams():
    """The same ids in the same two buckets, so that one stream would draw the same pairs of ids."""
    ids = [(i, f"{side}{i}") for i in range(20) for side in "ab"]
    prosody = [clip(name, 0, "angry" if name[0] == "a" else "happy") for _, name in ids]
    semantic = [clip(name, 5 * i + (3 if name[0] == "a" else 1)) for i, name in ids]
    drawn = [
        set(unordered(build_pairs(clips, kind, 20).pairs))
        for clips, kind in ((prosody, KINDS[0]), (semantic, KINDS[1]))
    ]
    assert drawn[0] != drawn[1]


@kinds
def test_every_possible_pair_is_drawn_about_equally_often(kind):
    """Groups of unequal size, so that drawing a group first and then a pair would show."""
    clips = grid(n_texts=2) + [clip(f"extra{i}", 0, "happy") for i in range(3)] + [clip("one", 1), clip("two", 5)]
    expected = possible_pairs(clips, kind, same_speaker=True)
    n_seeds, cap = 2000, 5
    drawn = Counter(pair for seed in range(n_seeds) for pair in unordered(build_pairs(clips, kind, cap, seed).pairs))
    mean = n_seeds * cap / len(expected)
    assert set(drawn) == expected
    assert all(abs(n - mean) < 5 * mean**0.5 for n in drawn.values())


@kinds
def test_directions_are_balanced_and_not_alphabetical(kind):
    pairs = build_pairs(grid(n_texts=40), kind, max_pairs=400).pairs
    n_alphabetical = sum(pair.a.clip_id < pair.b.clip_id for pair in pairs)
    assert 150 < n_alphabetical < 250
    targets = Counter(pair.target for pair in pairs)
    assert set(targets) == set(LABELS) and min(targets.values()) > 40


@kinds
def test_the_direction_of_a_pair_does_not_depend_on_what_else_is_sampled(kind):
    few = {pair.pair_id for pair in build_pairs(grid(), kind, max_pairs=10).pairs}
    all_of_them = {pair.pair_id for pair in build_pairs(grid(), kind, max_pairs=10_000).pairs}
    assert len(few) == 10 and few <= all_of_them


@kinds
def test_both_directions_mirror_each_other(kind):
    pairs = build_pairs(grid(), kind, max_pairs=21, both_directions=True).pairs
    directed = {(pair.a.clip_id, pair.b.clip_id) for pair in pairs}
    assert len(directed) == 20
    assert directed == {(b, a) for a, b in directed}


@kinds
def test_pairs_of_one_group_are_neighbours(kind):
    groups = [
        pair.a.text_id if kind == "prosody" else pair.a.prosody_label
        for pair in build_pairs(grid(), kind, max_pairs=60).pairs
    ]
    assert groups == sorted(groups)


def test_the_report_counts_a_known_grid():
    report = build_pairs(grid(n_texts=10, speakers=("f1", "m1")), "prosody", max_pairs=100).report
    assert report["n_clips"] == 100
    assert report["pairs_possible"] == 10 * 2 * 10
    assert report["per_group"]["t0 (speaker f1)"]["possible"] == 10
    assert report["groups_skipped"] == [] and report["warnings"] == []
    report = build_pairs(grid(n_texts=10, speakers=("f1", "m1")), "semantic", same_speaker=False).report
    assert report["pairs_possible"] == 5 * (10 * 4 * 4)  # 5 prosodies, 10 pairs of labels, 2 texts × 2 voices a label
    assert set(report["per_group"]) == set(LABELS)


def test_a_group_that_offers_no_pair_is_listed_with_the_reason():
    clips = [clip("a"), clip("b", prosody="sad"), clip("lone", 1), clip("c", 2, "happy"), clip("d", 2, "happy")]
    report = build_pairs(clips, "prosody").report
    assert report["groups_skipped"] == [
        {"group": "t1", "n_clips": 1, "reason": "only one clip"},
        {"group": "t2", "n_clips": 2, "reason": "every prosody_label is happy"},
    ]
    assert any("2 of 3 groups" in warning and "t1 (only one clip)" in warning for warning in report["warnings"])


def test_clips_without_a_speaker_beside_named_ones_are_warned_about():
    report = build_pairs([*grid(), *(clip(f"x{p}", 0, p, "f1") for p in LABELS)], "prosody").report
    assert any("50 of 55 clips name no speaker" in warning for warning in report["warnings"])


def test_semantic_pairs_never_join_two_languages():
    clips = [clip("a", 0, language="en"), clip("b", 1, language="ko"), clip("c", 1, language="en")]
    assert [{p.a.clip_id, p.b.clip_id} for p in build_pairs(clips, "semantic").pairs] == [{"a", "c"}]


@pytest.mark.parametrize(
    ("clips", "kind", "reason"),
    [
        ([], "prosody", "there are no clips"),
        ([clip("a", 0), clip("b", 1)], "prosody", "same text_id all have one prosody_label"),
        ([clip("a", 0), clip("b", 5)], "semantic", "same prosody_label all have one semantic_label"),
        ([clip("a", 0, "sad", "f1"), clip("b", 0, "happy", "m1")], "prosody", "no speaker has two clips"),
    ],
)
def test_an_impossible_request_says_what_is_missing(clips, kind, reason):
    with pytest.raises(UserError, match=reason):
        build_pairs(clips, kind)


@pytest.mark.parametrize(("max_pairs", "both_directions"), [(0, False), (-1, False), (1, True)])
def test_a_cap_below_one_pair_is_wrong_usage(max_pairs, both_directions):
    with pytest.raises(UserError, match="max_pairs") as caught:
        build_pairs(grid(), "prosody", max_pairs, both_directions=both_directions)
    assert caught.value.status == BAD_USAGE


def test_a_text_with_two_meanings_is_refused():
    other = Clip("b", Path("b.wav"), "t0", "text 0", "sad", "happy")
    with pytest.raises(UserError, match="clip 'b'.*'t0'.*one meaning"):
        build_pairs([clip("a"), other], "prosody")


@kinds
def test_a_row_of_the_pair_list_has_the_labels_of_both_clips(kind):
    pair = build_pairs(grid(speakers=("f1",)), kind).pairs[0]
    row = pair_row(pair)
    assert (row["clip_a"], row["clip_b"], row["target"]) == (pair.a.clip_id, pair.b.clip_id, pair.target)
    assert row["text_id_a"] == pair.a.text_id and row["prosody_label_b"] == pair.b.prosody_label


@kinds
def test_a_hundred_thousand_clips_take_seconds(kind):
    clips = grid(n_texts=10_000, speakers=("f1", "m1"))
    random.Random(0).shuffle(clips)
    began = time.perf_counter()
    sample = build_pairs(clips, kind)
    assert time.perf_counter() - began < 10
    assert len(sample.pairs) == 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_smaller_sample_is_a_part_of_a_larger_one(kind):
    samples = [{pair.pair_id for pair in build_pairs(grid(), kind, n).pairs} for n in (2, 3, 30, 90)]
    assert [len(sample) for sample in samples] == [2, 3, 30, 90]
    assert samples[0] < samples[1] < samples[2] < samples[3]
