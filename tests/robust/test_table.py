"""docs/robustness.md says of everything that was tried which test tries it again, and that test is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADER = ["tried", "how", "what happens", "test"]
SECTIONS = """Interruption, Workers, Two at once, Other settings, Numbers, Experiments, Files of a run, Data,
Checkpoints, Options, Fuzz, Load, Security, Windows and macOS"""
NAME = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)+)`")


def sections():
    """(title, its lines) in order."""
    parts = re.split(r"^## (.+)$", (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return list(zip(parts[1::2], map(str.splitlines, parts[2::2]), strict=True))


def rows(lines):
    """The cells of each line of a table; a `|` in code is none of its borders."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
        if line.startswith("|") and not line.startswith("|---")
    ]


@cache
def defined_in(path):
    """Names of the tests and test classes in a file, as pytest writes them: `test_x`, `TestY`, `TestY::test_x`."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return set(_tests(tree, ""))


def _tests(node, prefix):
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and child.name.startswith("test_"):
            yield prefix + child.name
        if isinstance(child, ast.ClassDef) and child.name.startswith("Test"):
            yield prefix + child.name
            yield from _tests(child, f"{prefix}{child.name}::")


CASES = [(title, row) for title, lines in sections() for row in rows(lines) if row != HEADER]


def test_the_sections_are_those_that_the_readers_look_for():
    assert [title for title, _ in sections()] == re.split(r",\s+", SECTIONS)


@pytest.mark.parametrize(("title", "lines"), sections(), ids=[title for title, _ in sections()])
def test_each_section_is_a_table_with_rows(title, lines):
    table = rows(lines)
    assert table[0] == HEADER and len([row for row in table if row != HEADER]) > 2


@pytest.mark.parametrize(("title", "row"), CASES, ids=[f"{title}-{row[0][:40]}" for title, row in CASES])
def test_each_row_is_whole_and_names_tests_that_exist(title, row):
    assert len(row) == 4 and all(row), row
    named = NAME.findall(row[3])
    assert named and NAME.sub("", row[3]).strip(", ") == "", f"{row[3]}: should be tests alone, as `path::name`"
    for path, _, name in (test.partition("::") for test in named):
        assert (ROOT / path).is_file(), path
        assert name in defined_in(path), f"{path} has no {name}"


def test_no_test_is_named_twice_for_one_thing():
    whats = [(title, row[0]) for title, row in CASES]
    assert len(whats) == len(set(whats))
