"""What is said comes from the corpus' own files, in the encodings that editions have, and one text_id is one text."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pairs import dataset_identity, load_dataset
from tests.pairs.corpora import names
from voicepatch.errors import UserError

FOLDERS = {"Neutral": 1, "Angry": 351, "Happy": 701, "Sad": 1051, "Surprise": 1401}
MANDARIN = {"Neutral": "中立", "Angry": "生气", "Happy": "快乐", "Sad": "伤心", "Surprise": "惊喜"}


def esd(root, speakers=("0011",), lines=None, encoding="utf-8", text="The nine the eggs, I keep."):
    """ESD with one sentence a speaker; `lines` are the transcript's where it is not the usual one."""
    for speaker in speakers:
        ids = {emotion: f"{speaker}_{first:06d}" for emotion, first in FOLDERS.items()}
        names.write(root, [f"{speaker}/{emotion}/{clip_id}.wav" for emotion, clip_id in ids.items()])
        written = lines or [f"{clip_id}\t{text}\t{emotion}" for emotion, clip_id in ids.items()]
        (root / speaker / f"{speaker}.txt").write_bytes("\n".join(written).encode(encoding))
    return root


def refused(path, *words):
    with pytest.raises(UserError) as caught:
        load_dataset(path)
    message = str(caught.value)
    assert message.isprintable()
    for word in words:
        assert re.search(word, message), f"{word!r} not in {message!r}"


def by_text(dataset):
    return {(clip.text_id, clip.text) for clip in dataset.clips}


# --- ESD


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_a_transcript_is_read_in_each_encoding_of_the_editions(tmp_path, encoding):
    """Its bytes in UTF-8 are also valid GB18030, of other words."""
    lines = [f"0003_{first:06d}\t气死我了\t{MANDARIN[emotion]}" for emotion, first in FOLDERS.items()]
    dataset = load_dataset(esd(tmp_path, ["0003"], lines, encoding))
    assert by_text(dataset) == {("zh001", "气死我了")}
    assert len(dataset.clips) == 5 and dataset.corpus.edition == "new edition, Mandarin"


@pytest.mark.parametrize(
    "data",
    [
        "0011_000001\tWords.\tNeutral".encode("utf-16-le"),
        "0011_000001\tWords.\tNeutral".encode("utf-32"),
        b"0011_000001\t\xff\xff\tNeutral",
        b"\xff\xfe\x00",
    ],
)
def test_a_transcript_in_another_encoding_is_named(tmp_path, data):
    (esd(tmp_path) / "0011" / "0011.txt").write_bytes(data)
    refused(tmp_path, r"0011/0011\.txt", "neither UTF-16 with its mark nor UTF-8 nor GB18030", "save the file as UTF-8")


def test_a_transcript_that_is_missing_or_none_is_named(tmp_path):
    root = esd(tmp_path, ["0011", "0012"])
    transcript = root / "0012" / "0012.txt"
    transcript.write_text("no tabs here\n")
    refused(root, r"0012/0012\.txt", "no line reads as")
    transcript.unlink()
    refused(root, "download is incomplete", r"speaker 0012 has sounds but no transcript 0012\.txt")
    names.write(root, ["copy/0011/0011.txt"])
    refused(root, r"0011/0011\.txt and copy/0011/0011\.txt have one name but differ in size")


def test_the_old_editions_broken_lines_are_read(tmp_path):
    lines = [
        "\ufeff0011_000001\tThe nine the eggs, I keep.\tNeutral",
        "",
        "0011_000351 The nine the eggs, I keep. \tAngry\r",
        "0011_000701\tThe nine the eggs, I keep.\tHappy ",
        "0011_001051\t\tSad",
        "unusable",
    ]
    dataset = load_dataset(esd(tmp_path, lines=lines))
    assert by_text(dataset) == {("en001", "The nine the eggs, I keep.")} and len(dataset.clips) == 3
    assert dataset.corpus.left_out == {"without a line in the transcript": 2}


def test_a_text_that_was_spoken_otherwise_has_an_id_of_its_own(tmp_path):
    said = ["the glass globe is big", "The glass globe is big.", "the glass globe is big", "A globe.", "Big, a glass."]
    lines = [f"0015_{first:06d}\t{text}\tx" for first, text in zip(FOLDERS.values(), said, strict=True)]
    dataset = load_dataset(esd(tmp_path, ["0015"], lines))
    assert {clip.clip_id: (clip.text_id, clip.text) for clip in dataset.clips} == {
        "0015_000001": ("en001", "the glass globe is big"),
        "0015_000351": ("en001", "the glass globe is big"),
        "0015_000701": ("en001", "the glass globe is big"),
        "0015_001051": ("en001-3", "A globe."),
        "0015_001401": ("en001-2", "Big, a glass."),
    }
    assert dataset.corpus.pairs["prosody"]["same_speaker"] == 3


@pytest.mark.parametrize("n_shortened", [1, 3, 5])
def test_the_first_word_that_the_new_edition_lost_is_put_back(tmp_path, n_shortened):
    root = esd(tmp_path, ["0011"], text="Sew the glass globe.")
    said = ["the glass globe."] * n_shortened + ["Sew the glass globe."] * (5 - n_shortened)
    lines = [f"0015_{first:06d}\t{text}\tx" for first, text in zip(FOLDERS.values(), said, strict=True)]
    dataset = load_dataset(esd(root, ["0015"], lines))
    assert by_text(dataset) == {("en001", "Sew the glass globe.")}


def test_a_clip_whose_folder_or_transcript_contradicts_its_number_is_left_out(tmp_path):
    lines = [f"0011_{first:06d}\tHm.\t{emotion}" for emotion, first in FOLDERS.items()]
    lines[0] = "0011_000001\tHm.\tSad"
    root = esd(tmp_path, lines=lines)
    (root / "0011" / "Happy" / "0011_000701.wav").rename(root / "0011" / "Angry" / "0011_000701.wav")
    dataset = load_dataset(root)
    assert dataset.corpus.left_out == {"of another emotion by folder or transcript than by number": 2}
    assert {clip.prosody_label for clip in dataset.clips} == {"angry", "sad", "surprised"}


def test_what_a_training_recipe_wrote_into_the_folder_is_left_out(tmp_path):
    root = esd(tmp_path)
    names.write(root, ["processed/0011/Angry/0011_000351.wav", "combined/0011/0011_000351_0011_000001.wav"])
    dataset = load_dataset(root)
    assert len(dataset.clips) == 5 and dataset.corpus.left_out == {"in combined or processed": 2}
    assert not any("not named" in warning for warning in dataset.warnings)


# --- JL-Corpus


def test_the_text_beside_a_clip_comes_before_the_list(tmp_path):
    stems = [f"JL(wav+txt)/male1_{emotion}_4a_1" for emotion in ("happy", "sad", "neutral")]
    root = names.write(tmp_path, [f"{stem}.wav" for stem in stems] + ["Picture Stimuli/happy/image1.jpg"])
    assert by_text(load_dataset(root)) == {("04", "Taylor likes stewed Asian food")}
    for stem, text in zip(stems, ("Tom eats.\n", "tom eats", "Tom eats."), strict=True):
        (root / f"{stem}.txt").write_text(text)
    assert by_text(load_dataset(root)) == {("04", "Tom eats.")}


# --- EMIS

TABLE = (
    "happy_explicit,happy_implicit,sad_explicit,sad_implicit,angry_explicit,angry_implicit,neutral\n"
    "I’m happy!,We won.,I’m sad.,They left.,I’m angry!,\"Go, now.\",It is noon.\n"
    ",,,,,,It is one.\n"
)  # fmt: skip
CLIPS = [
    "01_angry_implicit_happy_0012_COSY.wav",
    "01_angry_implicit_sad_0012_STYLE.wav",
    "02_neutral_sad_0012_F5TTS.wav",
]


def test_the_sentences_of_emis_come_from_its_table(tmp_path):
    root = names.write(tmp_path, [f"audios/{name}" for name in CLIPS])
    names.write(root, ["speech/emotion_sentences_dataset.csv"])
    (root / "speech" / "emotion_sentences_dataset.csv").write_text(TABLE, encoding="utf-8")
    dataset = load_dataset(root)
    assert by_text(dataset) == {("angry_implicit_01", "Go, now."), ("neutral_02", "It is one.")}
    assert dataset.corpus.edition == "synthesised by COSY, F5TTS, STYLE"
    assert dataset.corpus.pairs["semantic"]["same_speaker"] == 1
    assert any("ESD speaker" in warning for warning in dataset.warnings)
    assert not any("not known" in warning for warning in dataset.warnings)


def test_without_its_table_the_words_of_emis_are_said_to_be_unknown(tmp_path):
    root = names.write(tmp_path / "EMIS", CLIPS)
    dataset = load_dataset(root)
    assert {clip.text for clip in dataset.clips} == {"angry_implicit_01", "neutral_02"}
    assert any("the words of 2 of 2 texts are not known" in warning for warning in dataset.warnings)
    texts = tmp_path / "texts.csv"
    texts.write_text("text_id,semantic_label,text\nangry_implicit_01,angry,Go!\nneutral_02,neutral,It is one.\n")
    dataset = load_dataset(root, texts)
    assert {clip.text for clip in dataset.clips} == {"Go!", "It is one."}
    assert not any("not known" in warning for warning in dataset.warnings)


def test_a_table_of_emis_that_is_none_is_named(tmp_path):
    root = names.write(tmp_path, CLIPS)
    (root / "emotion_sentences_dataset.csv").write_text("a,b\n1,2\n")
    refused(root, r"emotion_sentences_dataset\.csv", "no column happy_explicit")


# --- anything at all

WORDS = st.sampled_from(
    ["0011_000001", "0011_000351", "\t", "\n", " ", "Neutral", "Sad", "text_id", "semantic_label", ","]
)
FILES = st.one_of(
    st.binary(max_size=80),
    st.lists(WORDS, max_size=12).map(lambda words: "".join(words).encode()),
    st.text(max_size=40).flatmap(lambda text: st.just(f"0011_000001\t{text}\tNeutral".encode("utf-16", "replace"))),
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(transcript=FILES, texts=st.none() | FILES)
def test_any_bytes_as_a_transcript_and_labels_give_clips_or_one_line(tmp_path, transcript, texts):
    (esd(tmp_path) / "0011" / "0011.txt").write_bytes(transcript)
    labels = tmp_path / "labels.csv" if texts is not None else None
    if labels:
        labels.write_bytes(texts)
    try:
        dataset = load_dataset(tmp_path, labels)
    except UserError as error:
        assert str(error).isprintable()
        return
    assert dataset.clips and all(clip.text for clip in dataset.clips)
    assert all(line.isprintable() for line in (*dataset.warnings, *dataset.corpus.lines()))
    json.dumps(dataset_identity(dataset), ensure_ascii=False).encode()
