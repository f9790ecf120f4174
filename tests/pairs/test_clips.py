"""A data set is read as its owner meant it, or refused with the file, the row and what to do."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pairs import build_pairs, dataset_hash, dataset_identity, load_dataset, pairs_possible
from voicepatch.errors import UserError
from voicepatch.file_hashes import file_hash
from voicepatch.types.dataset import label_spellings, spelling_lines

HEADER = "clip_id,path,text_id,text,semantic_label,prosody_label,speaker"
ROWS = (
    "c1,c1.wav,t1,It is noon.,neutral,happy,f1",
    "c2,c2.wav,t1,It is noon.,neutral,sad,f1",
    'c3,c3.wav,t2,"Oh, a gift!",happy,sad,f1',
)


def sound(path, value=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(160, value), 16000)


@pytest.fixture
def folder(tmp_path):
    for i in (1, 2, 3):
        sound(tmp_path / f"c{i}.wav", i / 10)
    return tmp_path


def manifest(folder, *rows, header=HEADER, newline="\n", encoding="utf-8", name="data.csv"):
    path = folder / name
    path.write_bytes(newline.join([header, *rows, ""]).encode(encoding))
    return path


def jsonl(path, *records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def records():
    keys = HEADER.split(",")
    return [dict(zip(keys, row.replace('"', "").replace("Oh, a", "Oh a").split(","), strict=True)) for row in ROWS]


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


def refused(path, *words):
    """The refusal is one line that holds all of `words`."""
    with pytest.raises(UserError) as caught:
        load_dataset(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert re.search(word, message), f"{word!r} not in {message!r}"


# --- manifests


def test_a_csv_manifest_gives_clips_sorted_by_id(folder):
    dataset = load_dataset(manifest(folder, *reversed(ROWS)))
    assert [clip.clip_id for clip in dataset.clips] == ["c1", "c2", "c3"]
    assert dataset.name == "data" and dataset.warnings == ()
    clip = dataset.clips[2]
    assert clip.path == folder / "c3.wav"
    assert (clip.text_id, clip.text, clip.semantic_label, clip.prosody_label) == ("t2", "Oh, a gift!", "happy", "sad")
    assert clip.speaker == "f1" and clip.language is None


def test_a_jsonl_manifest_says_the_same_as_its_csv(folder):
    rows = [row.replace("Oh, a", "Oh a") for row in ROWS]
    from_csv = load_dataset(manifest(folder, *rows))
    from_jsonl = load_dataset(jsonl(folder / "data.jsonl", *records()))
    assert from_csv.clips == from_jsonl.clips


@pytest.mark.parametrize(("newline", "encoding"), [("\r\n", "utf-8"), ("\n", "utf-8-sig"), ("\r\n", "utf-8-sig")])
def test_line_ends_and_byte_order_marks_do_not_matter(folder, newline, encoding):
    plain = load_dataset(manifest(folder, *ROWS))
    assert load_dataset(manifest(folder, *ROWS, newline=newline, encoding=encoding)).clips == plain.clips


def test_blank_lines_extra_columns_and_column_order_do_not_matter(folder):
    path = manifest(
        folder,
        "",
        "0.3,sad, happy ,f1,It is noon.,t1,c1.wav,c1",
        ",,,,,,,",
        header="loudness,semantic_label,prosody_label,speaker,text,text_id,path,clip_id",
    )
    dataset = load_dataset(path)
    (clip,) = dataset.clips
    assert (clip.semantic_label, clip.prosody_label, clip.speaker) == ("sad", "happy", "f1")
    assert dataset.warnings == (unused("data.csv", "loudness"),)


def unused(file, columns):
    return f"{file}: columns that are not used: {columns}; optional columns are speaker, language, text_type"


def test_a_column_that_is_not_used_is_named_with_those_that_would_be(folder):
    """`spk` in place of `speaker` would pair across speakers without a word."""
    path = manifest(folder, *(f"{row},1" for row in ROWS), header=f"{HEADER},take".replace("speaker", "spk"))
    assert load_dataset(path).warnings == (unused("data.csv", "spk, take"),)


def test_a_column_without_any_value_is_no_mistake(folder):
    blank = manifest(folder, *(f"{row}," for row in ROWS), header=f"{HEADER},spk")
    assert load_dataset(blank).warnings == ()


def test_json_keys_that_are_not_used_are_named_as_columns_are(folder, corpus):
    first, *rest = records()
    renamed = {("spk" if key == "speaker" else key): value for key, value in first.items()}
    assert load_dataset(jsonl(folder / "data.jsonl", renamed, *rest)).warnings == (unused("data.jsonl", "spk"),)
    rows = [json.loads(line) for line in (corpus / "text.jsonl").read_text(encoding="utf-8").splitlines()]
    jsonl(corpus / "text.jsonl", *({**row, "lang": "en", "note": [1]} for row in rows))
    assert load_dataset(corpus).warnings == (unused("text.jsonl", "lang, note"),)


# --- one name in two forms, and words for a missing value

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


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


# --- spellings of labels


def test_it_is_said_which_spellings_count_as_which_label(folder, corpus):
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


def test_a_folder_with_a_manifest_is_read_by_it(folder):
    manifest(folder, *ROWS, name="manifest.csv")
    dataset = load_dataset(folder)
    assert len(dataset.clips) == 3
    assert dataset.name == re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name)


def test_ids_written_as_numbers_in_json_are_text(folder):
    first, *rest = records()
    dataset = load_dataset(jsonl(folder / "data.jsonl", {**first, "clip_id": 7, "speaker": None}, *rest))
    assert {clip.clip_id: clip.speaker for clip in dataset.clips} == {"7": None, "c2": "f1", "c3": "f1"}


def test_one_file_named_twice_is_a_warning(folder):
    (warning,) = load_dataset(manifest(folder, *ROWS, ROWS[0].replace("c1,", "c9,"))).warnings
    assert "c1 and c9 (c1.wav)" in warning


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("c1,c3.wav,t3,Hm.,sad,sad,f1", ["row 5", "clip_id 'c1'", "row 2"]),
        ("c4,c3.wav,t3,Hm.,calm,sad,f1", ["row 5", "semantic_label 'calm'", "neutral, happy, sad, angry, surprised"]),
        ("c4,c3.wav,t3,Hm.,sad,fear,f1", ["row 5", "prosody_label 'fear'"]),
        ("c4,c3.wav,t1,It is noon.,sad,sad,f1", ["row 5", "'t1'", "semantic_label 'sad'.*'neutral' in row 2"]),
        ("c4,c3.wav,t1,It is one.,neutral,sad,f1", ["row 5", "'t1'", "text 'It is one.'.*'It is noon.' in row 2"]),
        ("c4,gone.wav,t3,Hm.,sad,sad,f1", ["row 5", "no audio file", "gone.wav"]),
        ("c4,.,t3,Hm.,sad,sad,f1", ["row 5", "no audio file"]),
        (f"c4,{'x' * 300}.wav,t3,Hm.,sad,sad,f1", ["row 5", "no audio file"]),
        ("c4,c3.wav,t3,Well, hm.,sad,sad,f1", ["row 5", "8 values for 7 columns", "double quotes"]),
        ('c4,c3.wav,t3,"Hm.,sad,sad,f1', ["row 5", "broken CSV"]),
        *[
            (",".join("" if i == column else value for i, value in enumerate("c4,c3.wav,t3,Hm.,sad,sad,f1".split(","))),
             ["row 5", f"{name} is empty"])
            for column, name in enumerate(HEADER.split(",")[:-1])
        ],
        ("c4", ["row 5", "path is empty"]),
    ],
)  # fmt: skip
def test_a_mistake_in_a_row_is_refused_by_its_number(folder, row, words):
    refused(manifest(folder, *ROWS, row), "data.csv", *words)


def test_rows_are_counted_as_an_editor_counts_lines(folder):
    bad = "c4,c3.wav,t3,Hm.,calm,sad,f1"
    refused(manifest(folder, "", ROWS[0], "", 'c2,c2.wav,t2,"two\nlines",sad,sad,f1', bad, newline="\r\n"), "row 7")
    refused(manifest(folder, ROWS[0], f'c2,c2.wav,t2,"two\nlines",calm,sad,f1\n{bad}'), "row 3")
    first, second, third = records()
    path = jsonl(folder / "data.jsonl", {**first, "text": "a line\u2028separator", "text_id": "t0"}, second)
    path.write_text(path.read_text() + "\n" + json.dumps({**third, "prosody_label": "calm"}))
    refused(path, "row 4", "calm")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (HEADER.replace("text_id,", "").replace(",prosody_label", ""), ["row 1", "no column text_id, prosody_label"]),
        (HEADER.replace(",", ";"), ["row 1", "no column clip_id", "separated by commas"]),
        (HEADER.replace("speaker", "text"), ["row 1", "column text is there twice"]),
    ],
)
def test_a_wrong_header_is_refused(folder, header, words):
    refused(manifest(folder, *ROWS, header=header), "data.csv", *words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{'clip_id': 1}", ["row 2", "broken JSON"]),
        ("[1, 2]", ["row 2", "not a JSON object"]),
        ('{"clip_id": "c2", "path": "c2.wav"}', ["row 2", "no text_id, text, semantic_label, prosody_label"]),
        (json.dumps({**records()[1], "text": ["a"]}), ["row 2", "text is \\['a'\\]"]),
        (json.dumps({**records()[1], "text": None}), ["row 2", "text is empty"]),
        (json.dumps({**records()[1], "text_id": True}), ["row 2", "text_id is True"]),
    ],
)
def test_a_wrong_json_line_is_refused(folder, line, words):
    path = jsonl(folder / "data.jsonl", records()[0])
    path.write_text(path.read_text() + line + "\n")
    refused(path, "data.jsonl", *words)


def test_what_is_no_manifest_is_refused(folder):
    refused(folder / "gone.csv", "gone.csv", "no such file or folder")
    refused(folder, re.escape(str(folder)), "no text.jsonl, manifest.csv or manifest.jsonl")
    refused(folder / "c1.wav", "c1.wav", "not a manifest")
    (folder / "empty.csv").write_text("\n\n")
    refused(folder / "empty.csv", "empty.csv", "the file is empty")
    refused(manifest(folder), "data.csv", "no rows")
    refused(manifest(folder, ROWS[0], ROWS[1].replace("noon", "café"), encoding="latin-1"), "row 3", "not UTF-8")
    refused(manifest(folder, *ROWS, encoding="utf-16"), "not UTF-8")
    manifest(folder, *ROWS, name="manifest.csv")
    jsonl(folder / "manifest.jsonl", *records())
    refused(folder, "both manifest.csv and manifest.jsonl")


# --- the folder layout


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


def test_two_files_or_folders_for_one_clip_are_refused(corpus):
    sound(corpus / "Happy" / "001.flac")
    refused(corpus, "001.flac and 001.wav")
    (corpus / "Happy" / "001.flac").unlink()
    sound(corpus / "happiness" / "001.wav")
    refused(corpus, "happiness", "Happy", "mean happy")


def test_a_mistake_in_text_jsonl_is_refused_by_its_row(corpus):
    good = {"text_id": "001", "text": "It is noon.", "semantic_label": "neutral"}
    path = corpus / "text.jsonl"
    for bad, words in [
        (good, ["text_id '001'", "row 1"]),
        ({**good, "text_id": "002", "semantic_label": "calm"}, ["semantic_label 'calm'"]),
        ({**good, "text_id": "002", "text": " "}, ["text is empty"]),
        ({"text_id": "002", "text": "Hm."}, ["no semantic_label"]),
    ]:
        jsonl(path, good, bad)
        refused(corpus, "text.jsonl", "row 2", *words)
    path.write_text("")
    refused(corpus, "text.jsonl", "empty")


def test_a_folder_whose_texts_name_no_file_is_refused(corpus):
    jsonl(corpus / "text.jsonl", {"text_id": 1, "text": "It is noon.", "semantic_label": "neutral"})
    refused(corpus, "no clips", "neutral/1.wav")


def test_a_name_that_no_directory_can_have_is_replaced(corpus):
    assert load_dataset(corpus.rename(corpus.with_name("감정"))).name == "data"


# --- the identity of a data set


def test_the_hash_is_of_the_content_not_of_its_place_or_order(folder, tmp_path_factory):
    first = dataset_hash(load_dataset(manifest(folder, *ROWS)))
    moved = tmp_path_factory.mktemp("elsewhere") / "deeper"
    shutil.copytree(folder, moved)
    assert dataset_hash(load_dataset(manifest(moved, *reversed(ROWS)))) == first
    assert re.fullmatch("[0-9a-f]{64}", first)


def test_the_hash_of_a_folder_does_not_depend_on_its_place(corpus, tmp_path_factory):
    first = dataset_hash(load_dataset(corpus))
    assert dataset_hash(load_dataset(shutil.move(corpus, tmp_path_factory.mktemp("elsewhere") / "name"))) == first


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("c3,", "c4,"),
        ("t2", "t9"),
        ("gift", "goat"),
        ("happy,sad", "angry,sad"),
        ("happy,sad", "happy,angry"),
        (",f1", ",m1"),
    ],
)
def test_the_hash_changes_with_every_value_of_a_row(folder, old, new):
    first = dataset_hash(load_dataset(manifest(folder, *ROWS)))
    assert dataset_hash(load_dataset(manifest(folder, *ROWS[:2], ROWS[2].replace(old, new)))) != first


def test_the_hash_changes_with_one_sample_of_sound(folder):
    path = manifest(folder, *ROWS)
    first = dataset_hash(load_dataset(path))
    sound(folder / "c3.wav", 0.31)
    assert dataset_hash(load_dataset(path)) != first


def test_a_file_that_vanished_is_refused_by_the_hash(folder):
    dataset = load_dataset(manifest(folder, *ROWS))
    (folder / "c2.wav").unlink()
    with pytest.raises(UserError, match=r"c2\.wav: cannot be read \(No such file or directory\)"):
        dataset_identity(dataset)
    skipped = dataset_identity(dataset, skip_bad_clips=True)["sha256"]
    (folder / "c2.wav").write_bytes(b"back")
    assert dataset_hash(replace(dataset)) != skipped


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "a.wav"
    for content in (b"", b"one", b"two", b"two" * 10**6):
        path.write_bytes(content)
        assert file_hash(path) == file_hash(path) == hashlib.sha256(content).hexdigest()


# --- the package


def test_the_package_imports_no_tensor_library():
    code = "import sys, pairs; print([m for m in ('torch', 'pandas', 'numpy', 'soundfile') if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
