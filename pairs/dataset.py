"""A data set out of the clips that were read."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from voicepatch.errors import UserError, can_be_written
from voicepatch.text import escape, listing, nfc
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import Dataset, Recognised
from voicepatch.types.task import Task


def make_dataset(
    name: str,
    source: Path,
    clips: Iterable[Clip],
    warnings: Iterable[str],
    task: Task,
    corpus: Recognised | None = None,
) -> Dataset:
    """A data set with a name fit for a directory, its clips sorted, and a warning where they share a file.

    Raises `UserError` for a source whose path is not in UTF-8.
    """
    if not can_be_written(str(source)):
        raise UserError(f"{source}: its path is not in UTF-8; rename the file or folder, or give a link to it")
    # The name becomes part of a directory's, which may have 255 letters in all.
    safe_name = re.sub(r"[^A-Za-z0-9._-]+", "-", nfc(name))[:100].strip("-.") or "data"
    clips = sorted(clips, key=lambda clip: clip.clip_id)
    return Dataset(safe_name, source, tuple(clips), (*warnings, *_shared_files(clips)), corpus, task=task)


def _shared_files(clips: Sequence[Clip]) -> list[str]:
    """A warning where one file, be it by a link, is several clips: as A and B of a pair it would change nothing."""
    first: dict[tuple[int, int], Clip] = {}
    shared = []
    for clip in clips:
        status = os.stat(clip.path)
        known = first.setdefault((status.st_dev, status.st_ino), clip)
        if known is not clip:
            shared.append(f"{escape(known.clip_id)} and {escape(clip.clip_id)} ({escape(clip.path.name)})")
    return [f"clips that are one and the same file: {listing(shared)}"] if shared else []
