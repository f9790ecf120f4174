"""The one reader of a run's files: each is as it is declared, or is refused in one line that names file and line.

    read_document(run / "sanity_check_engine.json")      # {} where there is none
    read_config(run)["experiments"]
    for number, row in read_rows(path, PairRow): ...

`runs.kept` says whether the files of an experiment hold together. Neither needs torch or pandas.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from errors import UserError
from files import CONFIG, check_name
from models.labels import LABELS
from runs.document_types import DOCUMENTS
from runs.row_types import Keys

COMPLETE = "run the same command again to complete it"
ANEW = "run that experiment again with --overwrite"
MOVE_AWAY = "move it away and run the same command again"
BLOCK = 1 << 21  # bytes that are decoded at a time
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def read_document(path: Path) -> dict[str, Any]:
    """A file that is one JSON object, as its name declares it; `{}` where there is none."""
    file = _opened(path, MOVE_AWAY)
    if file is None:
        return {}
    with file:
        content = file.read()
    if path.name == CONFIG:
        _check_names(path, content)
    wrong = _wrong_bytes(content) or _wrong(content, msgspec.json.Decoder(DOCUMENTS[path.name]))
    if wrong:
        raise UserError(f"{path}: is damaged ({wrong}); {MOVE_AWAY}")
    return msgspec.json.decode(content)


def read_config(run: Path) -> dict[str, Any]:
    """`patching_config.json` of a run, or `{}`; `UserError` where a name in it cannot be part of a file's name."""
    config = read_document(run / CONFIG)
    if config and sorted(config["labels"]["order"]) != sorted(LABELS):
        raise UserError(f"{run / CONFIG}: is damaged (labels.order is not each of {', '.join(LABELS)}); {MOVE_AWAY}")
    return config


def read_rows(path: Path, declared: type[Keys], way_out: str, ends: bool = True) -> Iterator[tuple[int, Any]]:
    """The lines of a file as rows of a declaration, each with its number from 1; see `read_blocks`."""
    for number, rows in read_blocks(path, declared, way_out, ends):
        yield from enumerate(rows, start=number)


def read_blocks(path: Path, declared: type[Keys], way_out: str, ends: bool = True) -> Iterator[tuple[int, list[Any]]]:
    """The lines of a file as rows of a declaration, about `BLOCK` bytes at a time, with the number of the first line.

    Nothing where there is no file. Without `ends` the file may still grow, and what follows its last line end is left
    out. Raises `UserError`, lazily, at the first line that is not as declared, after the rows before it.
    """
    file, decoder = _opened(path, way_out), msgspec.json.Decoder(declared)
    if file is None:
        return
    decode, number, rest = decoder.decode, 1, b""
    with file:
        while content := file.read(BLOCK):
            content = rest + content
            *lines, rest = content.split(b"\n")
            try:
                if b"\r\n" in content:
                    raise ValueError
                rows = list(map(decode, lines))
            except (ValueError, RecursionError):
                rows, line = _up_to_wrong(lines, decode)
                yield number, rows
                number += len(rows)
                raise line_error(path, number, _wrong_line(line, number, decoder), way_out) from None
            yield number, rows
            number += len(lines)
    if rest and ends:
        raise line_error(path, number, "has no line end, so it may be torn", way_out)


def _up_to_wrong(lines: Sequence[bytes], decode: Callable[[bytes], Any]) -> tuple[list[Any], bytes]:
    """The rows of the lines before the first that is wrong, and that line."""
    rows: list[Any] = []
    for line in lines:
        try:
            if line.endswith(b"\r"):
                break
            rows.append(decode(line))
        except (ValueError, RecursionError):
            break
    return rows, line


def has_line(path: Path) -> bool:
    """Whether a file has a whole line."""
    file = _opened(path, MOVE_AWAY)
    if file is None:
        return False
    with file:
        return file.readline().endswith(b"\n")


def offset_of_line(path: Path, number: int) -> int:
    """How many bytes of a file the first `number` lines take."""
    file = _opened(path, MOVE_AWAY)
    if file is None:
        return 0
    with file:
        return sum(map(len, islice(file, number)))


def read_chunks(path: Path) -> Iterator[bytes]:
    """The content of a file, a block at a time, to copy it."""
    file = _opened(path, MOVE_AWAY)
    if file is not None:
        with file:
            yield from iter(partial(file.read, BLOCK), b"")


def line_error(path: Path, number: int, wrong: str, way_out: str) -> UserError:
    """The error to raise for what is wrong in one line of a file."""
    return UserError(f"{path}: line {number}: {wrong}; {way_out}")


def as_written(row: Keys) -> dict[str, Any]:
    """A row as the object that was read."""
    return msgspec.to_builtins(row)


def _opened(path: Path, way_out: str) -> BinaryIO | None:
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: cannot be read (it is no file); {way_out}")
        return path.open("rb")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from None


def _wrong_bytes(content: bytes) -> str:
    """What is wrong with the text of a file, whatever it says; "" where nothing is."""
    if not content:
        return "it is empty"
    if content.startswith(_BYTE_ORDER_MARKS):
        return "starts with a byte-order mark"
    if b"\r\n" in content:
        return "its lines end in CR LF, where the program writes LF alone"
    return ""


def _wrong_line(line: bytes, number: int, decoder: msgspec.json.Decoder) -> str:
    if line.endswith(b"\r"):
        return "ends in CR LF, where the program writes LF alone"
    wrong = _wrong_bytes(line) if number == 1 and line else ""
    return wrong or ("" if line.strip() else "is blank") or _wrong(line, decoder)


def _wrong(content: bytes, decoder: msgspec.json.Decoder) -> str:
    """Why a text is not what its declaration says; "" where it is."""
    try:
        content.decode()
        decoder.decode(content)
    except UnicodeDecodeError as error:
        return f"is not UTF-8 (byte 0x{content[error.start]:02x})"
    except RecursionError:
        return "is nested too deeply"
    except msgspec.DecodeError as error:
        return str(error)
    return ""


def _check_names(path: Path, content: bytes) -> None:
    """A name that leads elsewhere is refused as such, whatever else is wrong."""
    try:
        experiments = msgspec.json.decode(content)["experiments"]
        names = [(name, settings.get("kind", name)) for name, settings in experiments.items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return
    for name, kind in names:
        check_name(name, path)
        check_name(kind, path)
