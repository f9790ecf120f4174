"""Tables on disk as records: CSV with a header, one JSON object a line, or a Hugging Face data set.

    for number, record in records_of(Path("clips.csv"), required=("clip_id", "text")): record["text"]
    records_of(path, required, {"text": "transcription"})      # the data call the column text otherwise

A number counts the lines of a file from 1, as an editor does, or the rows of a data set. A CSV file has the separator
(comma, semicolon or tab) with which its header names the most of the required columns.
"""

import csv
import difflib
import io
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pairs.hugging_face import is_hugging_face, original, unpack, unpacked_before
from voicepatch.errors import UserError
from voicepatch.files import lines_of
from voicepatch.json_text import parse_json
from voicepatch.text import escape, listing

SUFFIXES = (".csv", ".tsv", ".jsonl")
SEPARATORS = (",", ";", "\t")
NO_NAMES: Mapping[str, str] = MappingProxyType({})
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # the marks that such a file begins with

Records = Iterator[tuple[int, dict[str, Any]]]
Check = Callable[[int, Iterable[str]], None]  # of the columns of a row


def row_error(path: Path, number: int, message: str) -> UserError:
    """The error to raise for what is wrong in one row."""
    return UserError(f"{path}: row {number}: {message}")


def records_of(path: Path, required: Sequence[str], names: Mapping[str, str] = NO_NAMES) -> Records:
    """The records of a table, without blank lines, with their columns called as the program calls them.

    `names` gives the data's name of such a column. A column of the data that has the name of another one then is
    called `original_NAME`. A quoted CSV value may span lines: the row's number is that of its first. Raises
    `UserError`, lazily, at the first mistake: unreadable, not UTF-8, empty, no rows, broken CSV or JSON, a required
    column missing, a column of `names` that the data do not have.
    """
    sound = names.get("path")
    if is_hugging_face(path):  # its sounds get paths when they are unpacked
        names = {name: theirs for name, theirs in names.items() if name != "path"}
    ours = {theirs: name for name, theirs in names.items()}
    seen: dict[str, None] = {}

    def check(number: int, columns: Iterable[str]) -> None:
        seen.update(dict.fromkeys(columns))
        missing = [column for column in required if names.get(column, column) not in columns]
        if missing:
            _check_names(path, names, seen)
            raise row_error(
                path,
                number,
                f"no column {', '.join(missing)}; its columns are {listing(columns) or 'none'}; name them so, or give "
                f"--columns {','.join(f'{column}=NAME' for column in missing)}",
            )

    number = None
    for number, record in _records(path, required, names, sound, check):
        yield number, _renamed(path, record, names, ours, required)
    if number is None:
        raise UserError(f"{path}: has no rows; add one row a clip")
    _check_names(path, names, seen)


def _renamed(
    path: Path, record: Mapping[str, Any], names: Mapping[str, str], ours: Mapping[str, str], required: Sequence[str]
) -> dict[str, Any]:
    """A record with the program's names; a required column may be another one too, as the text may be the text_id."""
    found = {}
    for name, value in record.items():
        if name in ours:
            found[ours[name]] = value
        if name in ours and (name in names or name not in required):
            continue
        found[original(path, name, record) if name in names else name] = value
    return found


def _check_names(path: Path, names: Mapping[str, str], columns: Iterable[str]) -> None:
    for name, theirs in names.items():
        if theirs not in columns:
            close = difflib.get_close_matches(theirs, columns, n=1)
            hint = f"did you mean {escape(close[0])}?" if close else f"its columns are {listing(columns)}"
            raise UserError(f"{path}: has no column {escape(theirs)}, which --columns gives for {name}; {hint}")


def _records(path: Path, required: Sequence[str], names: Mapping[str, str], sound: str | None, check: Check) -> Records:
    if is_hugging_face(path):
        return _of_data_set(path, sound, names, check)
    text = _read_text(path)
    if not text.strip():
        raise UserError(f"{path}: the file is empty; it needs one row a clip or text, with {', '.join(required)}")
    if path.suffix.lower() == ".jsonl":
        return _json(path, text, check)
    return _csv(path, text, [names.get(column, column) for column in required], check)


def _of_data_set(path: Path, sound: str | None, names: Mapping[str, str], check: Check) -> Records:
    """The rows of a data set; one without a clip_id gets its number, and one without a text_id its text."""
    for number, record in enumerate(unpack(path, sound).records, start=1):
        text = record.get(names.get("text", "text"), "")
        made = {"clip_id": f"row{number:06d}", "text_id": text} if text else {}
        record = {name: value for name, value in made.items() if name not in {**record, **names}} | record
        check(number, record)
        yield number, record


def warnings_of_data_set(path: Path, names: Mapping[str, str]) -> list[str]:
    """What a reader must know of how a data set was read."""
    unpacked = unpacked_before(path, names.get("path"))
    columns = {**unpacked.records[0], **names}
    made = {"clip_id": "the number of its row", "text_id": "its text"}
    return [
        *unpacked.warnings,
        *(
            f"the {name} of a clip is {what}, because the data have none"
            for name, what in made.items()
            if name not in columns
        ),
    ]


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = b"".join(lines_of(file))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from error
    try:
        return data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise row_error(
            path,
            row,
            f"not {error.encoding.upper()} (byte 0x{data[error.start]:02x}); save the file as UTF-8. A western "
            f"European file of Windows: iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(path.name)} > utf8{path.suffix}",
        ) from error


def _csv(path: Path, text: str, required: Sequence[str], check: Check) -> Records:
    separator = max(SEPARATORS, key=lambda one: len({*_header(path, text, one)[1]} & {*required}))
    first, header = _header(path, text, separator)
    check(first, header)
    if repeated := [column for column in header if column and header.count(column) > 1]:
        raise row_error(path, first, f"column {escape(repeated[0])} is there twice; keep one")
    for number, cells in islice(_csv_records(path, text, separator), 1, None):
        if any(cell.strip() for cell in cells[len(header) :]):
            raise row_error(
                path,
                number,
                f"{len(cells)} values for {len(header)} columns; put a value that holds the separator in double quotes",
            )
        yield number, dict.fromkeys(header, "") | dict(zip(header, map(str.strip, cells), strict=False))


def _header(path: Path, text: str, separator: str) -> tuple[int, list[str]]:
    number, cells = next(_csv_records(path, text, separator), (1, []))
    return number, [cell.strip() for cell in cells]


def _csv_records(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    number = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        hint = "double quotes enclose a whole value, and one inside it is written twice"
        raise row_error(path, number, f"broken CSV ({error}); {hint}") from error


def _json(path: Path, text: str, check: Check) -> Records:
    # str.splitlines would also split at U+2028 and the like, which JSON allows inside a string
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except (RecursionError, ValueError) as error:
            raise row_error(path, number, f"broken JSON ({error}); write one flat object a line") from error
        if not isinstance(record, dict):
            raise row_error(path, number, "not a JSON object; write one object a line")
        check(number, record)
        yield number, record
