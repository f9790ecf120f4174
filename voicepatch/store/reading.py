"""Reads the files of a run: each is as declared, or one line names the file and the line.

    read_config(run)["experiments"]
    read_document(run / "sanity_check_engine.json")      # {} where there is none
    for number, row in read_rows(path, FailedPair, MOVE_AWAY): ...

No other module opens a file of a run to read it. Needs neither torch nor pandas.
"""

import csv
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from voicepatch.errors import UserError
from voicepatch.files import CONFIG, check_name, content_of, lines_of, open_regular
from voicepatch.json_text import parse_json
from voicepatch.program import VERSION, program_hash
from voicepatch.store.documents import DOCUMENTS
from voicepatch.text import escape
from voicepatch.types.task import task_of

if TYPE_CHECKING:
    import pandas as pd

COMPLETE = "run the same command again to complete it"
OVERWRITE = "run that experiment again with --overwrite"
MOVE_AWAY = "move it away and run the same command again"


def read_document(path: Path) -> dict[str, Any]:
    """A file that is one JSON object, as its name declares it; `{}` where there is none."""
    file = _opened(path, MOVE_AWAY)
    if file is None:
        return {}
    try:
        with file:
            content = content_of(file)
        found = msgspec.json.decode(content)
        parse_json(content.decode())  # msgspec takes the last of two values of a key
    except (ValueError, RecursionError) as error:
        raise _damaged(path, _reason(error)) from None
    if path.name == CONFIG:
        _refuse_other_version(path, found)
    try:
        msgspec.convert(found, DOCUMENTS[path.name])
    except (ValueError, RecursionError) as error:
        if path.name == CONFIG:
            _refuse_other_fields(path, found, _reason(error))
        raise _damaged(path, _reason(error)) from None
    return found


def read_table(path: Path) -> list[dict[str, str]] | None:
    """The rows of a CSV file by column; None where there is none. `ValueError` for what is no such file."""
    file = _opened(path, MOVE_AWAY)
    if file is None:
        return None
    try:
        with file:
            return list(csv.DictReader(content_of(file).decode().splitlines()))
    except csv.Error as error:
        raise ValueError(str(error)) from None


def read_config(run: Path) -> dict[str, Any]:
    """`patching_config.json` of a run, or `{}`; `UserError` where a name in it cannot be part of a file's name."""
    path = run / CONFIG
    config = read_document(path)
    if not config:
        return config
    task = config["task"]
    if task_of(task).sha256 != task["sha256"]:
        raise _damaged(path, "the task does not have its sha256")
    if config["labels"]["order"] != task["labels"]:
        raise _damaged(path, f"labels.order is not {', '.join(task['labels'])}, the labels of the task")
    if len(set(config["labels"]["token_ids"])) != len(task["labels"]):
        raise _damaged(path, "labels.token_ids does not have one token for each label")
    for name in config["experiments"]:
        check_name(name, path)
    return config


def read_frame(path: Path) -> "pd.DataFrame":
    """A table that the program wrote, as CSV; `UserError` where it cannot be read."""
    import pandas as pd

    again = "make it again with `python cli.py report`"
    file = _opened(path, again)
    if file is None:
        raise UserError(f"{path}: is not there; {again}")
    with file:
        try:
            return pd.read_csv(file)
        except ValueError as error:
            raise UserError(f"{path}: cannot be read as a table ({escape(str(error))}); {again}") from None


def read_rows(path: Path, declared: Any, way_out: str, complete: bool = True) -> Iterator[tuple[int, Any]]:
    """The lines of a file as rows of a declaration, each with its number from 1; none where there is no file.

    Of a file that is not complete, text after the last line end is ignored: it may be half a line. Raises `UserError`
    at the first line that is not as declared.
    """
    file, decode = _opened(path, way_out), msgspec.json.Decoder(declared).decode
    if file is None:
        return
    with file:
        for number, line in enumerate(lines_of(file), start=1):
            if not line.endswith(b"\n") and not complete:
                return
            if not line.endswith(b"\n"):
                raise line_error(path, number, "has no line end, so part of it may be missing", way_out)
            try:
                row = decode(line)
                # A key that is there twice is not written again. To parse each line a second time would take long.
                if line.count(b'"') != msgspec.json.encode(row).count(b'"'):
                    parse_json(line.decode())
            except (ValueError, RecursionError) as error:
                reason = getattr(error, "msg", None) or _reason(error)  # without a second line number
                raise line_error(path, number, reason, way_out) from None
            yield number, row


def has_line(path: Path) -> bool:
    """Whether a file has a complete line."""
    return offset_of_line(path, 1) > 0


def offset_of_line(path: Path, number: int) -> int:
    """How many bytes of a file the first `number` lines take, of those that are complete."""
    file = _opened(path, MOVE_AWAY)
    if file is None:
        return 0
    with file:
        return sum(len(line) for line in islice(lines_of(file), number) if line.endswith(b"\n"))


def whole_lines(path: Path) -> int:
    """How many bytes of a file its complete lines take."""
    return offset_of_line(path, sys.maxsize)


def hash_of(paths: Iterable[Path]) -> str:
    """sha256 over several files, of those that are there."""
    total = hashlib.sha256()
    for path in paths:
        if file := _opened(path, OVERWRITE):
            with file:
                total.update(hashlib.file_digest(file, "sha256").digest())  # type: ignore[arg-type]
    return total.hexdigest()


def line_error(path: Path, number: int, wrong: str, way_out: str) -> UserError:
    """The error to raise for what is wrong in one line of a file."""
    return UserError(f"{path}: line {number}: {wrong}; {way_out}")


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: is damaged ({why}); {MOVE_AWAY}")


def _opened(path: Path, way_out: str) -> BinaryIO | None:
    try:
        return open_regular(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions, or {way_out}") from None


def _commands_of(config: Any) -> dict[str, Any]:
    """What ran in a run, and what it records of itself."""
    ran = {f"experiment {name}": settings for name, settings in config["experiments"].items()}
    return ran | ({"command answers": config["answers"]} if "answers" in config else {})


def _refuse_other_fields(path: Path, config: Any, reason: str) -> None:
    """`UserError` for a run whose settings lack some of this program's or have others, if its code was another one."""
    with suppress(TypeError, KeyError, AttributeError):  # then it is damaged
        codes = {settings["program_sha256"] for settings in _commands_of(config).values()}
        if codes - {program_hash()} and re.search("missing required field|unknown field", reason):
            raise UserError(
                f"{path}: the run was made with other code of the program, whose settings differ ({reason}); keep the "
                "folder and read it with that code, or run into another --out"
            )


def _refuse_other_version(path: Path, config: Any) -> None:
    """`UserError` for a run of another version of the program, whatever else this version has against it."""
    with suppress(TypeError, KeyError, AttributeError):  # then it is damaged
        for name, settings in _commands_of(config).items():
            version = settings["versions"].get("voicepatch", "an earlier one")
            if version != VERSION:
                raise UserError(
                    f"{path}: {escape(name)} was run with another version of the program ({version}; "
                    f"this is {VERSION}); use that version, or pass another --out"
                )


def _reason(error: Exception) -> str:
    """What is wrong with a text that is not as declared."""
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 (byte 0x{error.object[error.start]:02x})"
    return "is nested too deeply" if isinstance(error, RecursionError) else str(error)
