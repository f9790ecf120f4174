"""`where` selects clips, and sides of pairs."""

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from pairs import build_pairs
from pairs.controls import with_random_donor, with_same_labels, without_conflict
from tests.pairs.test_build import LABELS, clip, grid
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.types.selection import read_conditions
from voicepatch.types.task import default_task

TASK = default_task()
GRID = [
    replace(one, text_type="explicit" if int(one.text_id[1:]) < 10 else "implicit", columns={"gender": one.speaker[0]})
    for one in grid(20, speakers=("f1", "m1"))
]


@st.composite
def conditions(draw):
    """Some conditions of clips, and of both sides."""
    sides = st.sampled_from(["", "a.", "b."])
    some = st.lists(st.sampled_from(LABELS), min_size=1, max_size=3, unique=True)
    column = st.sampled_from(["prosody_label", "semantic_label"])
    return [f"{draw(sides)}{draw(column)}={','.join(draw(some))}" for _ in range(draw(st.integers(1, 3)))]


def allowed(a, b, kind, where):
    """Whether A and B are a pair of the kind, and fulfil the conditions, read literally."""
    fixed, varied = ("text_id", "prosody_label") if kind == "prosody" else ("prosody_label", "semantic_label")
    fits = getattr(a, fixed) == getattr(b, fixed) and getattr(a, varied) != getattr(b, varied)
    for text in where:
        column, values = text.split("=")
        side, dot, rest = column.rpartition(".")
        clips = {"a": [a], "b": [b], "": [a, b]}[side if dot else ""]
        fits = fits and all(getattr(one, rest) in values.split(",") for one in clips)
    return fits and a.speaker == b.speaker


@given(st.sampled_from(["prosody", "semantic"]), conditions(), st.booleans(), st.integers(2, 40))
def test_exactly_the_pairs_that_fulfil_the_conditions_are_drawn(kind, where, both_directions, max_pairs):
    clips = [clip(f"c{number}", *cell) for number, cell in enumerate((t, p) for t in range(7) for p in LABELS)]
    expected = {
        (a.clip_id, b.clip_id)
        for first, second in combinations(clips, 2)
        for a, b in ((first, second), (second, first))
        if allowed(a, b, kind, where)
    }
    how = {"both_directions": both_directions, "where": where}
    if not expected:
        with pytest.raises(UserError, match="no .* pairs with --where: .* leaves"):
            build_pairs(clips, kind, **how)
        return
    found = build_pairs(clips, kind, 10_000, **how)
    directed = {(pair.a.clip_id, pair.b.clip_id) for pair in found.pairs}
    assert len(directed) == len(found.pairs) and directed <= expected
    assert {frozenset(pair) for pair in directed} == {frozenset(pair) for pair in expected}
    assert not both_directions or directed == expected
    assert found.report["pairs_possible"] == len({frozenset(pair) for pair in expected})
    part = build_pairs(clips, kind, max_pairs, **how)
    assert {pair.pair_id for pair in part.pairs} <= {pair.pair_id for pair in found.pairs}
    assert min(max_pairs, len(found.pairs)) - both_directions <= len(part.pairs) <= max_pairs


def test_a_selection_of_clips_draws_what_those_clips_alone_would():
    explicit = [one for one in GRID if one.text_type == "explicit"]
    sample = build_pairs(GRID, "prosody", 20, where=["text_type=explicit"])
    assert sample.pairs == build_pairs(explicit, "prosody", 20).pairs
    assert sample.report["n_clips"] == len(explicit) == len(sample.clips)
    assert sample.report["selection"] == [
        {"condition": "text_type=explicit", "of": "clips", "n_all": len(GRID), "n_left": len(explicit)}
    ]


def test_the_report_counts_what_each_condition_leaves():
    found = build_pairs(GRID, "prosody", 20, where=["gender=f", "a.prosody_label=Sadness", "b.prosody_label=joy,ps"])
    assert {(pair.a.prosody_label, pair.b.prosody_label) for pair in found.pairs} == {
        ("sad", "happy"),
        ("sad", "surprised"),
    }
    left = {row["condition"]: (row["of"], row["n_all"], row["n_left"]) for row in found.report["selection"]}
    assert left == {
        "gender=f": ("clips", 200, 100),
        "a.prosody_label=Sadness": ("pairs", 200, 80),
        "b.prosody_label=joy,ps": ("pairs", 200, 140),
    }


def test_controls_take_their_clips_from_the_selection():
    sample = build_pairs(GRID, "semantic", 20, where=["gender=f", "a.prosody_label=sad,angry"])
    for control in (with_random_donor, with_same_labels, without_conflict):
        pairs = control(sample, sample.clips)
        assert all(pair.a.speaker == pair.b.speaker == "f1" for pair in pairs)
        assert {pair.a.prosody_label for pair in pairs} <= {"sad", "angry"}


def test_a_control_that_the_selection_leaves_no_donor_names_the_conditions():
    sample = build_pairs(GRID, "prosody", 20, where=["prosody_label=sad,happy"])
    with pytest.raises(UserError, match=r"fewer conditions \(--where prosody_label=sad,happy\)"):
        with_random_donor(sample, sample.clips)


def test_a_label_has_its_name_in_the_data():
    """In another task, the labels of the emotion task are columns like others."""
    task = structs.replace(TASK, name="gender", labels=("female", "male"), voice="gender", words=None, spellings={})
    clips = [
        replace(one, prosody_label="female" if one.speaker == "f1" else "male", columns={"prosody_label": "sad"})
        for one in GRID
    ]
    by_voice, by_column = read_conditions(["gender=Female", "prosody_label=sad"], clips, task)
    assert sum(map(by_voice.holds, clips)) == len(clips) / 2 and all(map(by_column.holds, clips))


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("text_typ=explicit", "the data have no column 'text_typ'; did you mean text_type?"),
        ("a.gendr=f", "the data have no column 'gendr'; did you mean gender?"),
        ("language=en", "the data have no column 'language'; there is clip_id, text_id, text, text_type, speaker, "),
        ("text_type=explict", "no clip has text_type 'explict'; did you mean explicit?"),
        ("gender=f,x", "no clip has gender 'x'; there is f, m"),
        ("b.prosody_label=bored", "no clip has prosody_label 'bored'; there is angry, happy, neutral, sad, surprised"),
    ],
)
def test_an_unknown_column_or_value_is_refused_with_the_nearest_one(where, why):
    with pytest.raises(UserError) as caught:
        build_pairs(GRID, "prosody", where=[where])
    assert str(caught.value).startswith(f"--where {where!r}: {why}") and caught.value.status == BAD_USAGE


def test_a_value_may_hold_a_comma_and_a_column_any_sign():
    clips = [replace(one, columns={"a.b=c": f"{one.speaker}, {one.prosody_label}"}) for one in GRID]
    (condition,) = read_conditions(["a.a.b=c=f1, sad"], clips, TASK)
    assert condition.side == "a" and condition.column == "a.b=c"
    assert {one.prosody_label for one in clips if condition.holds(one)} == {"sad"}
    (condition,) = read_conditions(["a.b=c=f1, sad"], clips, TASK)
    assert condition.side == "" and sum(map(condition.holds, clips)) == 20


@pytest.mark.parametrize("columns", [("a.x", "x"), ("x", "x=y")])
def test_a_condition_that_may_name_two_columns_is_refused(columns):
    clips = [replace(one, columns=dict.fromkeys(columns, "1")) for one in GRID]
    with pytest.raises(UserError, match=f"this may be column .* or {columns[1]} of .*; rename one"):
        read_conditions([f"{max(columns, key=len)}=1"], clips, TASK)


def test_a_clip_without_a_value_fulfils_no_condition():
    clips = [*GRID, replace(GRID[0], clip_id="nameless", speaker=None)]
    (condition,) = read_conditions(["speaker=f1,m1"], clips, TASK)
    assert [one.clip_id for one in clips if not condition.holds(one)] == ["nameless"]
