"""A manifest that is not what it should be is refused in one line; what is merely unusual is read, with a warning."""

import json
import os
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from pairs import KINDS, Clip, build_pairs, load_dataset
from pairs.controls import with_random_donor
from voicepatch.errors import UserError
from voicepatch.types.task import default_task

LABELS = default_task().labels

HEADER = "clip_id,path,text_id,text,semantic_label,prosody_label"
GOOD = {
    "clip_id": "c1",
    "path": "c1.wav",
    "text_id": "t1",
    "text": "It is noon.",
    "semantic_label": "neutral",
    "prosody_label": "sad",
}


@pytest.fixture
def folder(tmp_path):
    """The data's own folder, which lies beside another."""
    for path in ("data/c1.wav", "data/c2.wav", "elsewhere/c3.wav"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
    return tmp_path / "data"


def jsonl(folder, *rows):
    path = folder / "data.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def csv(folder, content):
    path = folder / "data.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def message(path):
    with pytest.raises(UserError) as caught:
        load_dataset(path)
    assert str(caught.value).isprintable() and str(path) in str(caught.value)
    return str(caught.value)


# --- what is no manifest


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "row 1: not UTF-8"),
        (b"PK\x03\x04\x14\0\x08\0", "row 1: no column clip_id"),
        (HEADER.encode("utf-16-le"), "row 1: no column clip_id"),
        (f"{HEADER}\nc1,c1\0.wav".encode(), "row 2: text_id is empty"),
        (b",,,\n,,\n", "row 1: no column clip_id"),
        (b'""\n', "row 1: no column clip_id"),
        (f"{HEADER}\n{'x' * 200_000}".encode(), "row 2: broken CSV (field larger"),
    ],
)
def test_bytes_that_are_no_manifest_are_named(folder, content, what):
    assert what in message(csv(folder, content))


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\ud800", "line\nbreak"])
def test_a_path_that_cannot_be_is_no_file(folder, name):
    with pytest.raises(UserError, match="no such file or folder") as caught:
        load_dataset(folder / name)
    assert str(caught.value).isprintable()


def test_a_clip_whose_name_is_not_in_utf_8_is_named_and_left_out_of_a_folder(tmp_path):
    (tmp_path / "text.jsonl").write_text('{"text_id": "t1", "text": "It is noon.", "semantic_label": "neutral"}\n')
    (tmp_path / "happy").mkdir()
    for name in (b"t1.wav", b"caf\xe9.wav"):
        Path(os.fsdecode(os.fsencode(tmp_path / "happy") + b"/" + name)).write_bytes(name)
    dataset = load_dataset(tmp_path)
    assert [clip.clip_id for clip in dataset.clips] == ["t1_happy"]
    assert r"happy: audio without a text_id in text.jsonl is left out: caf\xe9" in dataset.warnings


def test_a_folder_that_may_not_be_read_is_named(folder, monkeypatch):
    (folder / "text.jsonl").write_text(json.dumps(GOOD) + "\n")
    monkeypatch.setattr(Path, "iterdir", lambda folder: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert "cannot be read (Permission denied)" in message(folder)


# --- JSON that json.loads is kind to, or chokes on


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("[" * 100_000, "broken JSON"),
        ('{"clip_id":' * 50_000, "broken JSON"),
        (json.dumps(GOOD).replace('"t1"', "NaN"), "text_id is empty"),
        (json.dumps(GOOD).replace('"t1"', "1e999"), "text_id is inf"),
        (json.dumps(GOOD).replace('"t1"', "9" * 5000), "broken JSON (Exceeds the limit"),
        (json.dumps(GOOD).replace('"t1"', "[" * 500 + "]" * 500), "text_id is [[["),
        (json.dumps(GOOD).replace("t1", "\\ud800"), r"text_id '\ud800' holds half a surrogate pair"),
        (json.dumps({**GOOD, "path": {"wav": "c1.wav"}}), "path is {'wav': 'c1.wav'}"),
    ],
)
def test_json_that_would_be_lost_or_break_later_is_refused(folder, row, what):
    text = message(jsonl(folder, row))
    assert what in text and "row 1" in text and len(text) < 500


def test_a_letter_beyond_16_bits_may_be_escaped_in_json(folder):
    (clip,) = load_dataset(jsonl(folder, json.dumps({**GOOD, "text_id": "😀"}))).clips
    assert clip.text_id == "😀"


# --- words of the data in a message


@pytest.mark.parametrize("value", ["two\nlines", "\x1b[31mred", "\u202eleft", "\u2028", "x" * 300, "\x07" * 300])
@pytest.mark.parametrize("column", ["clip_id", "text_id", "path", "semantic_label", "prosody_label", "text"])
def test_no_value_breaks_the_line_or_fills_the_screen(folder, column, value):
    row = {**GOOD, column: value + value}
    other = {**row, "semantic_label": "sad"}
    text = message(jsonl(folder, row, other, other))
    assert "row 1" in text or "row 2" in text
    assert value not in text and len(text.replace(str(folder), "")) < 500


def test_a_warning_stays_one_short_line_as_well(folder):
    ids = [f"{i}\n" + "x" * 300 for i in range(50)]
    rows = [{**GOOD, "clip_id": clip_id, "path": str(folder / "c1.wav")} for clip_id in ids]
    for warning in load_dataset(jsonl(folder, *rows)).warnings:
        assert warning.isprintable() and "and 30 more" in warning or "and 29 more" in warning
        assert len(warning) < 8000


def test_a_very_long_name_of_a_data_set_is_cut_for_the_run_directory(folder):
    os.rename(jsonl(folder, GOOD), folder / f"{'x' * 240}.jsonl")
    assert len(load_dataset(folder / f"{'x' * 240}.jsonl").name) == 100


# --- files that lie elsewhere, and one file for two clips


@pytest.mark.parametrize("path", ["../elsewhere/c3.wav", "{folder}/c2.wav"])
def test_a_path_outside_the_manifests_folder_is_allowed(folder, path):
    other = {**GOOD, "clip_id": "c2", "path": path.format(folder=folder), "prosody_label": "happy"}
    dataset = load_dataset(jsonl(folder, GOOD, other))
    assert len(dataset.clips) == 2 and dataset.warnings == ()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_two_names_of_one_file_are_warned_about(folder, link):
    link(folder / "c1.wav", folder / "c9.wav")
    rows = GOOD, {**GOOD, "clip_id": "c9", "path": "c9.wav", "prosody_label": "happy"}
    assert load_dataset(jsonl(folder, *rows)).warnings == ("clips that are one and the same file: c1 and c9 (c9.wav)",)


def test_one_file_under_two_emotions_of_a_folder_is_warned_about(tmp_path):
    (tmp_path / "text.jsonl").write_text('{"text_id": "t1", "text": "It is noon.", "semantic_label": "neutral"}\n')
    for emotion in LABELS:
        (tmp_path / emotion).mkdir()
        (tmp_path / emotion / "t1.wav").write_text(emotion)
    (tmp_path / "sad" / "t1.wav").unlink()
    os.symlink("../happy/t1.wav", tmp_path / "sad" / "t1.wav")
    assert load_dataset(tmp_path).warnings == ("clips that are one and the same file: t1_happy and t1_sad (t1.wav)",)


# --- few clips, many clips


def clip(clip_id, text=0, prosody="neutral", speaker=None):
    return Clip(clip_id, Path(f"{clip_id}.wav"), f"t{text}", f"text {text}", LABELS[text % 5], prosody, speaker)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clips", [[clip("a")], [clip("a"), clip("b"), clip("c")]])
def test_one_clip_or_one_prosody_of_one_text_offers_no_pair_and_says_so(kind, clips):
    with pytest.raises(UserError, match=f"no {kind} pairs.*; add clips"):
        build_pairs(clips, kind)


def test_two_pairs_never_share_a_name():
    """Records know a pair by its name: `a->b` and `c` would be `a` and `b->c`."""
    clips = [clip("a->b"), clip("c", prosody="sad"), clip("a", 5), clip("b->c", 5, "sad")]
    with pytest.raises(UserError, match="2 pairs are called prosody:a->b->c; rename their clips"):
        build_pairs(clips, "prosody", both_directions=True)


def test_a_corpus_is_read_and_paired_without_listing_its_combinations(tmp_path):
    """Some 4 million prosody pairs are possible among these; listing one kind would take a hundred times the memory."""
    n_clips = 6_000
    rows = [HEADER + ",speaker"]
    for i in range(n_clips):
        (tmp_path / f"{i}.wav").touch()
        text = i % 5
        rows.append(f"c{i},{i}.wav,t{text},text {text},{LABELS[text]},{LABELS[i // 5 % 5]},s{i // 25 % 2}")
    path = csv(tmp_path, "\n".join(rows))
    dataset = load_dataset(path)
    for kind in KINDS:
        tracemalloc.start()
        sample = build_pairs(dataset.clips, kind, both_directions=True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(sample.pairs) == 100
        assert sample.report["pairs_possible"] > 1_000_000
        assert peak < 20_000_000


def test_a_random_donor_is_sought_without_listing_pairs():
    clips = [clip(f"c{i}", i % 50, LABELS[i // 50 % 5]) for i in range(2_000)]
    sample = build_pairs(clips, "prosody")
    pairs = with_random_donor(sample, clips)
    assert Counter(pair.a.clip_id for pair in pairs) == Counter(pair.a.clip_id for pair in sample.pairs)
