"""Which experiments there are is read from their files, and what cannot be one is refused with file and line."""

import subprocess
import sys

import pytest

from errors import BAD_INPUT, BAD_USAGE, UserError
from registry import catalogue as module
from registry.catalogue import add_plugin, catalogue, find, load_intervention
from registry.intervention import ALL
from registry.sources import FOLDER

IDEA = '''\
from registry.intervention import intervention


@intervention(control=True, silent=True, over={"head": "n_heads"})
def my_idea(lm, pair, layer, head, k=3, *, mode="mean"):
    """One line.

    k: how many
    """
'''


@pytest.fixture(autouse=True)
def no_plugins_left():
    yield
    module._plugins.clear()
    catalogue.cache_clear()


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
    code = (
        "import sys; from registry.catalogue import catalogue; print(*catalogue()); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = {path.stem.replace("_", "-") for path in FOLDER.glob("*.py") if path.stem != "__init__"}
    assert set(done.stdout.split()) == files


def test_an_entry_is_what_the_file_says(plugin):
    path = plugin(IDEA)
    add_plugin(path)
    entry = catalogue()["my-idea"]
    assert (entry.control, entry.silent, entry.over) == (True, True, {"head": "n_heads"})
    assert entry.options == {"head": ALL, "k": 3, "mode": "mean"}
    assert entry.summary == "One line." and entry.where == f"{path}:5"


def test_both_spellings_name_it(plugin):
    add_plugin(plugin(IDEA))
    assert find("my_idea") is find("my-idea") is catalogue()["my-idea"]
    assert load_intervention("my_idea").name == load_intervention("my-idea").name == "my-idea"
    assert find("nothing") is None


def test_the_file_and_the_imported_experiment_have_the_same_options(plugin):
    add_plugin(plugin(IDEA))
    imported, entry = load_intervention("my-idea"), catalogue()["my-idea"]
    assert imported.options == entry.options and imported.doc == entry.doc
    assert (imported.control, imported.silent, imported.over) == (entry.control, entry.silent, entry.over)


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
        ("lm, pair, layer, k=1e999", "one plain value as its default"),
        ("lm, pair, layer, alpha=2", "its default must be a number in (0, 1]"),
        ("lm, pair, layer, alpha='much'", "its default must be a number in (0, 1]"),
        ("lm, pair, layer, eligible=1", "eligible of f has the name of a column of the records"),
        ("lm, pair, layer, patch_alpha=1", "patch_alpha of f has the name of a column"),
        ("lm, pair, layer, recovery_n=1", "recovery_n of f has the name of a column"),
        ("lm, pair, layer, length=1", "length of f has the name of a column"),
        ("lm, pair, layer, k: int = 1.5", "k of f is annotated as int; its values are not, as 1.5"),
        ("lm, pair, layer, k: int = True", "k of f is annotated as int; its values are not, as True"),
        ("lm, pair, layer, k: 'str' = 1", "k of f is annotated as str; its values are not, as 1"),
        ("lm, pair, layer, k: float = '1'", "k of f is annotated as float; its values are not, as '1'"),
        ("lm, pair, layer, k: bool = 0", "k of f is annotated as bool; its values are not, as 0"),
        ("lm, pair, layer, k: Literal['a', 'b'] = 'c'", "default 'c', which is none of its choices a, b"),
        ("lm, pair, layer, k: Literal['a', 1] = 'a'", "k of f has choices of several types"),
        ("lm, pair, layer, k: Literal['a,b'] = 'a,b'", "k of f has a choice with a comma"),
        ("lm, pair, layer, k='a\\0'", "k of f has the default 'a\\x00'; write it without control characters"),
    ],
)
def test_parameters_that_are_no_options_are_refused_with_file_and_line(plugin, signature, expected):
    path = plugin(f"\n@intervention\ndef f({signature}): pass")
    line = refused(path)
    assert line.startswith(f"{path}:3: ") and expected in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("controls=True", "@intervention takes control, pairs, over, silent, least, not controls"),
        ("**more", "not None"),
        ("control=yes", "control= must be a plain value, written out, not yes"),
        ("over=OVER", "over= must be a plain value, written out, not OVER"),
        ("over={'head': 'n_heads'}", "it has 'head': 'n_heads'"),
        ("over={'k': 16}", "it has 'k': 16"),
        ("over={'k': 'n_heads'}", "k of f is in over=, so it runs over all its values, but has a default; drop"),
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
    with pytest.raises(UserError, match="'nothing'; there are .*patch"):
        load_intervention("nothing")
