"""A folder with text.jsonl and one folder a label gives a clip a text and label."""

import shutil

from pairs import load_dataset
from tests.pairs.made_data import jsonl, refused, sound


def test_a_folder_of_emotions_gives_a_clip_a_text_and_emotion(corpus):
    dataset = load_dataset(corpus)
    assert dataset.name == "My-corpus" and dataset.warnings == ()
    assert len(dataset.clips) == 10
    clip = next(clip for clip in dataset.clips if clip.clip_id == "002_surprised")
    assert clip.path == corpus / "Surprise" / "002.wav"
    assert (clip.text, clip.semantic_label, clip.prosody_label) == ("선물이다!", "happy", "surprised")
    assert clip.speaker == "f1"


def test_a_missing_clip_is_a_warning_and_left_out(corpus):
    (corpus / "Happy" / "002.wav").unlink()
    shutil.rmtree(corpus / "Sad")
    dataset = load_dataset(corpus)
    assert len(dataset.clips) == 7
    assert dataset.warnings == (
        "happy: 1 of 2 clips are missing, left out: 002",
        "no folder for sad: its 2 clips are left out",
    )


def test_audio_that_no_text_names_is_a_warning(corpus):
    sound(corpus / "Happy" / "999.flac")
    (corpus / "Happy" / "._001.wav").write_bytes(b"macOS")
    (corpus / "Happy" / "notes.txt").write_text("not audio")
    assert load_dataset(corpus).warnings == ("happy: audio without a text_id in text.jsonl is left out: 999",)


def test_every_audio_extension_is_found_in_any_case(corpus):
    extensions = {"Neutral": "WAV", "Happy": "flac", "Sad": "ogg", "Angry": "opus", "Surprise": "mp3"}
    for emotion, extension in extensions.items():
        (corpus / emotion / "001.wav").rename(corpus / emotion / f"001.{extension}")
    assert len(load_dataset(corpus).clips) == 10


def test_a_decomposed_file_name_meets_its_text_id(corpus):
    sound(corpus / "Happy" / "cafe\u0301.wav")
    jsonl(corpus / "text.jsonl", {"text_id": "caf\u00e9", "text": "Café.", "semantic_label": "happy"})
    assert [clip.clip_id for clip in load_dataset(corpus).clips] == ["caf\u00e9_happy"]


def test_an_unknown_folder_is_ignored_unless_it_holds_audio(corpus):
    (corpus / "docs").mkdir()
    (corpus / ".git").mkdir()
    dataset = load_dataset(corpus)
    assert len(dataset.clips) == 10
    assert dataset.warnings == ("folder docs is ignored: no label has this name, and it holds no audio",)
    sound(corpus / "Disgust" / "001.wav")
    refused(corpus, "Disgust", "no label of task emotion", "neutral, happy")


def test_two_files_or_folders_for_one_clip_are_errors(corpus):
    sound(corpus / "Happy" / "001.flac")
    refused(corpus, "001.flac and 001.wav")
    (corpus / "Happy" / "001.flac").unlink()
    sound(corpus / "happiness" / "001.wav")
    refused(corpus, "happiness", "Happy", "mean happy")


def test_a_mistake_in_text_jsonl_is_an_error_with_its_row(corpus):
    good = {"text_id": "001", "text": "It is noon.", "semantic_label": "neutral"}
    path = corpus / "text.jsonl"
    for bad, words in [
        (good, ["text_id '001'", "row 1"]),
        ({**good, "text_id": "002", "semantic_label": "calm"}, ["semantic_label 'calm'"]),
        ({**good, "text_id": "002", "text": " "}, ["text is empty"]),
        ({"text_id": "002", "text": "Hm."}, ["no column semantic_label"]),
    ]:
        jsonl(path, good, bad)
        refused(corpus, "text.jsonl", "row 2", *words)
    path.write_text("")
    refused(corpus, "text.jsonl", "empty")


def test_a_folder_whose_texts_name_no_file_is_an_error(corpus):
    jsonl(corpus / "text.jsonl", {"text_id": 1, "text": "It is noon.", "semantic_label": "neutral"})
    refused(corpus, "no clips", "neutral/1.wav")


def test_a_name_that_no_directory_can_have_is_replaced(corpus):
    assert load_dataset(corpus.rename(corpus.with_name("감정"))).name == "data"
