"""Spellings of one emotion are joined, distinct emotions never."""

import pytest

from models.labels import LABELS
from pairs import normalise_label


@pytest.mark.parametrize(
    ("label", "spellings"),
    [
        ("neutral", "neutral Neutral NEU neu"),
        ("happy", "happy HAP Happiness joy"),
        ("sad", "sad SAD sadness"),
        ("angry", "angry ANG anger"),
        ("surprised", "surprised Surprise sur PS pleasant_surprise Pleasant-Surprised"),
    ],
)
def test_spellings_of_the_corpora_are_understood(label, spellings):
    assert {normalise_label(spelling) for spelling in spellings.split()} == {label}


def test_inner_and_outer_space_do_not_matter():
    assert normalise_label("  Pleasant  Surprise\t") == "surprised"


def test_every_label_is_a_spelling_of_itself():
    assert [normalise_label(label) for label in LABELS] == list(LABELS)


@pytest.mark.parametrize(
    "other", "calm fear fearful FEA disgust DIS excited exc frustrated fru boredom a 01 xxx".split() + [""]
)
def test_another_emotion_is_never_taken_for_one_of_the_five(other):
    assert normalise_label(other) is None
