"""A folder with the sounds of a manifest, and a corpus in the folder layout."""

import pytest

from tests.pairs.made_data import jsonl, sound


@pytest.fixture
def folder(tmp_path):
    for i in (1, 2, 3):
        sound(tmp_path / f"c{i}.wav", i / 10)
    return tmp_path


@pytest.fixture
def corpus(tmp_path):
    """The folder layout: two texts in five emotions, in folders named as ESD names them."""
    root = tmp_path / "My corpus"
    for emotion in ("Neutral", "Happy", "Sad", "Angry", "Surprise"):
        for text_id in ("001", "002"):
            sound(root / emotion / f"{text_id}.wav", len(emotion) / 20)
    jsonl(
        root / "text.jsonl",
        {"text_id": "001", "text": "It is noon.", "semantic_label": "neutral"},
        {"text_id": "002", "text": "선물이다!", "semantic_label": "Happy", "speaker": "f1"},
    )
    return root
