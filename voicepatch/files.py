"""How the files of a run are written: whole, in their own directory, and under a name fit for every system.

    write_whole(run / "patching_metrics_prosody.csv", table.to_csv())
    append(run / "patching_records_prosody.jsonl", lines)

A run may be killed and its disk may be full at any moment, and a directory that was handed on may hold anything:
nothing is written through a symbolic link, and a name that leads elsewhere is an error.
"""

import errno
import os
import platform
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from voicepatch.errors import CannotWrite, UserError

CONFIG = "patching_config.json"
PARTIAL = ".partial"
REPLACED = "replaced-"  # and a number: a folder with an experiment that was replaced
OUR_PARTIAL = re.compile(rf"[a-z_]+[\w-]*\.(json|jsonl|csv|png|svg|html)\.(?:(?P<host>[\w-]+)\.)?(?P<pid>\d+){PARTIAL}")
HOST = re.sub(r"[^\w-]", "-", platform.node(), flags=re.ASCII)
MAX_LINE = 2**20  # bytes of one line of data or records
MAX_DOCUMENT = 2**26  # bytes of a JSON file
MOST_SECONDS = 3600  # that another host may take to write one file
WAY_OUT = "make room, see to its folder and permissions, or pass another --out"
FIT_FOR_A_NAME = re.compile(r"\w[\w-]{0,99}")


def write_whole(path: Path, content: str | bytes, option: str = "--out") -> Path:
    """Write a file as a whole or not at all, and give its path; a link of that name is replaced, not followed.

    Text is UTF-8, its line ends as they are. Raises `UserError` where it cannot be
    written, which names the option that leads elsewhere.
    """
    # Of this process alone: `report` may write beside a run that goes on.
    temporary = path.with_name(f"{path.name}.{HOST}.{os.getpid()}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise cannot_be_written(path, error, option) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def check_writable(path: Path) -> None:
    """Raise `CannotWrite` where `write_whole` could not make a file."""
    write_whole(path.with_name(f"{path.name}.try"), "").unlink()


def append(path: Path, text: str) -> None:
    """Add text to a file of the directory, down to the disk; `UserError` for a link, and where it cannot be written."""
    try:
        with open(path, "ab", opener=_open_no_link) as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_be_written(path, error) from None


def cut(path: Path, size: int) -> None:
    """Make a file `size` bytes long, down to the disk, unless it is; `UserError` as `append`."""
    try:
        with open(path, "r+b", opener=_open_no_link) as file:
            if os.fstat(file.fileno()).st_size != size:
                file.truncate(size)
                os.fsync(file.fileno())
    except OSError as error:
        raise cannot_be_written(path, error) from None


def _open_no_link(path: str, flags: int) -> int:
    if os.path.islink(path):  # for a system without O_NOFOLLOW
        raise OSError(errno.ELOOP, "it is a symbolic link", path)
    # A pipe without a reader is an error then, and is not waited for.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


def open_regular(path: Path) -> BinaryIO:
    """A file open for reading; `OSError` for a folder, a device or a pipe, which would wait for a writer."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file")
    return file


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; `UserError` at a line of over `MAX_LINE` bytes, of which no more is read."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise UserError(
                f"{file.name}: line {number}: is longer than {MAX_LINE:,} bytes; check that it is the right file"
            )
        yield line


def content_of(file: BinaryIO) -> bytes:
    """The content of a JSON file; `ValueError` for one of over `MAX_DOCUMENT` bytes, which is not read."""
    if os.fstat(file.fileno()).st_size > MAX_DOCUMENT:
        raise ValueError(f"is larger than {MAX_DOCUMENT:,} bytes")
    return file.read()


def cannot_be_written(path: Path, error: OSError, option: str = "--out") -> CannotWrite:
    """The error to raise for a full or read-only disk, or a link or folder where a file should be."""
    return CannotWrite(f"{path}: cannot be written ({error.strerror}); {WAY_OUT.replace('--out', option)}")


def remove_partial(folder: Path) -> None:
    """Remove what a killed process of this program had half written.

    No other program's files, and none that a process is still writing, such as a report beside a run that starts.
    """
    for path in folder.glob(f"*{PARTIAL}"):
        ours = OUR_PARTIAL.fullmatch(path.name)
        with suppress(OSError):
            if ours and not _is_written(path, ours["host"], int(ours["pid"])):
                path.unlink()


def process_exists(pid: int) -> bool:
    """Whether a process of this machine has this number."""
    import psutil  # needed only where something was left behind

    return psutil.pid_exists(pid)


def _is_written(path: Path, host: str | None, pid: int) -> bool:
    if host in (None, HOST):
        return process_exists(pid)
    return time.time() - path.lstat().st_mtime < MOST_SECONDS


def check_name(name: str, where: object) -> None:
    """Raise `UserError` for a name that does not stay in its directory or is none on some system."""
    if not isinstance(name, str) or not FIT_FOR_A_NAME.fullmatch(name):
        raise UserError(
            f"{where}: an experiment is called {str(name)[:60]!r}, which cannot be part of a file's name; "
            "use at most 100 letters, digits, _ and -"
        )
