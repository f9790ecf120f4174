"""Mistakes in options, settings, data and model end in one line that says what is wrong, and a status."""

import json
import shutil

import pytest

from tests.commands import FEW, NO_FIGURES, call, fails, rows
from tests.small import small_model
from voicepatch.errors import BAD_USAGE
from voicepatch.paths import DEMO_DATA


def test_the_configuration_file_fills_in_and_the_command_line_wins(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        "layers_to_patch: [1, 3]\npatch_alpha: 0.5\nmax_pairs_prosody: 2\npair_sampling_seed: 7\ndevice: cpu\n"
        f"out: {tmp_path / 'run'}\n"
    )
    call(
        "patch",
        "--no-need",
        "--kind",
        "prosody",
        "--config",
        config,
        "--alpha",
        "0.25",
        "--model",
        small_model(),
        NO_FIGURES,
    )
    ran = json.loads((tmp_path / "run" / "patching_config.json").read_text())["experiments"]["prosody"]
    assert (ran["layers_to_patch"], ran["patch_alpha"]) == ([1, 3], 0.25)
    assert (ran["max_pairs_prosody"], ran["pair_sampling_seed"], ran["n_pairs"]) == (2, 7, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("layer_to_patch: [1]", "did you mean layers_to_patch"),
        ("patch_all_layers: false", "layers_to_patch must list"),
        ("patch_all_layers: true\nlayers_to_patch: [1]", "keep one"),
        ("max_pairs_prosody: many", "whole number"),
        ("- 1", "key: value"),
        ("a: [", "not valid YAML"),
        ("max_pairs_prosody: 0", "max_pairs_prosody"),
        ("model: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_mistake_in_the_configuration_file_is_named(tmp_path, text, expected):
    config = tmp_path / "config.yaml"
    config.write_text(text)
    line = fails("patch", "--no-need", "--kind", "prosody", "--config", config, "--out", tmp_path / "run", status=2)
    assert expected in line


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--alpha", "0"], "not in the range 0<x<=1"),
        (["--alpha", "1.5"], "not in the range 0<x<=1"),
        (["--alpha", "nan"], "not finite"),
        (["--alpha", "0.5,0.5"], "each value once"),
        (["--alpha", "0.5,2"], "not in the range 0<x<=1"),
        (["--layers", "3-1"], "runs backwards"),
        (["--layers", "two"], "not a layer"),
        (["--layers", "0,99"], "the model has layers 0-"),
        (["--max-pairs", "0"], "--max-pairs"),
        (["--engine", "warp"], "--engine"),
        (["--device", "cuda:9"], "--device"),
        (["--device", "toaster"], "--device"),
        (["--dtype", "int8"], "--dtype"),
        (["--align", "resample"], "--align"),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--verbose"], "--verbose"),
    ],
)
def test_wrong_usage_ends_in_one_line_and_status_2(tmp_path, args, expected):
    assert expected in fails("patch", "--no-need", "--kind", "prosody", "--out", tmp_path / "run", *args, status=2)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--data", "missing", "missing: no such file or folder"),
        ("--model", "missing", "missing: no such folder, and not a hub id"),
        ("--data", "sad.wav", "not a manifest"),
        ("--model", "empty", "config.json: missing"),
    ],
)
def test_wrong_data_or_model_ends_in_one_line_and_status_1(tmp_path, monkeypatch, option, value, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "sad.wav").write_bytes(b"RIFF")
    line = fails("patch", "--no-need", "--kind", "prosody", "--out", tmp_path / "run", option, value, status=1)
    assert line.startswith("error: ") and expected in line
    assert not (tmp_path / "run").exists()


def test_a_clip_that_cannot_be_decoded_is_named_and_what_was_done_is_kept(tmp_path):
    data = tmp_path / "data"
    shutil.copytree(DEMO_DATA, data)
    out = tmp_path / "run"
    call("pairs", "--kind", "prosody", "--data", data, "--out", out, *FEW[:2])
    clip = rows(out / "pair_list_prosody.jsonl")[-1]["clip_b"]
    text_id, label = clip.rsplit("_", 1)
    broken = data / label / f"{text_id}.flac"
    broken.write_bytes(broken.read_bytes()[:100])
    line = fails("patch", "--no-need", "--kind", "prosody", "--data", data, "--out", out, *FEW, status=1)
    assert str(broken) in line and "not a readable sound file" in line


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("text", "'text' is not NAME=COLUMN"),
        ("text=", "is not NAME=COLUMN"),
        ("text=a,text=b", "text=b names a column twice"),
        ("text=a,speaker=a", "speaker=a names a column twice"),
        ("txt=a", "did you mean text?"),
    ],
)
def test_names_of_columns_that_cannot_be(columns, words, tmp_path):
    for given in (("--columns", columns), ("--config", _settings_file(tmp_path, columns))):
        output = call("pairs", "--kind", "prosody", *given, "--out", tmp_path / "run", status=BAD_USAGE)
        assert words in output.strip().splitlines()[-1]


def _settings_file(folder, columns):
    path = folder / "settings.yaml"
    path.write_text(f"columns: {json.dumps(columns)}\n")
    return path
