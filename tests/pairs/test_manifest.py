"""A manifest in CSV or JSONL gives clips, and what is wrong in it is named by its row."""

import json
import re

import pytest
from msgspec import structs

from pairs import Pair, dataset_identity, load_dataset, pair_row
from pairs.load import find_clips
from tests.pairs.made_data import HEADER, ROWS, jsonl, manifest, records, refused
from voicepatch.types.task import default_task


def test_a_csv_manifest_gives_clips_sorted_by_id(folder):
    dataset = load_dataset(manifest(folder, *reversed(ROWS)))
    assert [clip.clip_id for clip in dataset.clips] == ["c1", "c2", "c3"]
    assert dataset.name == "data" and dataset.warnings == ()
    clip = dataset.clips[2]
    assert clip.path == folder / "c3.wav"
    assert (clip.text_id, clip.text, clip.semantic_label, clip.prosody_label) == ("t2", "Oh, a gift!", "happy", "sad")
    assert clip.speaker == "f1" and clip.language is None


def test_a_jsonl_manifest_gives_the_same_as_its_csv(folder):
    rows = [row.replace("Oh, a", "Oh a") for row in ROWS]
    from_csv = load_dataset(manifest(folder, *rows))
    from_jsonl = load_dataset(jsonl(folder / "data.jsonl", *records()))
    assert from_csv.clips == from_jsonl.clips


@pytest.mark.parametrize(("newline", "encoding"), [("\r\n", "utf-8"), ("\n", "utf-8-sig"), ("\r\n", "utf-8-sig")])
def test_line_ends_and_byte_order_marks_do_not_matter(folder, newline, encoding):
    plain = load_dataset(manifest(folder, *ROWS))
    assert load_dataset(manifest(folder, *ROWS, newline=newline, encoding=encoding)).clips == plain.clips


@pytest.mark.parametrize(("separator", "name"), [(";", "data.csv"), ("\t", "data.csv"), ("\t", "data.tsv")])
def test_a_manifest_may_have_another_separator(folder, separator, name):
    rows = [row.replace('"', "").replace("Oh, a", "Oh a").replace(",", separator) for row in ROWS]
    other = load_dataset(manifest(folder, *rows, header=HEADER.replace(",", separator), name=name))
    assert other.clips == load_dataset(jsonl(folder / "data.jsonl", *records())).clips


def test_a_manifest_may_be_in_utf_16_with_its_mark(folder):
    assert load_dataset(manifest(folder, *ROWS, encoding="utf-16")).clips == load_dataset(manifest(folder, *ROWS)).clips


def test_columns_may_have_other_names(folder):
    plain = load_dataset(manifest(folder, *ROWS))
    header = HEADER.replace("text,", "transcription,").replace("prosody_label", "emotion")
    names = {"text": "transcription", "prosody_label": "emotion"}
    renamed = load_dataset(manifest(folder, *ROWS, header=header), columns=names)
    assert renamed.clips == plain.clips and dataset_identity(renamed)["renamed"] == names
    assert find_clips({"data": dataset_identity(renamed), "task": default_task().identity()})[1] == ""
    both = load_dataset(manifest(folder, *(f"{row},x" for row in ROWS), header=f"{header},text"), columns=names)
    assert both.clips[0].text == "It is noon." and both.clips[0].columns == {"original_text": "x"}


def test_a_column_may_be_two_of_the_programs(folder):
    dataset = load_dataset(manifest(folder, *ROWS), columns={"text_id": "text"})
    assert {(clip.text_id, clip.text) for clip in dataset.clips} == {(clip.text, clip.text) for clip in dataset.clips}
    assert dataset.clips[0].columns == {"original_text_id": "t1"}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": "transcripton"}, ["no column transcripton", "did you mean transcription"]),
        ({"text": "transcription", "speaker": "who"}, ["no column who", "for speaker"]),
        ({"txt": "transcription"}, ["--columns 'txt'", "did you mean text"]),
    ],
)
def test_a_wrong_name_of_a_column_is_an_error(folder, columns, words):
    header = HEADER.replace("text,", "transcription,")
    for path in (manifest(folder, *ROWS, header=header), jsonl(folder / "d.jsonl", *_with_transcription())):
        refused(path, *words, columns=columns)


def test_a_column_is_never_lost_to_the_name_of_another(folder):
    header = f"{HEADER},transcription,original_text"
    path = manifest(folder, *(f"{row},It is noon.,x" for row in ROWS), header=header)
    refused(path, "column text would be called original_text", columns={"text": "transcription"})


def _with_transcription():
    return [{("transcription" if key == "text" else key): value for key, value in row.items()} for row in records()]


def test_blank_lines_extra_columns_and_column_order_do_not_matter(folder):
    path = manifest(
        folder,
        "",
        "0.3,sad, happy ,f1,It is noon.,t1,c1.wav,c1",
        ",,,,,,,",
        header="Loud ness,semantic_label,prosody_label,speaker,text,text_id,path,clip_id",
    )
    dataset = load_dataset(path)
    (clip,) = dataset.clips
    assert (clip.semantic_label, clip.prosody_label, clip.speaker) == ("sad", "happy", "f1")
    assert clip.columns == {"Loud ness": "0.3"}
    assert dataset.warnings == ()


def unused(file, columns):
    return f"{file}: columns that are not used: {columns}; optional columns are speaker, language, text_type"


def looks_like(file, column, known):
    return f"{file}: column {column} does not count as {known}; if it is that, call it {known}"


def test_further_columns_are_kept_with_their_values(folder):
    rows = [f"{row},{more}" for row, more in zip(ROWS, ["f,1", ",2", "nan,3"], strict=True)]
    dataset = load_dataset(manifest(folder, *rows, header=f"{HEADER},gender,take"))
    first, *others = [clip.columns for clip in dataset.clips]
    assert first == {"gender": "f", "take": "1"} and others == [{"take": "2"}, {"take": "3"}]
    assert dataset.columns == ("gender", "take")
    assert dataset.warnings == ("data.csv: gender nan counts as no gender (1 row)",)


def test_the_columns_of_another_task_are_kept(folder):
    task = structs.replace(default_task(), name="gender", labels=("f", "m"), voice="gender", words=None, spellings={})
    path = manifest(folder, *(f"{row},f" for row in ROWS), header=f"{HEADER},gender")
    dataset = load_dataset(path, task=task)
    clip = dataset.clips[0]
    assert clip.prosody_label == "f" and clip.columns == {"prosody_label": "happy", "semantic_label": "neutral"}
    row = pair_row(Pair("p", "prosody", clip, clip, "f"), dataset.columns)
    assert (row["prosody_label_a"], row["data_prosody_label_a"]) == ("f", "happy")


@pytest.mark.parametrize("name", ["clip", "data_speaker", "bell\a", "tab\tbed"])
def test_a_column_that_no_pair_list_can_have_is_refused(folder, name):
    path = manifest(folder, *(f"{row},1" for row in ROWS), header=f"{HEADER},{name}")
    refused(path, r"row 2: .*rename the column")


def test_a_column_that_looks_like_a_known_one_is_named(folder):
    """`spk` in place of `speaker` would pair across speakers without a word."""
    path = manifest(folder, *(f"{row},1" for row in ROWS), header=f"{HEADER},take".replace("speaker", "spk"))
    assert load_dataset(path).warnings == (looks_like("data.csv", "spk", "speaker"),)


def test_a_column_without_any_value_is_no_mistake(folder):
    blank = manifest(folder, *(f"{row}," for row in ROWS), header=f"{HEADER},spk")
    assert load_dataset(blank).warnings == ()


def test_json_keys_are_columns(folder, corpus):
    first, *rest = records()
    renamed = {("spk" if key == "speaker" else key): value for key, value in first.items()}
    (warning,) = load_dataset(jsonl(folder / "data.jsonl", renamed)).warnings
    assert warning == looks_like("data.jsonl", "spk", "speaker")
    typed = [{**row, "age": 41, "height": 1.7, "native": True, "accent": None} for row in (first, *rest)]
    dataset = load_dataset(jsonl(folder / "data.jsonl", *typed))
    assert dataset.clips[0].columns == {"age": "41", "height": "1.7", "native": "true"}
    rows = [json.loads(line) for line in (corpus / "text.jsonl").read_text(encoding="utf-8").splitlines()]
    jsonl(corpus / "text.jsonl", *({**row, "lang": "en", "note": [1], "path": "x", "genre": "news"} for row in rows))
    dataset = load_dataset(corpus)
    assert dataset.warnings == (unused("text.jsonl", "note, path"), looks_like("text.jsonl", "lang", "language"))
    assert all(clip.columns == {"lang": "en", "genre": "news"} for clip in dataset.clips)


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
def test_a_mistake_in_a_row_is_an_error_with_its_number(folder, row, words):
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
        (
            HEADER.replace("text_id,", "").replace(",prosody_label", ""),
            ["row 1", "no column text_id, prosody_label", "--columns text_id=NAME,prosody_label=NAME"],
        ),
        (HEADER.replace(",", " "), ["row 1", "no column clip_id", "its columns are clip_id path"]),
        (HEADER.replace("speaker", "text"), ["row 1", "column text is there twice"]),
    ],
)
def test_a_wrong_header_is_an_error(folder, header, words):
    refused(manifest(folder, *ROWS, header=header), "data.csv", *words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{'clip_id': 1}", ["row 2", "broken JSON"]),
        ("[1, 2]", ["row 2", "not a JSON object"]),
        ('{"clip_id": "c2", "path": "c2.wav"}', ["row 2", "no column text_id, text, semantic_label, prosody_label"]),
        (json.dumps({**records()[1], "text": ["a"]}), ["row 2", "text is \\['a'\\]"]),
        (json.dumps({**records()[1], "text": None}), ["row 2", "text is empty"]),
        (json.dumps({**records()[1], "text_id": True}), ["row 2", "text_id is True"]),
    ],
)
def test_a_wrong_json_line_is_an_error(folder, line, words):
    path = jsonl(folder / "data.jsonl", records()[0])
    path.write_text(path.read_text() + line + "\n")
    refused(path, "data.jsonl", *words)


def test_a_file_that_is_not_a_manifest_is_an_error(folder):
    refused(folder / "gone.csv", "gone.csv", "no such file or folder")
    refused(folder, re.escape(str(folder)), "no text.jsonl, manifest.csv or manifest.jsonl")
    refused(folder / "c1.wav", "c1.wav", "not a manifest")
    (folder / "empty.csv").write_text("\n\n")
    refused(folder / "empty.csv", "empty.csv", "the file is empty")
    refused(manifest(folder), "data.csv", "no rows")
    refused(
        manifest(folder, ROWS[0], ROWS[1].replace("noon", "café"), encoding="latin-1"),
        "row 3",
        "not UTF-8",
        "iconv -f WINDOWS-1252",
    )
    refused(manifest(folder, *ROWS, encoding="utf-16-le"), "not UTF-8|no column")
    manifest(folder, *ROWS, name="manifest.csv")
    jsonl(folder / "manifest.jsonl", *records())
    refused(folder, "both manifest.csv and manifest.jsonl")
