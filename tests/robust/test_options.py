"""Whatever is asked on the command line or in the settings file, the program does it or says in one line why not."""

import json
import math
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli import cli
from tests.commands import FEW, MODEL, NO_FIGURES
from voicepatch.commandline.config_file import ALL_LAYERS, PLUGINS, SETTING_KEYS
from voicepatch.errors import BAD_INPUT, BAD_USAGE
from voicepatch.paths import ROOT


def call(*args):
    """Status and lines of a command; a traceback is a failure of the test."""
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert isinstance(result.exception, (SystemExit, type(None))), (args, result.exception)
    assert "Traceback" not in result.output and "a bug in the program" not in result.output, (args, result.output)
    return result.exit_code, result.output.strip().splitlines()


def refused(*args, status=BAD_USAGE):
    """The one line with which a command is refused."""
    found, lines = call(*args)
    assert found == status, (args, lines)
    assert sum(line.lower().startswith("error") for line in lines) == 1, lines
    assert lines[-1].lower().startswith("error"), lines
    return lines[-1]


# --- each option by itself


@pytest.mark.parametrize(
    "value",
    ["99", "-1", "5-2", "a,b", "", ",", "1,", "1--2", "1-2-3", "1.5", " ", "1;2", "1-", "-", "9" * 5000, "0-9" * 9],
)
def test_layers_that_are_none_are_refused(tmp_path, value):
    line = refused("patch", "--no-need", "--kind", "prosody", "--out", tmp_path / "run", f"--layers={value}", *FEW)
    assert "--layers" in line and not (tmp_path / "run" / "patching_config.json").exists()


@pytest.mark.parametrize("value", ["0", "-0.5", "1.5", "nan", "inf", "half", "", "1,0"])
def test_an_alpha_that_is_none_is_refused(tmp_path, value):
    assert "--alpha" in refused("patch", "--no-need", "--kind", "prosody", "--out", tmp_path, "--alpha", value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("--max-pairs", v) for v in ("0", "-1", "many", "1.5", "")],
        *[("--seed", v) for v in ("x", "1.5", "", "-1", f"{2**64}", "9" * 5000)],
        *[("--align", v) for v in ("resample", "", "truncate")],
        *[("--engine", v) for v in ("warp", "")],
        *[("--dtype", v) for v in ("int8", "float64", "")],
        *[("--device", v) for v in ("toaster", "", "cuda", "cuda:0", "cuda:-1", "cpu:7", "meta", "mps:3", "a\nb")],
        ("--kind", "semantik"),
        ("--colour", "red"),
    ],
)
def test_a_value_that_an_option_does_not_take_is_refused(tmp_path, monkeypatch, option, value):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    args = ("patch", "--no-need", "--kind", "prosody", "--out", tmp_path / "run", option, value)
    assert option in refused(*args)


@pytest.mark.parametrize(
    "words",
    [
        *[
            ("patch", "--no-need", "--kind", "prosody", option, "")
            for option in ("--model", "--data", "--texts", "--out", "--config")
        ],
        *[("bench", option, "") for option in ("--model", "--json")],
        *[(command, "") for command in ("report", "compare")],
        ("compare", "runs", "--out", ""),
        ("new", "idea", "--in", " "),
        ("list", "--plugin", ""),
        *[
            ("patch", "--no-need", "--kind", "prosody", option, "a\0b")
            for option in ("--model", "--data", "--texts", "--out")
        ],
        ("bench", "--json", "a\0b"),
        ("list", "--plugin", "a\0b"),
        ("patch", "--no-need", "--kind", "prosody", "--texts", "."),
        ("bench", "--json", "."),
        ("list", "--plugin", "."),
    ],
)
def test_a_path_that_is_empty_or_none_is_refused_before_anything_is_loaded(monkeypatch, words):
    monkeypatch.setattr("voicepatch.commandline.running.run_each", lambda *_: pytest.fail("it was run"))
    line = refused(*words)
    assert "--help" in line or "--plugin" in line


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (("window", "--k", "0"), "--k"),
        (("window", "--k", "2,-1"), "--k"),
        (("window", "--k", "2,2"), "--k"),
        (("noise", "--scale", "nan"), "--scale"),
        (("noise", "--scale", "-1"), "--scale"),
        (("heads", "--head", "-1"), "--head"),
        (("bench", "--seed", "-1"), "--seed"),
        (("bench", "--rounds", "0"), "--rounds"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_by_its_declaration(words, word):
    assert word in refused(*words)


@pytest.mark.parametrize(
    ("words", "status", "word"),
    [
        (("--seed", "-5"), BAD_USAGE, "--seed"),
        (("--layers", "0-99"), BAD_USAGE, "--layers 10,11,12,... (90 layers): the model has layers 0-9"),
        (("--device", "toaster"), BAD_USAGE, "--device"),
        (("--align", "stretch"), BAD_USAGE, "stretch"),
        (("--max-pairs", "1.5"), BAD_USAGE, "is not a whole number"),
        (("--model", "nowhere"), BAD_INPUT, "--model nowhere: no such folder"),
        (("--model", "."), BAD_INPUT, "config.json: missing"),
    ],
)
def test_a_mistake_costs_no_import_of_torch_and_is_one_line(tmp_path, words, status, word):
    code = "import sys; sys.modules['torch'] = None; from cli import cli; cli()"
    command = [sys.executable, "-c", code, "patch", "--no-need", "--kind", "prosody", "--out", tmp_path / "run", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status and not (tmp_path / "run").exists()
    assert done.stderr.count("\n") == 1 and word in done.stderr, done.stderr


def test_the_home_directory_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.yaml").write_text("out: ~/run\nmax_pairs: 1\n")
    assert call("pairs", "--kind", "prosody", "--config", "~/config.yaml")[0] == 0
    assert (tmp_path / "run" / "pair_list_prosody.jsonl").exists()


@pytest.mark.parametrize("value", ["010", "1:30", "1_000", "-07", "08"])
def test_a_number_that_yaml_reads_as_another_is_refused(tmp_path, value):
    config = tmp_path / "config.yaml"
    config.write_text(f"seed: {value}\n")
    assert f"{value} is another number in YAML" in refused("pairs", "--kind", "prosody", "--config", config)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_an_output_that_lacks_letters_gets_others_in_their_place(monkeypatch, encoding):
    monkeypatch.setitem(cli.commands, "say", click.Command("say", callback=lambda: click.echo("\u010a \u4f60")))
    result = CliRunner(charset=encoding).invoke(cli, ["say"])
    assert (result.exit_code, result.stdout_bytes.split()) == (0, [b"?", b"?"]), result.exception


def test_data_of_an_impossible_name_are_refused():
    assert "--data" in refused("pairs", "--kind", "prosody", "--data", "a" * 300)


@pytest.mark.parametrize("command", ["patch", "pairs", "control"])
def test_an_experiment_must_be_named(command):
    assert "--kind" in refused(command)


def test_float16_runs_on_the_cpu(tmp_path):
    args = ("--out", tmp_path / "run", *MODEL, "--dtype", "float16", "--layers", "0,3")
    assert call("check", *args)[0] == 0


# --- where the run lands


@pytest.mark.parametrize("place", ["file/run", "/proc/run", "/dev/null/run", "a" * 300])
def test_a_place_where_nothing_can_be_written_is_refused(tmp_path, place):
    """A folder below a file and one in /proc, since a test that runs as root may write everywhere else."""
    (tmp_path / "file").write_text("")
    found, lines = call("pairs", "--kind", "prosody", "--out", tmp_path / place)
    assert found in (BAD_INPUT, BAD_USAGE) and lines[-1].lower().startswith("error"), lines


def test_a_file_is_no_run_directory(tmp_path):
    (tmp_path / "run").write_text("mine")
    assert "--out" in refused("pairs", "--kind", "prosody", "--out", tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def test_a_full_disk_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    """The disk fills up at the third write of the run, as `write` and `fsync` report it."""
    out, sync, left = tmp_path / "run", os.fsync, iter(range(3))

    def full(descriptor):
        if next(left, None) is None:
            raise OSError(28, os.strerror(28))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    line = refused("patch", "--no-need", "--kind", "prosody", "--out", out, *FEW, NO_FIGURES, status=BAD_INPUT)
    assert "No space left" in line and str(out) in line
    config = json.loads((out / "patching_config.json").read_text()) if (out / "patching_config.json").exists() else {}
    assert not any(experiment["finished"] for experiment in config.get("experiments", {}).values())
    monkeypatch.undo()
    assert call("patch", "--no-need", "--kind", "prosody", "--out", out, *FEW, NO_FIGURES)[0] == 0


def test_an_output_that_takes_no_more_is_said_in_one_line(tmp_path):
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, ROOT / "cli.py", "pairs", "--kind", "prosody", "--out", tmp_path / "run"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.returncode == BAD_INPUT
    assert ended.stderr.count("\n") == 1 and "No space left" in ended.stderr and "bug" not in ended.stderr


# --- the settings file

KEYS = SETTING_KEYS | {ALL_LAYERS: "layers", PLUGINS: "plugin", "patch_alpha": "alpha", "alpha": "alpha"}
WRONG = {
    "plugins": ["5", "{a: 1}", "[1]", "true"],
    "layers_to_patch": ["{}", "1.5", "true", "[]", "[[1]]", "[1.5]", "[true]", "[-1]", "5-2", "2020-01-01"],
    "layers": ["{a: 1}", "x"],
    "patch_all_layers": ["yes please", "1", "[true]"],
    "patch_alpha": ["[[1]]", "[true]", "[0.5, 2]", "true", "{}", "half", ".nan", "2", "2020-01-01"],
    "alpha": ["0"],
    "max_acoustic_distance": [".nan", ".inf", "-0.1", "some", "[1]", "true"],
    "max_failed": [".nan", "-0.1", "1.5", "some", "[1]", "true"],
    "pairs_in_report": ["some", "0", "-1", "1.5", "true", "[2]"],
    "on_bad_clip": ["ignore", "5", "[skip]"],
    "only": ["some", "5", "[answered]", "true"],
    "where": ["text_type", "=x", "5", "[[a=b]]", "{a: b}", "true"],
    "by": ["5", "[[a]]", "{a: b}", "true", "' '"],
    "columns": ["text", "=x", "5", "[1]", "true"],
    **dict.fromkeys(
        ("max_pairs", "max_pairs_prosody", "max_pairs_semantic"), ["0", "-1", "many", "1.5", "true", "[1]", f"{2**64}"]
    ),
    **dict.fromkeys(("pair_sampling_seed", "seed"), ["x", "1.5", "true", "[1]", "0x" + "F" * 2000]),
    **dict.fromkeys(("max_rows", "store_mb", "max_seconds"), ["x", "-1", "1.5", "true"]),
    "workers": ["some", "-1", "1.5", "true", "[2]", "99999"],
    **dict.fromkeys(
        ("model", "base", "task", "data", "texts", "out", "kind", "align", "device", "dtype", "engine", "ray"),
        ["[x]", "5", "true", "{}"],
    ),
    **dict.fromkeys(
        ("overwrite", "figures", "same_speaker", "both_directions", "random_weights", "need"), ["maybe", "1", "[true]"]
    ),
}


def test_every_key_of_the_settings_file_has_wrong_values_here():
    assert set(WRONG) == set(KEYS)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_setting_of_the_wrong_type_is_named(tmp_path, key, value):
    config = tmp_path / "config.yaml"
    config.write_text(f"{key}: {value}\n")
    line = refused("patch", "--no-need", "--kind", "prosody", "--config", config, "--out", tmp_path / "run")
    assert f"{config}: {key}" in line, line


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (BOMB + "seed: *a59", "aliases"),
        (BOMB + "<<: *a59", "aliases"),
        ("seed: &a [*a]", "aliases"),
        ("seed: " + "[" * 30_000, "nested"),
        ("[" * 60_000, "nested"),
        ("seed: 0x" + "F" * 50_000, "too long"),
        ("#" * 70_000, "too long"),
        ("alpha: 1\nalpha: 0.5", "'alpha' is there twice"),
        ("alpha: 1\npatch_alpha: 0.5", "alpha and patch_alpha"),
        ("layers: [1]\nlayers_to_patch: [2]", "keep one"),
        ("seed: 1\npair_sampling_seed: 2", "keep one"),
        ("max_pairs: 1\nmax_pairs_prosody: 2", "keep one"),
        ("max_pair: 1", "did you mean max_pairs"),
        ("1: 2", "unknown key 1"),
        ('"a\\nb": 2', "unknown key"),
        ("seed: !!python/object/apply:os.system [true]", "not valid YAML"),
        ("seed: !!python/name:os.system", "not valid YAML"),
        ("seed: !!int x", "not valid YAML"),
        ("seed: 2020-99-99", "not valid YAML"),
        ("\x00\x01", "not valid YAML"),
        ("? [a]\n: 1", "not valid YAML"),
        ("just text", "key: value"),
        ('out: "a\\0b"', "control characters"),
        ('data: "a\\ud800"', "control characters"),
    ],
)
def test_a_settings_file_of_another_sort_is_refused(tmp_path, content, word):
    config = tmp_path / "config.yaml"
    config.write_text(content)
    line = refused("pairs", "--kind", "prosody", "--config", config, "--out", tmp_path / "run")
    assert str(config) in line and word in line


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", os.urandom(3000), b"\x80"])
def test_a_binary_settings_file_is_refused(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    assert "config.yaml" in refused("pairs", "--kind", "prosody", "--config", tmp_path / "config.yaml")


@pytest.mark.parametrize("place", ["nowhere.yaml", ".", "/dev/zero"])
def test_a_settings_file_that_is_none_is_refused(tmp_path, place):
    assert "--config" in refused("pairs", "--kind", "prosody", "--config", tmp_path / place)


def test_an_alpha_in_scientific_notation_is_a_number(tmp_path):
    """YAML takes 1e-1 for text."""
    config = tmp_path / "config.yaml"
    config.write_text("patch_alpha: 1e-1\nlayers_to_patch: 2-3\nmax_pairs: 1\ndevice: cpu\n")
    assert (
        call(
            "patch", "--no-need", "--kind", "prosody", "--config", config, *MODEL, NO_FIGURES, "--out", tmp_path / "run"
        )[0]
        == 0
    )
    ran = json.loads((tmp_path / "run" / "patching_config.json").read_text())["experiments"]["prosody"]
    assert (ran["patch_alpha"], ran["layers_to_patch"]) == (0.1, [2, 3])


# --- a checkpoint, seen from the command line


def test_the_line_about_a_checkpoint_is_one_line_whatever_its_files_hold(tmp_path):
    folder = tmp_path / "two\nlines\x1b[31m"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "a\nb\u2028c\ud800"}))
    line = refused("check", "--model", folder, "--out", tmp_path / "run", "--device", "cpu", status=BAD_INPUT)
    assert "config.json" in line and line.isprintable()


# --- any words at all

WORDS = st.one_of(
    st.sampled_from(("--kind", "prosody", "semantic", "--max-pairs", "--seed", "--any-speaker", "--both-directions")),
    st.sampled_from(
        ("--data", "--model", "--config", "--out=", "--debug", "--", "-1", "0", "nan", "--kind=", "--help")
    ),
    st.text(st.characters(blacklist_categories=("Cs",)), max_size=12),
    st.integers().map(str),
    st.floats().map(str),
)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(words=st.lists(WORDS, max_size=6), command=st.sampled_from(("pairs", "list", "report", "new", "compare")))
def test_any_words_end_in_a_result_or_one_line(tmp_path, words, command):
    where = {"pairs": ("--out", tmp_path / "run"), "new": ("--in", tmp_path), "compare": ("--out", tmp_path / "both")}
    if any(word.startswith(("--out", "--debug", "--in", "--plugin")) for word in words):
        words = [word for word in words if not word.startswith(("--out", "--debug", "--in", "--plugin"))]
    status, lines = call(command, *where.get(command, ()), *words)
    assert status in (0, BAD_INPUT, BAD_USAGE)
    assert status == 0 or lines[-1].lower().startswith("error"), (words, lines)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(pairs=st.integers(-3, 10**12), seed=st.integers(), alpha=st.floats(), layers=st.text(max_size=8))
def test_any_number_is_a_setting_or_refused(tmp_path, pairs, seed, alpha, layers):
    status, lines = call("pairs", "--kind", "prosody", "--out", tmp_path, f"--max-pairs={pairs}", f"--seed={seed}")
    assert (status == 0) == (pairs > 0 and 0 <= seed < 2**63), lines
    is_alpha = 0 < alpha <= 1 and not math.isnan(alpha)
    args = ("--kind", "prosody", "--data", "nowhere", f"--alpha={alpha}", f"--layers={layers}")
    status, lines = call("patch", *args)
    assert status == BAD_USAGE or is_alpha and "nowhere" in lines[-1], lines
