"""The sha256 of files, computed once as long as a file does not change.

file_hash(path)
"""

import hashlib
import io
import os
import time
from pathlib import Path
from typing import BinaryIO, cast

from voicepatch.files import open_regular

Stamp = tuple[int, ...]  # a file's identity, size and times: equal as long as nothing has written to it
_hashes: dict[Stamp, str] = {}
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
    known = _hashes.get(stamp)
    if known is None:
        known = _sha256(content)
        if is_settled(stamp):
            _hashes[stamp] = known
    return known


def is_settled(stamp: Stamp) -> bool:
    """Whether the next change of the file will show in its stamp: times have a resolution."""
    return time.time_ns() - max(stamp[-2:]) > RESOLUTION


def _sha256(content: BinaryIO) -> str:
    return hashlib.file_digest(cast(io.BufferedIOBase, content), "sha256").hexdigest()
