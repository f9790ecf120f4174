"""Which experiments there are is read from their files, and what cannot be one is refused with file and line."""

import subprocess
import sys
from dataclasses import fields

import pytest

from voicepatch.errors import BAD_INPUT, BAD_USAGE, UserError
from voicepatch.paths import ROOT
from voicepatch.registry.catalogue import add_plugin, catalogue, find, load_intervention
from voicepatch.registry.intervention import Declared
from voicepatch.registry.options import ALL, Option

FOLDER = ROOT / "interventions"
IDEA = '''\
from voicepatch.registry.intervention import intervention


@intervention(control=True, may_be_noop=True, range_of={"head": "n_heads"})
def my_idea(lm, pair, layer, head, k=3, *, mode="mean"):
    """One line.

    k: how many
    """
'''


@pytest.fixture
def plugin(tmp_path):
    def write(text, name="idea.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def refused(path, status=BAD_INPUT):
    with pytest.raises(UserError) as error:
        add_plugin(path)
    assert error.value.status == status
    return str(error.value)


def test_every_file_of_the_folder_is_there_and_none_is_imported():
    code = "import sys; from interventions import catalogue; print(*catalogue()); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = {path.stem.replace("_", "-") for path in FOLDER.glob("*.py") if path.stem != "__init__"}
    assert set(done.stdout.split()) == files


def test_an_entry_is_what_the_file_says(plugin):
    path = plugin(IDEA)
    add_plugin(path)
    entry = catalogue()["my-idea"]
    assert (entry.control, entry.may_be_noop, entry.main) == (True, True, False)
    assert entry.options == {
        "head": Option("head", int, ALL, minimum=0, range_of="n_heads", stored="head"),
        "k": Option("k", int, 3, help="how many", stored="k"),
        "mode": Option("mode", str, "mean", stored="mode"),
    }
    assert entry.summary == "One line." and entry.where == f"{path}:5"


def test_both_spellings_name_it(plugin):
    add_plugin(plugin(IDEA))
    assert find("my_idea") is find("my-idea") is catalogue()["my-idea"]
    assert load_intervention("my_idea").name == load_intervention("my-idea").name == "my-idea"
    assert find("nothing") is None


def test_the_file_and_the_imported_experiment_have_the_same_options(plugin):
    add_plugin(plugin(IDEA))
    imported, entry = load_intervention("my-idea"), catalogue()["my-idea"]
    assert all(getattr(imported, field.name) == getattr(entry, field.name) for field in fields(Declared))


def test_a_plugin_does_not_take_the_name_of_another_experiment(plugin):
    path = plugin("@intervention\ndef patch(lm, pair, layer): pass")
    line = refused(path, BAD_USAGE)
    assert line.startswith(f"{path}:2:") and str(FOLDER / "patch.py") in line
    add_plugin(plugin(IDEA))
    assert "my-idea is an intervention already" in refused(plugin(IDEA, "other.py"), BAD_USAGE)
    assert "is an intervention already" in refused(plugin(IDEA.replace("my_idea", "a") * 2, "twice.py"), BAD_USAGE)


def test_a_refused_plugin_leaves_the_others_as_they_were(plugin):
    before = dict(catalogue())
    refused(plugin("@intervention\ndef patch(lm, pair, layer): pass"), BAD_USAGE)
    assert catalogue() == before


def test_a_plugin_may_be_named_twice_or_be_a_file_of_the_folder(plugin):
    path = plugin(IDEA)
    for same in (path, path, FOLDER / "patch.py"):
        add_plugin(same)
    assert set(catalogue()) >= {"my-idea", "patch"}


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("lm, pair, layers, alpha=1.0", "must take (lm, pair, layer) and then options"),
        ("lm, pair", "must take (lm, pair, layer) and then options"),
        ("lm, pair, layer, k", "k has none"),
        ("lm, pair, layer, *, k", "k has none"),
        ("lm, pair, layer, *more", "*more has none"),
        ("lm, pair, layer, **more", "**more has none"),
        ("lm, pair, layer, k=len", "the default of k must be a plain value"),
        ("lm, pair, layer, k=(1, 2)", "one plain value as its default"),
        ("lm, pair, layer, k=None", "one plain value as its default"),
        ("lm, pair, layer, k=1e999", "the option k of f: its default inf is not finite"),
        ("lm, pair, layer, alpha=2", "the option alpha of f: its default 2.0 is not in the range 0<x<=1"),
        ("lm, pair, layer, alpha='much'", "the option alpha of f: its default 'much' is not a number"),
        ("lm, pair, layer, eligible=1", "eligible of f has the name of a column of the records"),
        ("lm, pair, layer, patch_alpha=1", "patch_alpha of f has the name of a column"),
        ("lm, pair, layer, recovery_n=1", "recovery_n of f has the name of a column"),
        ("lm, pair, layer, length=1", "length of f has the name of a column"),
        ("lm, pair, layer, k: int = 1.5", "k of f is annotated as int, which 1.5 is not"),
        ("lm, pair, layer, k: int = True", "k of f is annotated as int, which True is not"),
        ("lm, pair, layer, k: 'str' = 1", "k of f is annotated as str, which 1 is not"),
        ("lm, pair, layer, k: float = '1'", "k of f is annotated as float, which '1' is not"),
        ("lm, pair, layer, k: bool = 0", "k of f is annotated as bool, which 0 is not"),
        ("lm, pair, layer, k: Literal['a', 'b'] = 'c'", "default 'c' is not one of a, b"),
        ("lm, pair, layer, k: Literal['a', 1] = 'a'", "k of f has choices of several types"),
        ("lm, pair, layer, k: Literal['a,b'] = 'a,b'", "k of f has a choice that contains a comma"),
        ("lm, pair, layer, k='a\\0'", "k of f: its default 'a\\x00' contains a control character"),
    ],
)
def test_parameters_that_are_no_options_are_refused_with_file_and_line(plugin, signature, expected):
    path = plugin(f"\n@intervention\ndef f({signature}): pass")
    line = refused(path)
    assert line.startswith(f"{path}:3: ") and expected in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("controls=True", "minimum, not controls"),
        ("**more", "**= must be a plain value, written out, not more"),
        ("control=yes", "control= must be a plain value, written out, not yes"),
        ("control=1", "control= is 1: Expected `bool`, got `int`"),
        ("judged_by='recovery'", "judged_by= is 'recovery': Invalid enum value 'recovery'"),
        ("recipients='mine'", "recipients= is 'mine': Invalid enum value 'mine'"),
        ("minimum={'k': 2}", "the option k of f: its default 1 is not in the range x>=2"),
        ("minimum={'j': 2}", "f has no option j with a number as its default"),
        ("range_of=OVER", "range_of= must be a plain value, written out, not OVER"),
        ("range_of={'head': 'n_heads'}", "it has 'head': 'n_heads'"),
        ("range_of={'k': 16}", "it has 'k': 16"),
        ("range_of={'k': 'n_heads'}", "k of f is in range_of=, so it takes all its values, but has a default; remove"),
    ],
)
def test_a_decorator_that_cannot_be_read_is_refused_with_file_and_line(plugin, words, expected):
    path = plugin(f"@intervention({words})\ndef f(lm, pair, layer, k=1): pass")
    line = refused(path)
    assert line.startswith(f"{path}:2: ") and expected in line


def test_a_file_that_cannot_be_imported_is_named_with_its_line(plugin):
    path = plugin(f"{IDEA}\n\nimport no_such_library\n")
    add_plugin(path)
    with pytest.raises(UserError, match="idea.py:12: cannot be imported .*no_such_library"):
        load_intervention("my-idea")


def test_an_unknown_name_is_answered_with_those_that_there_are():
    with pytest.raises(UserError, match="there is no intervention 'nothing'; there are .*patch"):
        load_intervention("nothing")
