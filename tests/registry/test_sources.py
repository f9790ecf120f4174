"""What an experiment's hash covers, and what a plugin can import, is what runs."""

import sys

import pytest

from voicepatch.errors import UserError
from voicepatch.registry.catalogue import add_plugin, catalogue, load_intervention, reset_plugins
from voicepatch.registry.sources import own_files

IDEA = """\
import functools

import helper
from interventions import intervention


def twice(function):
    @functools.wraps(function)
    def run(*args, **options):
        return 2 * function(*args, **options)

    return run


@intervention
def my_idea(lm, pair, layer, scale=1.0):
    from parts.late import value

    return helper.value * value * scale
"""


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch):
    before, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = before
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    """Write files of a plugin's folder by their paths there; gives the folder."""

    def write(folder="plugin", **files):
        usual = {"idea": IDEA, "helper": "value = 2\n", "parts__late": "value = 3\n"}
        for name, text in (usual | files).items():
            path = tmp_path / folder / f"{name.replace('__', '/', 1)}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / folder

    return write


def loaded(folder):
    catalogue.cache_clear()
    add_plugin(folder / "idea.py")
    return load_intervention("my-idea")


def refused(folder):
    with pytest.raises(UserError) as caught:
        loaded(folder)
    return str(caught.value)


def test_a_plugin_imports_the_files_of_its_folder_on_loading_and_when_it_runs(write):
    assert loaded(write())("lm", "pair", 0, scale=5) == 30


@pytest.mark.parametrize(
    "files",
    [
        {"helper": "value = 4\n"},
        {"parts__late": "value = 4\n"},
        {"helper": "from parts import deep\nvalue = deep.x\n", "parts__deep": "x = 4\n"},
        {"idea": IDEA.replace("* scale", "* scale * 2")},
    ],
)
def test_another_text_of_any_file_that_it_imports_is_another_code_and_the_one_that_runs(write, files):
    before = loaded(write())
    result, code = before("lm", "pair", 0), before.code_hash()
    after = loaded(write(**files))
    assert after.code_hash() != code and after("lm", "pair", 0) != result


def test_a_file_that_is_imported_by_what_is_imported_counts_too(write):
    deep = {"helper": "from parts import deep\nvalue = deep.x\n"}
    one = loaded(write(**deep, parts__deep="x = 4\n")).code_hash()
    assert one == loaded(write(**deep, parts__deep="x = 4  # a comment\n")).code_hash()
    assert one != loaded(write(**deep, parts__deep="x = 5\n")).code_hash()


@pytest.mark.parametrize(
    "line",
    [
        "import parts.deep",
        "from parts import deep",
        "from parts.deep import x",
        "import importlib; importlib.import_module('parts.deep')",
    ],
)
def test_every_way_to_import_a_file_is_followed(write, line):
    folder = write(idea=f"{IDEA}    {line}\n", parts__deep="x = 4\n", parts__unused="", parts____init__="")
    names = {path.relative_to(folder).as_posix() for path in own_files(folder / "idea.py")}
    assert names == {"idea.py", "helper.py", "parts/__init__.py", "parts/late.py", "parts/deep.py"}


def test_relative_imports_of_a_package_are_followed(write):
    late = "from . import deep\nfrom .deep import x\nvalue = 1\n"
    folder = write(parts__late=late, parts__deep="from ..helper import value as x\n", parts____init__="")
    names = {path.relative_to(folder).as_posix() for path in own_files(folder / "idea.py")}
    assert names == {"idea.py", "helper.py", "parts/__init__.py", "parts/late.py", "parts/deep.py"}


def test_two_plugins_do_not_get_each_others_helper(write):
    loaded(write())
    other = write("other", idea=IDEA.replace("my_idea", "second"), helper="value = 7\n")
    add_plugin(other / "idea.py")
    with pytest.raises(UserError) as caught:
        load_intervention("second")
    assert f"{other / 'idea.py'}: importing helper gives {other.parent / 'plugin' / 'helper.py'}" in str(caught.value)
    assert "rename the latter" in str(caught.value)


def test_a_package_that_lies_in_the_folders_of_two_plugins_is_refused(write):
    loaded(write())
    reset_plugins()
    line = refused(write("other", helper="value = parts = 1\n", idea=IDEA.replace("import helper", "helper = int")))
    assert "importing parts gives" in line and "/plugin/parts and not" in line


@pytest.mark.parametrize("name", ["json", "torch", "pairs", "voicepatch", "time"])
def test_a_helper_with_the_name_of_another_module_is_refused_and_never_shadows_it(write, name):
    before = getattr(__import__(name), "__file__", "a built-in module")
    line = refused(write(idea=IDEA.replace("helper", name), **{name: "value = 2\n"}))
    assert f"importing {name} gives {before}" in line and "rename the latter" in line
    assert getattr(__import__(name), "__file__", "a built-in module") == before


def test_a_file_that_is_not_imported_is_neither_code_nor_in_the_way(write):
    code = loaded(write(json="x = 1\n")).code_hash()
    assert loaded(write(json="x = 2\n")).code_hash() == code


@pytest.mark.parametrize(
    "text",
    [b"\xef\xbb\xbf" + IDEA.encode(), b"# -*- coding: latin-1 -*-\n# \xfc\n" + IDEA.encode()],
    ids=["byte-order mark", "latin-1"],
)
def test_a_file_is_read_in_the_encoding_that_python_reads_it_in(write, text):
    folder = write(idea=text, helper=b"# coding: latin-1\nvalue = len('\xfc\xfc')\n")
    add_plugin(folder / "idea.py")
    assert loaded(folder)("lm", "pair", 0, scale=5) == 30
    assert loaded(folder).code_hash() != loaded(write(idea=text, helper=b"value = 3\n")).code_hash()


# --- other decorators


DECORATED = IDEA.replace("@intervention\n", "@intervention\n@twice\n")


def test_the_code_under_another_decorator_is_the_functions(write):
    folder = write(idea=DECORATED)
    one = loaded(folder)
    assert one("lm", "pair", 0, scale=5) == 60 and one.options["scale"].default == 1.0
    assert one.function.__code__.co_filename == str(folder / "idea.py")
    code = one.code_hash()
    assert code != loaded(write(idea=DECORATED.replace("* scale", "* scale * 2"))).code_hash()


def test_the_code_under_a_decorator_of_torch_is_the_functions(write):
    text = "import torch\n" + IDEA.replace("@intervention\n", "@intervention\n@torch.no_grad()\n")
    one = loaded(write(idea=text)).code_hash()
    assert one != loaded(write(idea=text.replace("* scale", "* 2"))).code_hash()


def test_the_code_of_a_decorator_of_the_folder_counts(write):
    text = IDEA.replace("@intervention\n", "@intervention\n@helper.same\n")
    same = "import functools\nvalue = 2\ndef same(f):\n    return functools.wraps(f)(lambda *a, **b: f(*a, **b))\n"
    one = loaded(write(idea=text, helper=same)).code_hash()
    assert one != loaded(write(idea=text, helper=same.replace("f(*a, **b))", "3 * f(*a, **b))"))).code_hash()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            IDEA.replace("@intervention\n", "@twice\n@intervention\n"),
            "@intervention must be the outermost decorator of my_idea",
        ),
        (DECORATED.replace("    @functools.wraps(function)\n", ""), "must use functools.wraps"),
        (
            DECORATED.replace("    @functools.wraps(function)\n", "").replace("*args, **options", "lm, pair, layer"),
            "a decorator under @intervention hides my_idea; it must use functools.wraps",
        ),
        (
            DECORATED.replace("return run", "return functools.partial(run)"),
            "@intervention must stand before a function",
        ),
        (
            DECORATED.replace("return run", "return lambda lm, pair, layer: 0"),
            "@intervention must stand before a function",
        ),
        (DECORATED.replace("return run", "return print"), "@intervention must stand before a function"),
        (f"{IDEA}\n\nmy_idea = my_idea.run\n", "my_idea is not an experiment after the file is imported"),
    ],
    ids=["above", "no wraps", "no wraps, same parameters", "partial", "lambda", "builtin", "replaced"],
)
def test_what_hides_the_function_is_refused_with_file_and_line(write, text, expected):
    folder = write(idea=text)
    line = refused(folder)
    assert line.startswith(f"{folder / 'idea.py'}:") and expected in line
    assert line.removeprefix(f"{folder / 'idea.py'}:").partition(":")[0].isdecimal()
