"""Corpora give what their file names say beside the emotion, and a task may ask for it."""

import pytest
from msgspec import structs

from pairs import build_pairs, load_dataset
from pairs.corpora import recognise
from pairs.corpora.read import read_corpus
from tests.pairs.corpora import names
from voicepatch.errors import UserError
from voicepatch.types.task import default_task, load_task

GENDER = load_task("gender")
DEMOGRAPHICS = (
    "ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Caucasian,Not Hispanic\n1002,21,Female,Asian,Not Hispanic\n"
)


def read(paths, task=None):
    tree = names.tree(paths)
    return read_corpus(tree, recognise(tree), task or default_task())


@pytest.mark.parametrize(
    ("path", "columns"),
    [
        (
            "03-01-05-02-01-01-07.wav",
            {"gender": "male", "intensity": "strong", "statement": "01", "repetition": "1"},
        ),
        (
            "03-01-05-01-02-02-12.wav",
            {"gender": "female", "intensity": "normal", "statement": "02", "repetition": "2"},
        ),
        ("1040_IEO_SAD_LO.wav", {"intensity": "low"}),
        ("1040_ITH_SAD_X.wav", {"intensity": "unspecified"}),
        ("OAF_back_ps.wav", {"gender": "female", "age": "64"}),
        ("female1_angry_10a_2.wav", {"gender": "female", "session": "a", "repetition": "2"}),
        ("male2_sad_3b_1.wav", {"gender": "male", "session": "b", "repetition": "1"}),
        ("03a01Wa.wav", {"gender": "male", "age": "31", "version": "a"}),
        ("16b10Fb.wav", {"gender": "female", "age": "31", "version": "b"}),
        ("01_angry_explicit_happy_0012_COSY.wav", {"system": "COSY"}),
    ],
)
def test_a_clip_has_what_its_name_says(path, columns):
    (clip,), *_ = read([path])
    assert clip.columns == columns


def crema_d(root, table=DEMOGRAPHICS):
    names.write(
        root, [f"AudioWAV/{actor}_DFA_{emotion}_XX.wav" for actor in (1001, 1002) for emotion in ("ANG", "DIS")]
    )
    if table:
        (root / "VideoDemographics.csv").write_text(table)
    return root


def test_crema_d_has_gender_and_age_where_its_table_lies_beside_it(tmp_path):
    clips = load_dataset(crema_d(tmp_path)).clips
    assert {(clip.speaker, clip.columns["gender"], clip.columns["age"]) for clip in clips} == {
        ("1001", "male", "51"),
        ("1002", "female", "21"),
    }


def test_crema_d_without_its_table_names_it(tmp_path):
    with pytest.raises(UserError, match=r"has no column gender here.* put VideoDemographics.csv beside the clips, or"):
        load_dataset(crema_d(tmp_path, table=""), task=GENDER)


def test_the_genders_of_crema_d_are_a_task(tmp_path):
    """Emotions are no labels of it, so none is left out, and each is a further column."""
    dataset = load_dataset(crema_d(tmp_path), task=GENDER)
    assert {(clip.prosody_label, clip.columns["prosody_label"]) for clip in dataset.clips} == {
        (gender, emotion) for gender in ("male", "female") for emotion in ("angry", "disgust")
    }
    assert all("gender" not in clip.columns and clip.semantic_label is None for clip in dataset.clips)
    sample = build_pairs(dataset.clips, "prosody", task=GENDER, where=["prosody_label=angry"])
    assert [{pair.a.speaker, pair.b.speaker} for pair in sample.pairs] == [{"1001", "1002"}]
    assert not any("neutral" in warning for warning in dataset.warnings)


def test_a_task_may_ask_for_any_column_of_a_corpus():
    task = structs.replace(GENDER, name="intensity", labels=("normal", "strong"), voice="intensity", spellings={})
    paths = [f"03-01-05-0{level}-01-01-{actor:02d}.wav" for level in (1, 2) for actor in (1, 2)]
    clips, _, recognised = read(paths, task)
    assert {clip.prosody_label for clip in clips} == {"normal", "strong"}
    assert all(clip.columns["prosody_label"] == "angry" for clip in clips)
    assert recognised.pairs == {"prosody": {"same_speaker": 2, "any_speaker": 4}}


def test_a_column_that_a_corpus_lacks_is_refused_with_those_that_it_has():
    task = structs.replace(GENDER, voice="accent")
    with pytest.raises(UserError, match="RAVDESS has no column accent here.* it has gender, intensity, prosody_label"):
        read(["03-01-05-02-01-01-07.wav"], task)


def test_secondary_emotions_of_jl_corpus_are_other_texts_unless_their_files_say_so():
    """Their sentences are partly others under the same numbers."""
    clips, *_ = read([f"female1_{emotion}_4a_1.wav" for emotion in ("angry", "anxious", "happy")], GENDER)
    assert sorted((clip.text_id, clip.text) for clip in clips) == [
        ("04", "Taylor likes stewed Asian food"),
        ("04", "Taylor likes stewed Asian food"),
        ("04-anxious", "04-anxious"),
    ]
