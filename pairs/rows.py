"""Rows of a CSV or JSONL file, each with the line number that an editor shows.

    rows = rows_by(read_rows(Path("manifest.csv"), required=("clip_id", "text"), optional=("speaker",)), "clip_id")
    rows["c1"].required("text"), rows["c1"].optional("speaker")

A row checks its own values, so that an error can name it.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voicepatch.errors import UserError, can_be_written
from voicepatch.files import lines_of
from voicepatch.json_text import parse_json
from voicepatch.text import escape, nfc, short_repr
from voicepatch.types.task import Task

# What pandas and its like write for a value that is missing.
NO_VALUE = ("", "nan", "NaN", "-nan", "-NaN", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `number` counts the file's lines from 1, `values` holds the known columns that it has.

    Values are stripped and, except for paths, in composed letters. `unused` are the other columns that hold something.
    """

    path: Path
    number: int
    values: dict[str, str]
    unused: tuple[str, ...] = ()

    def error(self, message: str) -> UserError:
        return _error(self.path, self.number, message)

    def required(self, column: str) -> str:
        if not self.values[column]:
            raise self.error(f"{column} is empty; every row needs one")
        return self.values[column]

    def optional(self, column: str) -> str | None:
        """The value, or None for an empty one and for a word that stands for a missing one, such as `nan`."""
        value = self.values.get(column, "")
        return None if value in NO_VALUE else value

    def label(self, column: str, task: Task) -> str:
        """The task's label that the column's value is a spelling of."""
        label = task.label_of(self.required(column))
        if label is None:
            raise self.error(
                f"{column} {short_repr(self.values[column])} is no label of task {task.name}; "
                f"use one of {', '.join(task.labels)}, or take the row out"
            )
        return label

    def label_of_words(self, task: Task) -> dict[str, Any]:
        """The fields of a `Clip` for the label of the words; none where the task has no column for it."""
        if task.words is None:
            return {"semantic_label": None}
        return {"semantic_label": self.label(task.words, task), "semantic_spelling": self.values[task.words]}

    def of_text(self, task: Task) -> dict[str, Any]:
        """The fields of a `Clip` that a row on a text gives."""
        optional = {column: self.optional(column) for column in ("speaker", "language", "text_type")}
        return {"text": self.required("text"), **self.label_of_words(task), **optional}


def _error(path: Path, number: int, message: str) -> UserError:
    return UserError(f"{path}: row {number}: {message}")


def rows_by(rows: Iterable[Row], column: str) -> dict[str, Row]:
    """The rows by their value of a column; `UserError` where two rows have the same value."""
    found: dict[str, Row] = {}
    for row in rows:
        other = found.setdefault(row.required(column), row)
        if other is not row:
            raise row.error(
                f"{column} {short_repr(row.values[column])} is already in row {other.number}; keep one of them"
            )
    return found


def warnings_of(rows: Iterable[Row], optional: Sequence[str]) -> list[str]:
    """What is not used of a file's rows: unknown columns, and words for a missing value."""
    rows = list(rows)
    unused = dict.fromkeys(escape(column) or "one without a name" for row in rows for column in row.unused)
    missing = Counter(
        (column, value)
        for row in rows
        for column in optional
        if (value := row.values.get(column)) and value in NO_VALUE
    )
    name = rows[0].path.name
    warnings = [f"{name}: columns that are not used: {', '.join(unused)}; optional columns are {', '.join(optional)}"]
    return [
        *(warnings if unused else []),
        *(
            f"{name}: {column} {value} counts as no {column} ({n:,} row{'s' * (n != 1)})"
            for (column, value), n in missing.items()
        ),
    ]


def read_rows(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a UTF-8 file, CSV with a header or one JSON object a line, without blank lines.

    A quoted CSV value may span lines: the row's number is that of its first. Raises `UserError`, lazily, at the first
    mistake: unreadable, not UTF-8, empty, no rows, broken CSV or JSON, a required column missing.
    """
    text = _read_text(path)
    if not text.strip():
        raise UserError(f"{path}: the file is empty; it needs one row a clip or text, with {', '.join(required)}")
    is_empty = True
    for number, record in (_json if path.suffix.lower() == ".jsonl" else _csv)(path, text, required):
        is_empty = False
        known = [column for column in (*required, *optional) if column in record]
        unused = tuple(column for column in record if column not in known and record[column] not in (None, ""))
        yield Row(path, number, {column: _value(path, number, column, record[column]) for column in known}, unused)
    if is_empty:
        raise UserError(f"{path}: a header and no rows; add one row a clip")


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = b"".join(lines_of(file))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise _error(path, row, f"not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8") from error


def _csv(path: Path, text: str, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    records = _csv_records(path, text)
    first, cells = next(records, (1, []))
    header = [cell.strip() for cell in cells]
    if missing := [column for column in required if column not in header]:
        raise _error(
            path,
            first,
            f"no column {', '.join(missing)} in the header, which reads {short_repr(','.join(header))}; "
            "name the columns there, separated by commas",
        )
    if repeated := [column for column in header if column and header.count(column) > 1]:
        raise _error(path, first, f"column {escape(repeated[0])} is there twice; keep one")
    for number, cells in records:
        if any(cell.strip() for cell in cells[len(header) :]):
            raise _error(
                path,
                number,
                f"{len(cells)} values for {len(header)} columns; put a value that holds a comma in double quotes",
            )
        yield number, dict.fromkeys(header, "") | dict(zip(header, map(str.strip, cells), strict=False))


def _csv_records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        hint = "double quotes enclose a whole value, and one inside it is written twice"
        raise _error(path, number, f"broken CSV ({error}); {hint}") from error


def _json(path: Path, text: str, required: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    # str.splitlines would also split at U+2028 and the like, which JSON allows inside a string
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except (RecursionError, ValueError) as error:
            raise _error(path, number, f"broken JSON ({error}); write one flat object a line") from error
        if not isinstance(record, dict):
            raise _error(path, number, "not a JSON object; write one object a line")
        if missing := [column for column in required if column not in record]:
            raise _error(path, number, f"no {', '.join(missing)}; every row needs {', '.join(required)}")
        yield number, record


def _value(path: Path, number: int, column: str, value: Any) -> str:
    if value is None or value != value:  # NaN, which pandas has for a missing value
        return ""
    if type(value) is int:
        return str(value)  # ids are often written as bare numbers
    if not isinstance(value, str):
        raise _error(path, number, f"{column} is {short_repr(value)}; write it as text in double quotes")
    if not can_be_written(value):
        raise _error(path, number, f"{column} {short_repr(value)} holds half a surrogate pair; write the whole letter")
    # A path stays as it is written: a folder may hold both forms of a name.
    return value.strip() if column == "path" else nfc(value.strip())
