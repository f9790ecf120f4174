"""Commands, help and settings files, up to where an experiment would begin."""

import gc
import os
import subprocess
import sys
import tomllib

import click
import pytest
from click.testing import CliRunner

from cli import cli
from voicepatch.commandline.config_file import explicit_settings
from voicepatch.commandline.param_types import controls
from voicepatch.commandline.program import starting
from voicepatch.paths import ROOT
from voicepatch.program import VERSION
from voicepatch.registry import sources
from voicepatch.registry.catalogue import catalogue
from voicepatch.registry.options import ALL
from voicepatch.runs.inherit import make_settings

IDEA = '''\
@intervention
def my_idea(lm, pair, layer, k=3, scale=1.0, mode="mean", signed=False):
    """One line.

    k: how many
    """
'''


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "idea.py"
    path.write_text(IDEA)
    return path


@pytest.fixture
def ran(monkeypatch):
    """What was to be run: (experiment, kind, own options that were given)."""
    found = []

    def note(names, options):
        settings = make_settings(explicit_settings(options, [catalogue()[name] for name in names]))
        found.extend((name, settings.kind, settings.options) for name in names)

    monkeypatch.setattr("voicepatch.commandline.running.run_each", note)
    return found


@pytest.fixture
def settings(tmp_path):
    def write(text):
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return path

    return write


def call(*words, status=0):
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == status, result.output + repr(result.exception)
    return result.output


def refused(*words, status=2):
    """The one line with which a command is refused."""
    line = call(*words, status=status).strip().splitlines()[-1]
    assert line.lower().startswith("error: ")
    return line


# --- an experiment's options


def test_an_experiment_runs_with_its_defaults(ran, plugin):
    call("patch", "--kind", "semantic")
    call("heads", "--pairs", "semantic")
    call("my-idea", "--plugin", plugin)
    assert ran == [
        ("patch", "semantic", {}),
        ("heads", "semantic", {}),
        ("my-idea", "prosody", {}),
    ]
    call("heads", "--head", "all")
    assert ran[-1][2] == {"head": ALL}


def test_an_option_takes_several_values(ran, plugin):
    words = ("--k", "0,2-3", "--scale", "0.5,1", "--mode", "mean,max", "--signed", "true,false")
    call("my_idea", "--plugin", plugin, *words)
    assert ran[0][2] == {"k": (0, 2, 3), "scale": (0.5, 1.0), "mode": ("mean", "max"), "signed": (True, False)}


def test_help_has_the_options_that_an_experiment_takes_and_no_other(plugin):
    assert "--alpha FLOAT" in call("patch", "--help") and "--alpha FLOAT" in call("control", "--help")
    helped = call("my_idea", "--plugin", plugin, "--help")
    assert "cli my-idea [OPTIONS]" in helped and "--k INTEGER" in helped and "how many" in helped
    assert "[default: false]" in helped and "--alpha" not in helped
    assert "--alpha" not in call("check", "--help")
    assert "[default: all]" in call("heads", "--help")


def test_a_dose_reaches_every_control_that_runs_or_is_refused(ran):
    call("control", "--kind", "all", "--alpha", "0.5,1")
    assert ran and all(options == {"alpha": (0.5, 1.0)} for _, _, options in ran)
    for dose in ("0.5", "1"):
        assert "--alpha: steer takes no alpha" in refused("control", "--kind", "steer", "--alpha", dose)
    assert "No such option '--alpha'" in refused("steer", "--alpha", "0.5")


def test_a_dose_that_reaches_nothing_is_refused_before_anything_is_loaded():
    assert "takes no alpha" in refused("control", "--kind", "steer", "--alpha", "0.5", "--data", "nowhere")


def test_both_spellings_work_on_the_command_line(ran, plugin):
    for name in ("my_idea", "my-idea"):
        call(name, "--plugin", plugin)
        call("control", "--kind", name, "--plugin", plugin)
    assert [name for name, _, _ in ran] == ["my-idea"] * 4
    assert "python cli.py second-half --plugin" in call("new", "second_half", "--in", plugin.parent)


# --- names that are taken


@pytest.mark.parametrize("option", ["seed", "max_pairs", "help", "debug", "any_speaker", "layers_to_patch"])
def test_an_option_with_a_name_of_the_programs_own_is_refused(plugin, option):
    plugin.write_text(IDEA.replace("k=3", f"{option}=3"))
    line = refused("list", "--plugin", plugin)
    assert f"{plugin}:2: the program has an option {option} already" in line


@pytest.mark.parametrize("name", ["report", "control", "all"])
def test_an_experiment_with_a_name_of_the_programs_own_is_refused(plugin, name):
    plugin.write_text(IDEA.replace("my_idea", name))
    assert f"{plugin}:2: {name} is " in refused("list", "--plugin", plugin)


@pytest.mark.parametrize(
    "name", ["report", "all", "patch", "no_conflict", "pairs", "voicepatch", "cli", "run_table", "catalogue"]
)
def test_new_refuses_a_name_that_is_taken(tmp_path, name):
    assert "choose another name" in refused("new", name, "--in", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of interventions with a working one and `my_idea.py`."""
    monkeypatch.setattr(sources, "_folders", {tmp_path: "interventions"})
    (tmp_path / "patch.py").write_text(IDEA.replace("my_idea", "patch"))
    catalogue.cache_clear()
    yield tmp_path
    catalogue.cache_clear()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (IDEA.replace("layer", "layers"), ":2: my_idea must take (lm, pair, layer)"),
        ("@intervention\ndef my_idea(lm, pai", ":2: not readable as Python"),
        (b"\x00", ":1: not readable as Python"),
        (b"x = '\xff'", ":1: not readable as Python"),
        (IDEA.replace("my_idea", "report"), ":2: report is a command of the program"),
        (IDEA.replace("my_idea", "patch"), ":2: patch is an intervention already"),
        (None, ": cannot be read (Is a directory)"),
    ],
)
def test_a_broken_file_of_the_folder_is_warned_of_and_refused_only_where_it_is_asked_for(ran, folder, text, why):
    path = folder / "my_idea.py"
    if text is None:
        path.mkdir()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if "patch is" in why:
        path = path.rename(folder / "second.py")
    for words in (["list"], ["--help"], ["patch", "--help"], ["patch", "--kind", "prosody"]):
        assert f"warning: left out: {path}{why}" in call(*words)
    assert [name for name, _, _ in ran] == ["patch"]
    for words in ([path.stem], [path.stem.replace("_", "-"), "--help"], ["control", "--kind", path.stem]):
        line = refused(*words, status=2 if " is a" in why else 1)
        assert f"error: {path}{why}" in line


def test_a_broken_file_stands_in_the_way_of_no_command_with_its_name(folder):
    (folder / "corpora.py").write_text("@interv(")
    assert "ESD" in call("corpora")


@pytest.mark.parametrize(
    ("word", "meant"), [("ptach", "patch"), ("controll", "control"), ("time_line", "timeline"), ("haeds", "heads")]
)
def test_a_mistyped_command_is_answered_with_the_nearest(word, meant):
    assert f"No such command {word!r}; did you mean {meant}?" in refused(word)


def test_a_command_like_no_other_gets_no_suggestion():
    assert refused("zzzzzz") == "Error: No such command 'zzzzzz'. (see cli --help)"


@pytest.mark.skipif(os.sep != "/", reason="there a backslash separates folders")
def test_backslashes_of_another_system_are_explained(plugin):
    for option in ("--data", "--model", "--out", "--texts", "--config"):
        line = refused("patch", "--kind", "prosody", option, r"C:\data\clips")
        assert "has backslashes, which do not separate folders on this system; write /" in line and option in line
    assert "folders are separated by / on this system" in refused("list", "--plugin", r"ideas\mine.py")


# --- choices


@pytest.mark.parametrize(
    "annotated",
    [
        'part: Literal["start", "end"]',
        'part: t.Literal["start", "end"]',
        'part: t.Annotated[Literal["start", "end"], "which end"]',
        'part: t.Optional[Literal["start", "end"]]',
        'part: t.Union[Literal["start"], Literal["end"]]',
        'part: Literal["start"] | Literal["end"] | None',
        """part: 'Literal["start", "end"]'""",
        "part: Where",
        'part: "Where"',
    ],
)
def test_a_literal_annotation_is_the_list_of_choices(ran, plugin, settings, annotated):
    head = 'import typing as t\nfrom typing import Literal\nWhere = Literal["start", "end"]\n'
    plugin.write_text(head + IDEA.replace('mode="mean"', f'{annotated} = "start"'))
    assert "--part [start|end][,...]" in call("my-idea", "--plugin", plugin, "--help")
    call("my-idea", "--plugin", plugin)
    call("my-idea", "--plugin", plugin, "--part", "end,start")
    call("my-idea", "--plugin", plugin, "--config", settings("part: end"))
    assert [options.get("part") for _, _, options in ran] == [None, ("end", "start"), ("end",)]
    expected = "'Start' is not one of start, end"
    assert expected in refused("my-idea", "--plugin", plugin, "--part", "Start")
    assert expected in refused("my-idea", "--plugin", plugin, "--part", "end,Start")
    assert expected in refused("my-idea", "--plugin", plugin, "--config", settings("part: Start"))
    assert expected in refused("my-idea", "--plugin", plugin, "--config", settings("part: [end, Start]"))


def test_choices_may_be_numbers_and_a_number_may_be_annotated(ran, plugin):
    plugin.write_text(IDEA.replace("k=3", "k: Literal[1, 3] = 3").replace("scale=1.0", "scale: float = 1"))
    call("my-idea", "--plugin", plugin, "--k", "1-1", "--scale", "0.5")
    assert ran[0][2]["k"] == (1,) and ran[0][2]["scale"] == (0.5,)
    assert "'2' is not one of 1, 3" in refused("my-idea", "--plugin", plugin, "--k", "2")
    assert "'2' is not one of 1, 3" in refused("my-idea", "--plugin", plugin, "--k", "1-3")


@pytest.mark.parametrize("value", ["a\0", "a\x1b[2J", "a\n", "a\u2028"])
def test_a_control_character_in_a_text_option_is_refused(ran, plugin, value):
    assert "contains a control character" in refused("my-idea", "--plugin", plugin, "--mode", value + "b")
    assert not ran


# --- settings files


def test_a_settings_file_gives_one_value_or_several(ran, settings, plugin):
    call("patch", "--kind", "prosody", "--config", settings("patch_alpha: [0.25, 1]"))
    call("heads", "--config", settings("head: [0, 2-3]\nalpha: 1e-1"))
    call("my-idea", "--plugin", plugin, "--config", settings("k: 5\nmode: [mean, max]\nsigned: true"))
    assert [options for _, _, options in ran] == [
        {"alpha": (0.25, 1.0)},
        {"head": (0, 2, 3), "alpha": (0.1,)},
        {"k": (5,), "mode": ("mean", "max"), "signed": (True,)},
    ]


def test_the_settings_file_names_plugins_as_the_option_does(ran, settings, plugin):
    call("my-idea", "--config", settings(f"plugins: [{plugin}]\nk: 5"))
    assert ran == [("my-idea", "prosody", {"k": (5,)})]
    assert "plugins: 5 is not a list" in refused("my-idea", "--config", settings("plugins: 5"))


def test_the_version_is_that_of_the_package():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert declared["project"]["version"] == VERSION


def test_the_command_line_wins(ran, settings):
    call("patch", "--kind", "prosody", "--config", settings("patch_alpha: [0.25, 1]"), "--alpha", "0.5")
    assert ran[0][2] == {"alpha": (0.5,)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("patch_alpha: [0.5, 2]", "2 is not in the range 0<x<=1"),
        ("patch_alpha: [1, 1]", "each value once"),
        ("patch_alpha: []", "at least one"),
        ("patch_alpha: [true]", "patch_alpha: 'True' is not a number"),
        ("patch_alpha: [[1]]", "patch_alpha: [[1]] is not a value"),
        ("patch_alpha: .inf", "not finite"),
        ("head: [1.5]", "not a whole number"),
        ("head: {a: 1}", "a value, or several"),
        ("head: [{a: 1}]", "head: [{'a': 1}] is not a value"),
        ('head: ["a\\0"]', "head: "),
        ("heads: 1", "did you mean head?"),
        (f"head: [{2**64}]", "too large"),
    ],
)
def test_a_wrong_value_in_a_settings_file_is_refused(ran, settings, text, expected):
    assert expected in refused("heads", "--config", settings(text))
    assert not ran


def test_a_setting_that_would_reach_no_experiment_is_refused(ran, settings):
    for words in (["steer"], ["control", "--kind", "steer"]):
        assert "takes no alpha" in refused(*words, "--config", settings("patch_alpha: 0.5"))
    for words in (["patch", "--kind", "prosody"], ["control", "--kind", "self"]):
        assert "takes no head" in refused(*words, "--config", settings("head: 1"))


def test_the_example_fits_every_experiment(ran):
    for name in catalogue():
        kind = ("--kind", "prosody") if name == "patch" else ()
        call(name, *kind, "--config", ROOT / "config.example.yaml")
    call("control", "--kind", "steer", "--config", ROOT / "config.example.yaml")
    assert [name for name, _, _ in ran] == [*catalogue(), "steer"]


# --- what needs no model


@pytest.mark.parametrize("words", [["--help"], ["patch", "--help"], ["heads", "--help"], ["list"], ["corpora"]])
def test_help_and_list_import_neither_torch_nor_pandas(words):
    code = "import sys; sys.modules.update(torch=None, pandas=None); from cli import cli; cli()"
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_shows_the_main_experiment_among_the_commands():
    commands, interventions = call("--help").split("Interventions:")
    assert "\n  patch " in commands and "\n  patch " not in interventions and "\n  heads " in interventions


def test_every_command_has_help():
    context = click.Context(cli)
    for name in cli.list_commands(context):
        assert cli.get_command(context, name).get_short_help_str(), name


def test_a_start_without_garbage_collection_leaves_it_on_and_nothing_out_of_it():
    before = gc.get_freeze_count()
    with starting():
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() == before


# --- bytes that are not in UTF-8


@pytest.mark.parametrize(
    "words",
    [
        *[
            ("patch", "--kind", "prosody", option, "BAD")
            for option in ("--data", "--texts", "--out", "--model", "--config")
        ],
        ("pairs", "--kind", "prosody", "--data=BAD"),
        ("my-idea", "--mode", "BAD"),
        ("patch", "--kind", "BAD"),
        ("list", "--plugin", "BAD"),
        ("bench", "--json", "BAD"),
        ("report", "BAD"),
        ("new", "BAD"),
        ("BAD",),
    ],
)
def test_a_byte_that_is_not_in_utf_8_is_refused_before_anything_runs(ran, plugin, tmp_path, words):
    bad = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(bad)
    more = ("--plugin", plugin) if words[0] == "my-idea" else ()
    line = refused(*(word.replace("BAD", bad) for word in words), *more)
    assert r"caf\xe9: is not in UTF-8" in line and not ran
    assert words[-2:][0] in line or not words[-2:][0].startswith("--")


@pytest.mark.parametrize("option", ["--data", "--texts", "--out", "--model"])
def test_a_place_below_a_folder_that_is_not_in_utf_8_is_refused(ran, tmp_path, monkeypatch, option):
    bad = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(bad)
    monkeypatch.chdir(bad)
    assert r"caf\xe9/here: is not in UTF-8" in refused("patch", "--kind", "prosody", option, "here") and not ran


def test_the_help_of_control_says_what_each_control_must_show():
    documented = (ROOT / "docs" / "reading.md").read_text().partition("it must show")[2]
    text = " ".join(call("control", "--help").split())
    for name in controls():
        assert f"{name} {catalogue()[name].expected}" in text
        row = next(line for line in documented.splitlines() if line.startswith(f"| `{name}`"))
        assert catalogue()[name].expected in row
