"""Rows of a CSV or JSONL file, each with the line number an editor shows.

    for row in read_rows(Path("manifest.csv"), required=("clip_id", "text"), optional=("speaker",)):
        row.required("clip_id"), row.optional("speaker")

What a row must hold is asked of the row, so that the error can name it.
"""

import csv
import difflib
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from voicepatch.errors import UserError, can_be_written
from voicepatch.text import escape, nfc, short_repr
from voicepatch.types.task import Task

MAX_BYTES = 2**28  # some million rows; a larger file is no manifest
# What pandas and its like write for a value that is missing.
NO_VALUE = ("", "nan", "NaN", "-nan", "-NaN", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None")
# Names that the field's tables have for columns which may be left out here.
OTHER_NAMES = {
    "speaker": ("spk", "spkr", "actor", "talker", "voice", "singer", "subject"),
    "language": ("lang", "locale"),
    "text_type": ("type", "explicitness"),
    "text": ("transcript", "transcription", "sentence", "words"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `number` counts the file's lines from 1, `values` holds the known columns that it has.

    Values are stripped and, but for paths, in composed letters. `unused` are the other columns that hold something.
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

    def words_label(self, task: Task) -> str | None:
        """The label of the words, None where the task has no column for it."""
        return None if task.words is None else self.label(task.words, task)

    def words_spelling(self, task: Task) -> str:
        return "" if task.words is None else self.required(task.words)


def _error(path: Path, number: int, message: str) -> UserError:
    return UserError(f"{path}: row {number}: {message}")


def warnings_of(rows: Iterable[Row], optional: Sequence[str]) -> list[str]:
    """What is not used of a file's rows: words for a missing value, and columns that are not known.

    A column that may be a known one under another name comes first, in a line of its own.
    """
    path = Path()
    lacking: dict[str, set[str]] = {}
    no_value: dict[tuple[str, str], int] = {}
    for row in rows:
        path = row.path
        for column in row.unused:
            lacking.setdefault(column, set()).update(known for known in optional if known not in row.values)
        for column in optional:
            if (value := row.values.get(column)) and value in NO_VALUE:
                no_value[column, value] = no_value.get((column, value), 0) + 1
    meant = {column: known for column in lacking if (known := _meant(column, sorted(lacking[column])))}
    others = [escape(column) or "one without a name" for column in lacking if column not in meant]
    return [
        *(
            f"{path.name}: column {escape(column)} is not used, and column {known} is missing; did you mean {known}? "
            "Rename it then"
            for column, known in meant.items()
        ),
        *([f"{path.name}: columns that are not used: {', '.join(others)}"] if others else []),
        *(
            f"{path.name}: {column} {value} counts as no {column} ({n:,} row{'s' * (n != 1)})"
            for (column, value), n in no_value.items()
        ),
    ]


def _meant(column: str, missing: Sequence[str]) -> str | None:
    """The missing column that `column` seems to be under another name."""
    name = column.casefold().replace("-", "_").replace(" ", "_")
    for known in missing:
        if name.removesuffix("_id").removesuffix("_name") in (known, *OTHER_NAMES.get(known, ())):
            return known
    return next(iter(difflib.get_close_matches(name, missing, n=1, cutoff=0.75)), None)


def read_rows(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a UTF-8 file, CSV with a header or one JSON object a line, without blank lines.

    A quoted CSV value may span lines: the row's number is that of its first. Raises `UserError`, lazily, at the first
    mistake: unreadable, not UTF-8, empty, no rows, broken CSV or JSON, a required column missing.
    """
    text = _read_text(path)
    if not text.strip():
        raise UserError(f"{path}: the file is empty; it needs one row a clip or text, with {', '.join(required)}")
    rows = _jsonl_rows if path.suffix.lower() == ".jsonl" else _csv_rows
    empty = True
    for row in rows(path, text, required, optional):
        empty = False
        yield row
    if empty:
        raise UserError(f"{path}: a header and no rows; add one row a clip")


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES >> 20} MiB, so no list of clips; give the manifest")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise _error(path, row, f"not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8") from error
    if "\0" in text:  # valid UTF-8, but in practice UTF-16 without its mark, or no text at all
        row = data[: data.index(0)].count(b"\n") + 1
        raise _error(path, row, "not text (it holds a zero byte); save the file as UTF-8")
    return text


def _csv_rows(path: Path, text: str, required: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    records = _csv_records(path, text)
    header_number, cells = next(records, (1, []))
    header = [cell.strip() for cell in cells]
    missing = [column for column in required if column not in header]
    if missing:
        raise _error(
            path,
            header_number,
            f"no column {', '.join(missing)} in the header, which reads {short_repr(','.join(header))}; "
            "name the columns there, separated by commas",
        )
    known = [column for column in header if column in required or column in optional]
    for column in known:
        if known.count(column) > 1:
            raise _error(path, header_number, f"column {column} is there twice; keep one")
    for number, cells in records:
        if any(cell.strip() for cell in cells[len(header) :]):
            raise _error(
                path,
                number,
                f"{len(cells)} values for {len(header)} columns; put a value that holds a comma in double quotes",
            )
        values = dict.fromkeys(header, "") | dict(zip(header, (cell.strip() for cell in cells), strict=False))
        unused = tuple(column for column in values if column not in known and values[column])
        yield Row(path, number, {column: _composed(column, values[column]) for column in known}, unused)


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


def _jsonl_rows(path: Path, text: str, required: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    # str.splitlines would also split at U+2028 and the like, which JSON allows inside a string
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_once)
        except RecursionError as error:
            raise _error(path, number, "JSON nested too deeply; write one flat object a line") from error
        except ValueError as error:
            raise _error(path, number, f"broken JSON ({error}); write one object a line") from error
        if not isinstance(record, dict):
            raise _error(path, number, "not a JSON object; write one object a line")
        missing = [column for column in required if column not in record]
        if missing:
            raise _error(path, number, f"no {', '.join(missing)}; every row needs {', '.join(required)}")
        known = [column for column in (*required, *optional) if column in record]
        values = {}
        for column in known:
            value = record[column]
            if value is None or (column in optional and isinstance(value, float) and math.isnan(value)):
                value = ""
            elif isinstance(value, int) and not isinstance(value, bool):
                value = str(value)  # ids are often written as bare numbers
            elif not isinstance(value, str):
                raise _error(path, number, f"{column} is {short_repr(value)}; write it as text in double quotes")
            values[column] = _composed(column, value.strip())
            if not can_be_written(values[column]):
                raise _error(
                    path, number, f"{column} {short_repr(value)} holds half a surrogate pair; write the whole letter"
                )
        unused = tuple(column for column in record if column not in known and record[column] not in (None, ""))
        yield Row(path, number, values, unused)


def _composed(column: str, value: str) -> str:
    """A path stays as it is written: a folder may hold both forms of a name."""
    return value if column == "path" else nfc(value)


def _once(items: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object whose keys are all different: of two values, one would be lost."""
    record = dict(items)
    if len(record) < len(items):
        keys = [key for key, _ in items]
        raise ValueError(f"{short_repr(next(key for key in keys if keys.count(key) > 1))} is there twice")
    return record
