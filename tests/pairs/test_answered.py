"""Pairs that the model answers: what passes, in which order, and how many clips are asked for it."""

import hashlib

import pytest

from pairs import build_pairs
from pairs.controls import with_random_donor, without_conflict
from tests.pairs.test_build import grid
from voicepatch.errors import UserError

LABELS = ("neutral", "happy", "sad", "angry", "surprised")


class Model:
    """Answers to every clip with one of its two labels or another one, drawn by its id, and keeps what it was asked."""

    def __init__(self, silent=()):
        self.asked, self.silent = [], silent

    def answer(self, clip):
        number = hashlib.sha256(clip.clip_id.encode()).digest()[0] % 3
        return (clip.prosody_label, clip.semantic_label, "neutral")[number]

    def __call__(self, clips):
        self.asked += [clip.clip_id for clip in clips]
        return {clip.clip_id: self.answer(clip) for clip in clips if clip.clip_id not in self.silent}

    def passes(self, pair):
        return all(self.answer(clip) == getattr(clip, f"{pair.kind}_label") for clip in (pair.a, pair.b))


@pytest.mark.parametrize("kind", ["prosody", "semantic"])
@pytest.mark.parametrize("both_directions", [False, True])
def test_the_sample_is_the_part_of_the_drawn_pairs_that_passes(kind, both_directions):
    model, how = Model(), {"both_directions": both_directions}
    every = build_pairs(grid(30), kind, 100_000, **how).pairs
    found = build_pairs(grid(30), kind, 100_000, answers=model, **how)
    assert set(found.pairs) == {pair for pair in every if model.passes(pair)} and 0 < len(found.pairs) < len(every)
    counts = found.report["answered"]
    assert counts["tried"] == found.report["pairs_possible"] == sum(counts.values()) - counts["tried"]
    assert found.report["pairs_sampled"] == counts["passed"] * (1 + both_directions)


@pytest.mark.parametrize("both_directions", [False, True])
def test_a_smaller_sample_is_a_part_of_a_larger_one_and_asks_for_fewer_clips(both_directions):
    before, tried, asked = set(), 0, set()
    for n in (2, 3, 6, 9, 20):
        model = Model()
        sample = build_pairs(grid(30), "prosody", n, both_directions=both_directions, answers=model)
        assert len(sample.pairs) == n - (n % 2 if both_directions else 0)
        assert before <= set(sample.pairs) and tried <= sample.report["answered"]["tried"] and asked <= set(model.asked)
        before, tried, asked = set(sample.pairs), sample.report["answered"]["tried"], set(model.asked)


def test_the_pair_that_is_tried_last_passes():
    """Were the trial to go on after the last pair that is needed, it would run clips in vain."""
    model = Model()
    sample = build_pairs(grid(30), "semantic", 5, answers=model)
    assert len(model.asked) == 2 * sample.report["answered"]["tried"]
    last = {pair.b.clip_id for pair in sample.pairs} | {pair.a.clip_id for pair in sample.pairs}
    assert set(model.asked[-2:]) <= last


def test_why_the_others_did_not_pass_is_counted_by_the_first_direction():
    model = Model()
    counts = build_pairs(grid(30), "prosody", 100_000, answers=model).report["answered"]
    every = build_pairs(grid(30), "prosody", 100_000).pairs
    right = [tuple(model.answer(clip) == clip.prosody_label for clip in (pair.a, pair.b)) for pair in every]
    keys = {
        "passed": (True, True),
        "a_did_not": (False, True),
        "b_did_not": (True, False),
        "neither_did": (False, False),
    }
    assert {key: counts[key] for key in keys} == {key: right.count(value) for key, value in keys.items()}


def test_a_clip_without_an_answer_is_counted_and_its_pairs_are_left_out():
    clips = grid(30)
    silent = clips[0].clip_id
    sample = build_pairs(clips, "prosody", 100_000, answers=Model(silent=[silent]))
    every = build_pairs(clips, "prosody", 100_000).pairs
    assert sample.report["answered"]["no_answer"] == sum(silent in (p.a.clip_id, p.b.clip_id) for p in every) > 0
    assert all(silent not in (pair.a.clip_id, pair.b.clip_id) for pair in sample.pairs)
    assert "a clip has no answer" in sample.report["warnings"][-1]


def test_where_none_passes_the_error_has_the_counts():
    with pytest.raises(UserError, match=r"no prosody pairs that the model answers: in 0 of \d+ pairs tried, .*neither"):
        build_pairs(grid(30), "prosody", 5, answers=lambda clips: {clip.clip_id: "none of them" for clip in clips})


def test_controls_take_over_the_recipients_or_the_condition():
    model = Model()
    sample = build_pairs(grid(30), "prosody", 6, answers=model)
    assert [pair.a for pair in with_random_donor(sample, grid(30))] == [pair.a for pair in sample.pairs]
    assert all(model.passes(pair) for pair in without_conflict(sample, grid(30)))
