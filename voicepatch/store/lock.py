"""One process at a time in a run directory.

    with only_user(run.path): ...

The system's own file lock decides, which ends with its process, however that ends. A note beside it says who holds it;
it also guards a directory shared between machines, where such a lock may not reach.
"""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from voicepatch.errors import UserError
from voicepatch.files import cannot_be_written, process_exists, remove_partial, write_whole
from voicepatch.store.reading import read_document

LOCK = ".lock"
NOTE = "in_use.json"


@contextmanager
def only_user(folder: Path) -> Iterator[None]:
    """Be the only process that writes in `folder`, which is made; `UserError` that names the one that is there already.

    What a killed process left half written is removed.
    """
    made = not folder.exists()
    lock, note = FileLock(folder / LOCK), folder / NOTE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"{folder}: is in use by {_holder(note)}; wait for it to end, or pass another --out") from None
    except OSError as error:
        raise cannot_be_written(folder / LOCK, error) from None
    try:
        here = platform.node()
        if _read(note).get("host", here) != here:
            raise UserError(
                f"{folder}: is in use by {_holder(note)}; where that process is gone, remove {note} and try again"
            )
        remove_partial(folder)
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        write_whole(note, json.dumps({"pid": os.getpid(), "host": here, "since": since}) + "\n")
        try:
            yield
        finally:
            with suppress(OSError):
                note.unlink()
    finally:
        with suppress(OSError):  # before the release: who waits for it sees that this file is no longer the lock
            (folder / LOCK).unlink()
        lock.release()
        if made:
            with suppress(OSError):  # nothing was written
                folder.rmdir()


def writer(folder: Path) -> str:
    """Who writes in `folder`, as "process 12 on HOST since TIME"; "" for nobody."""
    note = folder / NOTE
    found = _read(note)
    gone = found.get("host") == platform.node() and not process_exists(int(str(found.get("pid", 0))))
    return _holder(note) if found and not gone else ""


def _read(note: Path) -> dict[str, object]:
    with suppress(UserError):
        return read_document(note)
    return {}


def _holder(note: Path) -> str:
    found = _read(note)
    if "pid" not in found:
        return "another process"
    return f"process {found['pid']} on {found.get('host')} since {found.get('since')}"
