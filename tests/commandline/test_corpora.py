"""Corpora and labels of texts from the command line: what is said, what is recorded, and what is refused."""

import json

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from cli import cli
from pairs.corpora.corpus import declared_corpora
from voicepatch.errors import BAD_INPUT


def call(*words, status=0):
    result = CliRunner().invoke(cli, list(map(str, words)))
    assert result.exit_code == status, result.output + repr(result.exception)
    assert "a bug in the program" not in result.output
    return result.output


@pytest.fixture
def tess(tmp_path):
    """Three words of TESS in two emotions, as noise that a model can hear."""
    folder = tmp_path / "TESS"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for word in ("love", "hate", "back"):
        for emotion in ("happy", "sad"):
            soundfile.write(folder / f"OAF_{word}_{emotion}.wav", noise.normal(0, 0.1, 6000), 16000)
    return folder


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("text_id,semantic_label\nlove,happy\nhate,angry\n")
    return path


def test_the_corpora_are_listed_with_what_one_must_know_to_get_them():
    output = call("corpora")
    for corpus in declared_corpora():
        for of in (corpus.name, corpus.layout, corpus.licence, corpus.source, f"{corpus.full[0].prosody[0]:,}"):
            assert of in output


def test_what_was_recognised_is_said_before_any_model_runs(tess, tmp_path):
    output = call("pairs", "--kind", "prosody", "--data", tess, "--out", tmp_path / "run")
    assert "data: TESS, all files in one folder: 6 of 6 wav files are clips; speakers: 1; texts: 3" in output
    assert "data: 3 prosody pairs possible (3 with --any-speaker), 0 semantic pairs possible" in output
    assert "warning: TESS has no labels of its texts: all 3 count as neutral" in output
    assert "3 prosody pairs possible, 3 drawn" in output


def test_semantic_pairs_need_labels_of_texts(tess, texts, tmp_path):
    words = ("pairs", "--kind", "semantic", "--data", tess, "--out", tmp_path / "run")
    output = call(*words, status=BAD_INPUT)
    assert output.strip().splitlines()[-1].startswith("error: no semantic pairs") and "--texts" in output
    assert "6 semantic pairs possible, 6 drawn" in call(*words, "--texts", texts)


def test_labels_of_texts_may_stand_in_the_settings_file(tess, texts, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"data: {tess}\ntexts: {texts}\nout: {tmp_path / 'run'}\n")
    assert "6 semantic pairs possible" in call("pairs", "--kind", "semantic", "--config", config)


def test_a_run_records_the_corpus_and_the_labels_and_takes_no_others(tess, texts, tmp_path, monkeypatch):
    monkeypatch.setattr("voicepatch.runs.preflight.N_CHECK_CLIPS", 1)
    of_run = ("--data", tess, "--out", tmp_path / "run")
    call("check", "--texts", texts, "--layers", "0", "--device", "cpu", *of_run)
    data = json.loads((tmp_path / "run" / "patching_config.json").read_text())["data"]
    assert data["corpus"]["name"] == "TESS" and data["texts"] == str(texts)
    assert data["corpus"]["pairs"]["semantic"] == {"same_speaker": 6, "any_speaker": 6}
    assert "holds a run with another data" in call("pairs", "--kind", "prosody", *of_run, status=BAD_INPUT)
    moved = texts.rename(tmp_path / "moved.csv")
    assert "3 drawn" in call("pairs", "--kind", "prosody", "--texts", moved, *of_run)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "no such file"),
        (b"text_id semantic_label\nlove happy\n", "no column text_id"),
        (b"\xff\x00", "not UTF-8"),
        (b"\xff\xfe\x00", "not UTF-16"),
        (b"text_id,semantic_label\nlo\x1bve,calm\n", "'calm' is no label of task emotion"),
        (b"text_id,semantic_label\nx,sad\n", "no text_id of it is one of the data's"),
    ],
)
def test_wrong_labels_of_texts_end_in_one_line(tess, tmp_path, content, word):
    path = tmp_path / "labels.csv"
    if content is not None:
        path.write_bytes(content)
    output = call("pairs", "--kind", "prosody", "--data", tess, "--texts", path, status=BAD_INPUT)
    (line,) = output.strip().splitlines()
    assert line.startswith("error: ") and word in line and "labels.csv" in line


def test_columns_that_look_like_others_and_spellings_of_labels_are_said_and_recorded(tmp_path):
    rows = ["clip_id,path,text_id,text,semantic_label,prosody_label,spk"]
    for number, label in enumerate(["joy", "sad", "anger"]):
        soundfile.write(tmp_path / f"{number}.wav", np.full(6000, 0.1), 16000)
        rows.append(f"c{number},{number}.wav,t,Hm.,neutral,{label},s{number}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    texts = tmp_path / "texts.csv"
    texts.write_text("text_id,semantic_label,note,speaker\nt,joy,x,y\n")
    words = ("--data", tmp_path / "list.csv", "--texts", texts, "--out", tmp_path / "run")
    output = call("pairs", "--kind", "prosody", *words)
    warnings = [
        "list.csv: column spk does not count as speaker; if it is that, call it speaker",
        "texts.csv: columns that are not used: speaker; optional columns are text, text_type",
    ]
    spellings = {
        "prosody_label": {"angry": {"anger": 1}, "happy": {"joy": 1}},
        "semantic_label": {"happy": {"joy": 3}},
    }
    assert all(f"warning: {warning}\n" in output for warning in warnings)
    assert "data: prosody_label: anger counts as angry (1 clip); joy counts as happy (1 clip)\n" in output
    assert "data: semantic_label: joy counts as happy (3 clips)\n" in output
    report = json.loads((tmp_path / "run" / "pair_construction_report.json").read_text())["prosody"]
    assert report["data_warnings"] == warnings and report["label_spellings"] == spellings
