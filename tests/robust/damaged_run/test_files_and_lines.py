"""A file of a run that is no such file, or a line of it that is no row: one line, status 1, and no figure."""

import os
from pathlib import Path

import pytest

from tests.robust.damaged_run.damage import FILES, LINE, MAY_BE_MISSING, ROWS, error_line, report, rewritten

# --- the complete file

BYTES = {
    "empty": lambda text: b"",
    "binary": lambda text: bytes(range(256)),
    "zeros": lambda text: bytes(500),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 without its mark": lambda text: text.encode("utf-16-le"),
    "a byte-order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "half": lambda text: text.encode()[: len(text) // 2],
    "a list": lambda text: b"[" + text.splitlines()[0].encode() + b"]\n",
    "a text": lambda text: b'"text"\n',
    "null": lambda text: b"null\n",
    "deep": lambda text: b'{"a":' * 100_000 + b"\n",
    "twice": lambda text: text.encode() + text.encode(),
}


@pytest.mark.parametrize("damage", [*BYTES, "latin-1", "a directory", *(["a pipe"] if hasattr(os, "mkfifo") else [])])
@pytest.mark.parametrize("file", FILES)
def test_a_file_of_another_kind_is_an_error(run, intact, drawn, file, damage):
    text = (intact / file).read_text(encoding="utf-8")
    if file not in ROWS and "\n" not in text:
        text += "\n"
    if damage == "latin-1":
        key = text.index('"', text.index('"') + 1)
        content = text.encode()[:key] + b"\xe9" + text.encode()[key:]
    else:
        made = {"a directory": Path.mkdir, "a pipe": lambda path: os.mkfifo(path)}
        content = made.get(damage) or BYTES[damage](text)
    rewritten(run, intact, file, content)
    error_line(run, drawn, file)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_an_error_or_reported_as_missing(run, intact, drawn, file):
    (run / file).unlink()
    if file in MAY_BE_MISSING:
        assert report(run)[0] == 0 and drawn == ["prosody", "report"]
    elif file == "patching_config.json":
        status, errors, _ = report(run)
        assert status == 1 and "holds no experiment" in errors[0] and drawn == []
    else:
        error_line(run, drawn, file)


# --- one line of a file of rows

LINES = {
    "blank": lambda line: b"\n",
    "of blanks": lambda line: b"  \n",
    "torn": lambda line: line[: len(line) // 2] + b"\n",
    "joined with the next": lambda line: line[:-1],
    "a list": lambda line: b"[" + line[:-1] + b"]\n",
    "a number": lambda line: b"1\n",
    "latin-1": lambda line: line.replace(b"_", b"\xe9", 1),
    "zeros": lambda line: bytes(len(line) - 1) + b"\n",
    "twice": lambda line: line + line,
}


@pytest.mark.parametrize("damage", LINES)
@pytest.mark.parametrize("file", ROWS)
def test_a_line_of_another_kind_is_named(run, intact, drawn, file, damage):
    lines = (intact / file).read_bytes().splitlines(keepends=True)
    if damage == "joined with the next" and len(lines) == LINE:
        lines.append(lines[-1])
    lines[LINE - 1] = LINES[damage](lines[LINE - 1])
    rewritten(run, intact, file, b"".join(lines))
    error_line(run, drawn, file, LINE + (damage == "twice"))


@pytest.mark.parametrize("file", ROWS)
def test_a_last_line_without_its_end_is_named(run, intact, drawn, file):
    content = (intact / file).read_bytes()
    rewritten(run, intact, file, content[:-1])
    assert "no line end" in error_line(run, drawn, file, content.count(b"\n"))
