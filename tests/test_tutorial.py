"""The tutorial runs, says what its text was written for, and holds nothing of the machine that it ran on."""

import re

import nbformat
import pytest

from tests.tutorial import NOTEBOOK, executed

pytestmark = pytest.mark.tutorial
SOUND = re.compile(r"base64,[A-Za-z0-9+/=]+")
ABSOLUTE_PATH = re.compile(r"(?<![\w.<:/])(?:/[\w.+-]+){2,}|[A-Z]:\\\w")


@pytest.fixture(scope="module")
def kept():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def anew(kept):
    return executed(kept)


def outputs_of(notebook):
    """The outputs of each code cell by its id."""
    return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def texts_of(output):
    """What an output says, without sounds."""
    data = output.get("data", {})
    said = [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", ""), *output.get("traceback", [])]
    return [SOUND.sub("", text) for text in said]


def test_running_it_gives_the_outputs_that_are_kept_in_it(kept, anew):
    # A cell that fails has raised by now. Pictures and sounds are there, but may differ in their bytes.
    for cell, outputs in outputs_of(anew).items():
        before = outputs_of(kept)[cell]
        assert [texts_of(output) for output in outputs] == [texts_of(output) for output in before], cell
        assert [sorted(output.get("data", {})) for output in outputs] == [
            sorted(output.get("data", {})) for output in before
        ], cell


def test_it_was_kept_as_make_tutorial_writes_it(kept, anew):
    assert [cell.get("execution_count") for cell in kept.cells] == [cell.get("execution_count") for cell in anew.cells]
    assert kept.metadata == anew.metadata and not any(cell.metadata for cell in kept.cells)
    assert NOTEBOOK.stat().st_size < 1.5e6


def test_it_shows_three_figures_and_two_sounds(kept):
    data = [output.get("data", {}) for outputs in outputs_of(kept).values() for output in outputs]
    assert sum("image/png" in one for one in data) == 3
    assert sum("<audio" in one.get("text/html", "") for one in data) == 2


def test_neither_a_warning_nor_a_path_of_the_machine_is_kept(kept):
    for outputs in outputs_of(kept).values():
        for output in outputs:
            assert output.get("name") != "stderr"
            assert not ABSOLUTE_PATH.search("\n".join(texts_of(output)))


@pytest.mark.parametrize("path", ["/tmp/ipykernel_1/2.py", '"/home/me/x"', "C:\\Users", "see /data/a.flac"])
def test_such_a_path_would_be_found(path):
    assert ABSOLUTE_PATH.search(path) and not ABSOLUTE_PATH.search("</td></tr> 3/4, and/or docs/reading.md")
