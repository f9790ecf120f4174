"""Rows of a table of clips or texts, each with its number.

    rows = rows_by(read_rows(Path("manifest.csv"), required=("clip_id", "text"), optional=("speaker",)), "clip_id")
    rows["c1"].required("text"), rows["c1"].optional("speaker")

A row checks its own values, so that an error can name it.
"""

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pairs.record_files import NO_NAMES, records_of, row_error
from voicepatch.errors import UserError, can_be_written
from voicepatch.text import escape, nfc, short_repr
from voicepatch.types.record import PairRow, column_key
from voicepatch.types.task import OF_EVERY_CLIP, Task

# What pandas and its like write for a value that is missing.
NO_VALUE = ("", "nan", "NaN", "-nan", "-NaN", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `number` counts the file's lines from 1, `values` holds the known columns that it has.

    Values are stripped and, except for paths, in composed letters. `further` are the other columns that hold something,
    and `unused` those of them that have no name, hold a list or an object, or have no meaning in this file.
    """

    path: Path
    number: int
    values: dict[str, str]
    further: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, str]:
        """The further columns that have a value."""
        return {column: value for column, value in self.further.items() if value not in NO_VALUE}

    def error(self, message: str) -> UserError:
        return row_error(self.path, self.number, message)

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
        return {"text": self.required("text"), "columns": self.columns, **self.label_of_words(task), **optional}


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
    """What is not used of a file's rows, names that look like an optional column's, and words for a missing value."""
    rows = list(rows)
    unused = dict.fromkeys(escape(column) or "one without a name" for row in rows for column in row.unused)
    missing = Counter(
        (column, value)
        for row in rows
        for column in (*optional, *row.further)
        if (value := (row.values | row.further).get(column)) and value in NO_VALUE
    )
    name = rows[0].path.name
    warnings = [f"{name}: columns that are not used: {', '.join(unused)}; optional columns are {', '.join(optional)}"]
    return [
        *(warnings if unused else []),
        *_look_alikes(rows, optional),
        *(
            f"{name}: {escape(column)} {value} counts as no {escape(column)} ({n:,} row{'s' * (n != 1)})"
            for (column, value), n in missing.items()
        ),
    ]


def _look_alikes(rows: Sequence[Row], optional: Sequence[str]) -> list[str]:
    """A warning for each further column whose name is close to that of an optional one that the file lacks."""
    lacking = [column for column in optional if not any(column in row.values for row in rows)]
    close = {
        column: difflib.get_close_matches(column.casefold(), lacking, n=1)
        for column in dict.fromkeys(column for row in rows for column in row.further)
    }
    return [
        f"{rows[0].path.name}: column {escape(column)} does not count as {names[0]}; if it is that, call it {names[0]}"
        for column, names in close.items()
        if names
    ]


def read_rows(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    elsewhere: Sequence[str] = (),
    names: Mapping[str, str] = NO_NAMES,
) -> Iterator[Row]:
    """The rows of a table that `pairs.record_files` reads; `names` are those columns that the data call otherwise.

    `elsewhere` are columns that another file of the data gives; here they are not used, as those of every clip are not.
    Raises `UserError`, lazily, at the first mistake.
    """
    for number, record in records_of(path, required, names):
        known = [column for column in (*required, *optional) if column in record]
        others = [column for column in record if column not in known and record[column] not in (None, "")]
        without_meaning = ("", *OF_EVERY_CLIP, *elsewhere)
        unused = tuple(one for one in others if one in without_meaning or isinstance(record[one], (list, dict)))
        further = {
            _checked_name(path, number, column): _value(path, number, column, _as_text(record[column]))
            for column in others
            if column not in unused
        }
        values = {column: _value(path, number, column, record[column]) for column in known}
        yield Row(path, number, values, further, unused)


def _checked_name(path: Path, number: int, column: str) -> str:
    """A further column's name; `UserError` where no pair list can have it."""
    if not column.isprintable():
        raise row_error(path, number, f"the name of column {short_repr(column)} is not printable; rename the column")
    key = column_key(column, "a")
    # The labels of another task keep their names. Any other name of the pair list's own would be taken for it.
    if key.removeprefix("data_") in PairRow.__struct_fields__ and column not in ("prosody_label", "semantic_label"):
        raise row_error(
            path, number, f"column {column} is {key} in the pair list, which has its own; rename the column"
        )
    return nfc(column)


def _as_text(value: Any) -> Any:
    """A true or false, or a number with a fraction, as JSON writes it; any other value as it is."""
    return json.dumps(value) if isinstance(value, (bool, float)) and value == value else value


def _value(path: Path, number: int, column: str, value: Any) -> str:
    if value is None or value != value:  # NaN, which pandas has for a missing value
        return ""
    if type(value) is int:
        return str(value)  # ids are often written as bare numbers
    if not isinstance(value, str):
        raise row_error(path, number, f"{column} is {short_repr(value)}; write it as text in double quotes")
    if not can_be_written(value):
        raise row_error(
            path, number, f"{column} {short_repr(value)} holds half a surrogate pair; write the whole letter"
        )
    # A path stays as it is written: a folder may hold both forms of a name.
    return value.strip() if column == "path" else nfc(value.strip())
