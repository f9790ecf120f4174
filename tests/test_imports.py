"""Imports run one way: from the commands down to the shared types, and in no circle."""

import re
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.imports import ROOT, imports, mermaid, room_of, rooms


@pytest.mark.parametrize("graph", [imports, rooms], ids=["files", "rooms"])
def test_imports_have_no_circle(graph):
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_library_knows_neither_the_experiments_nor_the_corpora_nor_the_commands():
    above = {"cli", "commandline", "interventions", "pairs"}
    wrong = [
        f"{name} imports {target}"
        for name, targets in imports().items()
        for target in targets
        if room_of(target) in above and room_of(name) not in above
    ]
    assert not wrong, "\n".join(wrong)


def test_the_graph_in_contributing_is_that_of_the_code():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert re.search(r"```mermaid\n(.*?)\n```", text, re.DOTALL)[1] == mermaid()
