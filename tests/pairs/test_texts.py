"""`--texts` gives labels of texts that win over those of the data, whatever the data are."""

import re

import pytest

from pairs import dataset_hash, dataset_identity, load_dataset
from tests.pairs.corpora import names
from voicepatch.errors import UserError


@pytest.fixture
def tess(tmp_path):
    return names.write(
        tmp_path / "TESS", [f"OAF_{word}_{e}.wav" for word in ("love", "back") for e in ("sad", "happy")]
    )


@pytest.fixture
def texts(tmp_path):
    def write(*rows, header="text_id,semantic_label,text,text_type"):
        path = tmp_path / "texts.csv"
        path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
        return path

    return write


def test_labels_of_texts_win_and_semantic_pairs_are_there(tess, texts):
    dataset = load_dataset(tess, texts("love,joy,Say love,explicit"))
    assert {(c.text_id, c.semantic_label, c.text, c.text_type) for c in dataset.clips} == {
        ("love", "happy", "Say love", "explicit"),
        ("back", "neutral", "Say the word back", None),
    }
    assert dataset.corpus.pairs["semantic"] == {"same_speaker": 2, "any_speaker": 2}
    assert "1 of 2 texts have no label in --texts and count as neutral: back" in dataset.warnings
    assert not any("only prosody pairs" in warning for warning in dataset.warnings)


def test_only_the_label_is_needed_and_a_label_for_every_text_leaves_no_warning(tess, texts):
    path = texts("love,happy", "back,neutral", header="text_id,semantic_label")
    dataset = load_dataset(tess, path)
    assert {clip.text for clip in dataset.clips} == {"Say the word love", "Say the word back"}
    assert dataset.warnings == ("4 of the 2,800 recordings of a full download of TESS are there",)


def test_labels_of_texts_change_the_identity_and_their_place_is_recorded(tess, texts):
    plain = load_dataset(tess)
    labelled = load_dataset(tess, texts("love,happy,,"))
    assert dataset_hash(plain) != dataset_hash(labelled)
    assert dataset_identity(labelled)["texts"] == str(tess.parent / "texts.csv")
    assert "texts" not in dataset_identity(plain)
    assert dataset_hash(plain) == dataset_hash(load_dataset(tess, texts("love,neutral,,")))


def test_a_manifest_and_a_folder_of_emotions_take_them_too(tmp_path, texts):
    names.write(tmp_path, ["data/happy/t1.wav", "data/sad/t1.wav"])
    (tmp_path / "data" / "text.jsonl").write_text('{"text_id": "t1", "text": "Hm.", "semantic_label": "neutral"}\n')
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        "clip_id,path,text_id,text,semantic_label,prosody_label\nc1,data/sad/t1.wav,t1,Hm.,neutral,sad\n"
    )
    for source in (tmp_path / "data", manifest):
        dataset = load_dataset(source, texts("t1,angry,,", "t2,sad,,"))
        assert {(clip.semantic_label, clip.text) for clip in dataset.clips} == {("angry", "Hm.")}
        assert "texts.csv: texts that no clip has: t2" in dataset.warnings


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["love,calm,,"], ["row 2", "semantic_label 'calm'"]),
        (["love,sad,,", "love,happy,,"], ["row 3", "text_id 'love' is already in row 2"]),
        ([",sad,,"], ["row 2", "text_id is empty"]),
        (["lov,sad,,"], ["no text_id of it is one of the data's", "back, love", "its first is lov"]),
        ([], ["no rows"]),
    ],
)
def test_a_mistake_in_the_labels_is_refused(tess, texts, rows, words):
    with pytest.raises(UserError) as caught:
        load_dataset(tess, texts(*rows))
    assert all(re.search(word, str(caught.value)) for word in ["texts.csv", *words]), str(caught.value)


def test_labels_that_are_no_file_are_refused(tess, texts):
    for path in (tess / "gone.csv", tess):
        with pytest.raises(UserError, match="no such file; --texts is a CSV"):
            load_dataset(tess, path)
    with pytest.raises(UserError, match="no column text_id"):
        load_dataset(tess, texts("a,b", header="word,label"))
