"""Each label is read from one token, and what that approximates is reported."""

import json

import pytest

from voicepatch.models.labels import LabelTokenizerHelper
from voicepatch.types.task import default_task

LABELS = default_task().labels

# As in Qwen's vocabulary; the ids are made up.
PIECES = {
    "neutral": ["neutral"],
    "happy": ["happy"],
    "sad": ["sad"],
    "angry": ["ang", "ry"],
    "surprised": ["sur", "pr", "ised"],
}
VOCABULARY = ["ised", "ang", "happy", "neutral", "pr", "ry", "sad", "sur"]


class Tokenizer:
    """Knows the labels alone: another text, or a call that lets special tokens in, has no entry."""

    def __init__(self, **changed):
        self.pieces = PIECES | changed

    def encode(self, text, add_special_tokens=True):
        assert not add_special_tokens
        return [VOCABULARY.index(piece) for piece in self.pieces[text]]

    def convert_ids_to_tokens(self, ids):
        return [VOCABULARY[i] for i in ids]


def test_the_labels_are_in_the_order_of_the_specification():
    assert LABELS == ("neutral", "happy", "sad", "angry", "surprised")


def test_each_label_is_read_from_its_first_token_in_the_labels_order():
    assert LabelTokenizerHelper(Tokenizer(), LABELS).token_ids == [3, 2, 6, 1, 7]
    reordered = LabelTokenizerHelper(Tokenizer(), ("surprised", "happy"))
    assert reordered.token_ids == [7, 2]


def test_the_report_tells_what_is_approximated():
    report = LabelTokenizerHelper(Tokenizer(), LABELS).report()
    assert json.loads(json.dumps(report)) == report
    assert list(report["labels"]) == list(LABELS)
    assert report["labels"]["sad"] == {
        "text": "sad",
        "token_ids": [6],
        "tokens": ["sad"],
        "id_used": 6,
        "multi_token": False,
    }
    assert report["labels"]["surprised"] == {
        "text": "surprised",
        "token_ids": [7, 4, 0],
        "tokens": ["sur", "pr", "ised"],
        "id_used": 7,
        "multi_token": True,
    }
    assert [label for label in LABELS if report["labels"][label]["multi_token"]] == ["angry", "surprised"]
    assert report["first_token_collision"] == {"found": False, "labels": []}


def test_two_labels_with_one_first_token_are_refused(refused):
    with refused("'sad' and 'surprised'", "same token"):
        LabelTokenizerHelper(Tokenizer(sad=["sur", "ised"]), LABELS)


def test_a_label_without_a_token_is_refused(refused):
    with refused("'happy'"):
        LabelTokenizerHelper(Tokenizer(happy=[]), LABELS)


@pytest.mark.parametrize(("label", "first"), [("angry", "ang"), ("surprised", "sur"), ("sad", "s"), ("happy", "h")])
def test_a_hugging_face_tokenizer_is_asked_for_the_bare_label(io, label, first):
    """Neither the blank before a word nor a special token comes first."""
    entry = LabelTokenizerHelper(io.tokenizer, LABELS).report()["labels"][label]
    assert entry["tokens"][0] == first
    assert entry["id_used"] == io.tokenizer.convert_tokens_to_ids(first)
