"""The sha256 of files, computed once as long as a file does not change; that of a large file once for all commands.

file_hash(path)
"""

import hashlib
import io
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from voicepatch.errors import CannotWrite
from voicepatch.files import open_regular, write_whole
from voicepatch.paths import CACHE

Stamp = tuple[int, ...]  # a file's identity, size and times: equal as long as nothing has written to it
_hashes: dict[Stamp, str] = {}
LARGE = 2**26  # bytes of a file whose hash is kept for later commands
RESOLUTION = 2_000_000_000  # of a file's times in nanoseconds, at worst (FAT)


def stamp_of(file: BinaryIO) -> Stamp:
    """What tells an open file from another one, and from itself before it was written to."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def file_hash(path: Path) -> str:
    """sha256 of a file, in hex, computed once as long as the file does not change; `OSError` if it is unreadable."""
    with open_regular(path) as file:
        return content_hash(stamp_of(file), file)


def content_hash(stamp: Stamp, content: BinaryIO) -> str:
    """sha256 of a file's content, in hex; `content` is read if no hash of a file with this `stamp` is known."""
    known = _hashes.get(stamp) or _stored(stamp)
    if known is None:
        known = _sha256(content)
        if is_settled(stamp):
            _store(stamp, known)
    return known


def _stored(stamp: Stamp) -> str | None:
    """The hash of a large file that an earlier command computed, if any."""
    if stamp[2] >= LARGE:
        with suppress(OSError, ValueError):
            found = _place(stamp).read_text("ascii")
            return found if re.fullmatch("[0-9a-f]{64}", found) else None
    return None


def _store(stamp: Stamp, sha256: str) -> None:
    _hashes[stamp] = sha256
    if stamp[2] >= LARGE:
        with suppress(CannotWrite):  # without a cache, the next command computes it again
            write_whole(_place(stamp), sha256)


def _place(stamp: Stamp) -> Path:
    return CACHE / "hashes" / "-".join(map(str, stamp))


def is_settled(stamp: Stamp) -> bool:
    """Whether the next change of the file will show in its stamp: times have a resolution."""
    return time.time_ns() - max(stamp[-2:]) > RESOLUTION


def _sha256(content: BinaryIO) -> str:
    return hashlib.file_digest(cast(io.BufferedIOBase, content), "sha256").hexdigest()
