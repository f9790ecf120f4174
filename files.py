"""How the files of a run are written: whole, in their own directory, and under a name fit for every system.

    write_whole(run / "patching_metrics_prosody.csv", table.to_csv())
    append(run / "patching_records_prosody.jsonl", lines)

A run may be killed and its disk may be full at any moment, and a directory that was handed on may hold anything:
nothing is written through a symbolic link, and a name that would lead elsewhere is refused.
"""

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

from errors import CannotWrite, UserError

CONFIG = "patching_config.json"
PARTIAL = ".partial"
OUR_PARTIAL = re.compile(rf"[a-z_]+[\w-]*\.(json|jsonl|csv|png|svg|html)\.\d+{PARTIAL}")
WAY_OUT = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room, or pass another --out"),
    errno.EISDIR: "a folder has its name; move that away, or pass another --out",
    errno.ELOOP: "remove the link, or pass another --out",
    errno.ENOENT: "the folder is gone; make it again, or pass another --out",
    errno.EEXIST: "a file or a link that leads nowhere has its name; remove it, or pass another --out",
}
OTHER_WAY_OUT = "see to its folder and permissions, or pass another --out"
FIT_FOR_A_NAME = re.compile(r"\w[\w-]{0,99}")


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write a file as a whole or not at all, and give its path; a link of that name is replaced, not followed.

    Text is UTF-8, its line ends as they are. Raises `UserError` where it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    # Of this process alone: `report` may write beside a run that goes on.
    temporary = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise cannot_be_written(path, error) from None
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


def _open_no_link(path: str, flags: int) -> int:
    if os.path.islink(path):  # for a system without O_NOFOLLOW
        raise OSError(errno.ELOOP, "it is a symbolic link", path)
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def cannot_be_written(path: Path, error: OSError) -> CannotWrite:
    """The error to raise for a full or read-only disk, or a link or folder where a file should be."""
    return CannotWrite(f"{path}: cannot be written ({error.strerror}); {WAY_OUT.get(error.errno, OTHER_WAY_OUT)}")


def remove_partial(folder: Path) -> None:
    """Remove what a killed process of this program had half written, and no other program's files."""
    for path in folder.glob(f"*{PARTIAL}"):
        if OUR_PARTIAL.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


def check_name(name: str, where: object) -> None:
    """Raise `UserError` for a name that does not stay in its directory or is none on some system."""
    if not isinstance(name, str) or not FIT_FOR_A_NAME.fullmatch(name):
        raise UserError(
            f"{where}: an experiment is called {str(name)[:60]!r}, which cannot be part of a file's name; "
            "use at most 100 letters, digits, _ and -"
        )
