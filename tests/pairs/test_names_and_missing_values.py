"""One name in two forms of Unicode, words for a missing value, and other spellings of the labels."""

import pytest

from pairs import build_pairs, dataset_hash, load_dataset, pairs_possible
from tests.pairs.made_data import COMPOSED, DECOMPOSED, ROWS, jsonl, manifest, records, refused, sound
from voicepatch.types.dataset import label_spellings, spelling_lines


def test_composed_and_decomposed_letters_are_one_name(folder):
    """Three clips of one text and one speaker, written in both forms: three pairs, as if in one."""
    rows = [
        f"c{i},c{i}.wav,{form},{form}!,neutral,{label},{form}"
        for i, form, label in [(1, COMPOSED, "happy"), (2, DECOMPOSED, "sad"), (3, COMPOSED, "angry")]
    ]
    path = manifest(folder, *rows)
    dataset = load_dataset(path)
    assert {(clip.text_id, clip.text, clip.speaker) for clip in dataset.clips} == {(COMPOSED, f"{COMPOSED}!", COMPOSED)}
    assert pairs_possible(dataset.clips, "prosody") == 3
    one_form = path.read_text(encoding="utf-8").replace(DECOMPOSED, COMPOSED)
    path.write_text(one_form, encoding="utf-8")
    assert dataset_hash(load_dataset(path)) == dataset_hash(dataset)


@pytest.mark.parametrize(("written", "there"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_path_is_found_in_whichever_form_the_disk_has_it(folder, written, there):
    sound(folder / there / f"{there}.wav")
    row = ROWS[0].replace("c1.wav", f"{written}/./{written}.wav")
    (clip,) = load_dataset(manifest(folder, row)).clips
    assert clip.path == folder / there / f"{there}.wav"
    moved = folder.with_name(there)
    folder.rename(moved)
    assert load_dataset(moved.with_name(written) / "data.csv").clips[0].path.is_file()


def test_a_path_in_the_very_form_that_is_written_comes_first(folder):
    for value, form in enumerate((COMPOSED, DECOMPOSED), start=1):
        sound(folder / f"{form}.wav", value / 10)
    rows = [ROWS[0].replace("c1.wav", f"{COMPOSED}.wav"), ROWS[1].replace("c2.wav", f"{DECOMPOSED}.wav")]
    names = [clip.path.name for clip in load_dataset(manifest(folder, *rows)).clips]
    assert names == [f"{COMPOSED}.wav", f"{DECOMPOSED}.wav"]


def test_rows_that_are_one_in_composed_letters_are_duplicates_by_both_rows(folder, corpus):
    rows = [ROWS[0].replace("c1,", f"{COMPOSED},"), ROWS[1].replace("c2,", f"{DECOMPOSED},")]
    refused(manifest(folder, *rows), "row 3: clip_id 'caf\u00e9' is already in row 2")
    row = {"text": "Hm.", "semantic_label": "neutral"}
    jsonl(corpus / "text.jsonl", *({**row, "text_id": form} for form in (COMPOSED, DECOMPOSED)))
    refused(corpus, "row 2: text_id 'caf\u00e9' is already in row 1")


@pytest.mark.parametrize("word", ["", "nan", "NaN", "None", "null", "NULL", "NA", "N/A", "<NA>"])
def test_a_word_for_a_missing_value_is_no_speaker(folder, word):
    path = manifest(folder, *(row.replace(",f1", f",{word}") for row in ROWS[:2]), ROWS[2])
    dataset = load_dataset(path)
    assert [clip.speaker for clip in dataset.clips] == [None, None, "f1"]
    said = (f"data.csv: speaker {word} counts as no speaker (2 rows)",) if word else ()
    assert dataset.warnings == said
    as_json = [{**record, "speaker": word} if record["clip_id"] != "c3" else record for record in records()]
    assert [clip.speaker for clip in load_dataset(jsonl(folder / "data.jsonl", *as_json)).clips] == [None, None, "f1"]


@pytest.mark.parametrize("value", [None, float("nan")])
def test_null_and_nan_of_json_are_no_speaker_language_and_text_type(folder, value):
    missing = dict.fromkeys(("speaker", "language", "text_type"), value)
    (clip,) = load_dataset(jsonl(folder / "data.jsonl", {**records()[0], **missing})).clips
    assert (clip.speaker, clip.language, clip.text_type) == (None, None, None)


def test_the_spellings_of_each_label_are_reported(folder, corpus):
    rows = [
        ROWS[0].replace("happy", "joy"),
        ROWS[1].replace("sad", "Sadness"),
        ROWS[2].replace("happy,sad", "Happy,sad"),
    ]
    dataset = load_dataset(manifest(folder, *rows))
    assert label_spellings(dataset.clips) == {"prosody_label": {"happy": {"joy": 1}, "sad": {"Sadness": 1}}}
    assert spelling_lines(label_spellings(dataset.clips)) == [
        "prosody_label: joy counts as happy (1 clip); Sadness counts as sad (1 clip)"
    ]
    assert build_pairs(dataset.clips, "prosody").report["label_spellings"] == label_spellings(dataset.clips)
    assert label_spellings(load_dataset(corpus).clips) == {"prosody_label": {"surprised": {"Surprise": 2}}}
    texts = folder / "texts.csv"
    texts.write_text("text_id,semantic_label\n001,anger\n002,happy\n", encoding="utf-8")
    assert label_spellings(load_dataset(corpus, texts).clips)["semantic_label"] == {"angry": {"anger": 5}}
