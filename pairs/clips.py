"""Clips, the data set that they make, and its identity.

    dataset.clips[0].text_id, dataset.warnings
    dataset_hash(dataset)               # by content
    dataset_identity(dataset)           # "data" in patching_config.json

Decoding is another module's: here a file need only exist.
"""

import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from errors import UserError, can_be_written
from files import open_regular
from pairs.normalise import nfc
from pairs.shown import quoted, shown


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording: what is said (`text_id`, `text`, `semantic_label`) and how (`prosody_label`, `speaker`).

    Both labels are among `models.labels.LABELS`; `path` is absolute. `text_type` is any further sort of texts, such as
    explicit or implicit, that a control should hold fixed. The spellings are how the data write the two labels, where
    that is known.
    """

    clip_id: str
    path: Path
    text_id: str
    text: str
    semantic_label: str
    prosody_label: str
    speaker: str | None = None
    language: str | None = None
    text_type: str | None = None
    semantic_spelling: str = field(default="", compare=False)
    prosody_spelling: str = field(default="", compare=False)


@dataclass(frozen=True)
class Recognised:
    """What a folder is known as by its file names, and what became of its `n_wavs` wav files.

    `left_out` counts them by reason; `pairs` holds, for each kind of pair, those possible within speakers and in all.
    """

    name: str
    edition: str
    n_wavs: int
    n_clips: int
    left_out: dict[str, int]
    n_speakers: int
    n_texts: int
    pairs: dict[str, dict[str, int]]

    def lines(self) -> tuple[str, ...]:
        kinds = (
            f"{of['same_speaker']:,} {kind} pairs possible ({of['any_speaker']:,} with --any-speaker)"
            for kind, of in self.pairs.items()
        )
        left_out = "; ".join(f"{n:,} {reason}" for reason, n in self.left_out.items())
        return (
            f"{self.name}, {self.edition}: {self.n_clips:,} of {self.n_wavs:,} wav files are clips; "
            f"speakers: {self.n_speakers}; texts: {self.n_texts}",
            *([f"left out: {left_out}"] if left_out else []),
            ", ".join(kinds),
        )


@dataclass(frozen=True)
class Dataset:
    """The clips of one manifest or folder, sorted by `clip_id`.

    `name` is the folder's or the manifest's, of `[A-Za-z0-9._-]` only, so that it can name a run directory;
    `source` is the manifest or folder read; `warnings` says what was left out, a line each. `corpus` is there where the
    folder is that of a corpus known by its file names, `texts` where labels of texts were read from a file beside it.
    """

    name: str
    source: Path
    clips: tuple[Clip, ...]
    warnings: tuple[str, ...]
    corpus: Recognised | None = None
    texts: Path | None = None

    @property
    def hashes(self) -> Mapping[Path, str | None]:
        """`file_hash` of every clip when it is first asked for; None for a file that cannot be read."""
        return self._read[0]

    def check_readable(self) -> None:
        """`UserError` for the first clip whose file cannot be read."""
        unreadable = self._read[1]
        for clip in self.clips:
            if clip.path in unreadable:
                raise UserError(
                    f"{clip.path}: cannot be read ({unreadable[clip.path]}); put clip {quoted(clip.clip_id)} back, or "
                    "change its permissions (--on-bad-clip skip leaves its pairs out)"
                )

    @cached_property
    def _read(self) -> tuple[dict[Path, str | None], dict[Path, str]]:
        hashes: dict[Path, str | None] = {}
        unreadable: dict[Path, str] = {}
        for clip in self.clips:
            try:
                hashes[clip.path] = file_hash(clip.path)
            except OSError as error:
                hashes[clip.path], unreadable[clip.path] = None, error.strerror or str(error)
        return hashes, unreadable


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
    return hashlib.file_digest(content, "sha256").hexdigest()


def dataset_hash(dataset: Dataset) -> str:
    """sha256, in hex, over every clip's labels, ids, text, file name and audio bytes (null if they cannot be read).

    The order of rows and the place of the data do not matter: a file counts by its path from the data set's own folder,
    or by its bare name where it lies elsewhere, and in a known corpus, whose names are all different and whose folders
    vary with the copy.
    """
    root = dataset.source if dataset.source.is_dir() else dataset.source.parent
    total = hashlib.sha256()
    for clip in sorted(dataset.clips, key=lambda clip: clip.clip_id):
        labels = (
            clip.text_id,
            clip.text,
            clip.semantic_label,
            clip.prosody_label,
            clip.speaker,
            clip.language,
            clip.text_type,
        )
        name = clip.path.name if dataset.corpus else _file_name(clip.path, root)
        row = json.dumps([clip.clip_id, name, *labels, dataset.hashes[clip.path]])
        total.update(f"{row}\n".encode())
    return total.hexdigest()


def _file_name(path: Path, root: Path) -> str:
    path = Path(os.path.normpath(path))
    return nfc(path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name)


def make_dataset(
    name: str, source: Path, clips: Iterable[Clip], warnings: Iterable[str], corpus: Recognised | None = None
) -> Dataset:
    """A data set with a name fit for a directory, its clips sorted, and a warning where they share a file.

    Raises `UserError` for a source whose path is not in UTF-8.
    """
    if not can_be_written(str(source)):
        raise UserError(f"{source}: its path is not in UTF-8; rename the file or folder, or give a link to it")
    # The name becomes part of a directory's, which may have 255 letters in all.
    safe_name = re.sub(r"[^A-Za-z0-9._-]+", "-", nfc(name))[:100].strip("-.") or "data"
    clips = sorted(clips, key=lambda clip: clip.clip_id)
    return Dataset(safe_name, source, tuple(clips), (*warnings, *_shared_files(clips)), corpus)


def _shared_files(clips: Sequence[Clip]) -> list[str]:
    """A warning where one file, be it by a link, is several clips: as A and B of a pair it would change nothing."""
    first: dict[tuple[int, int], Clip] = {}
    shared = []
    for clip in clips:
        status = os.stat(clip.path)
        known = first.setdefault((status.st_dev, status.st_ino), clip)
        if known is not clip:
            shared.append(f"{shown(known.clip_id)} and {shown(clip.clip_id)} ({shown(clip.path.name)})")
    return [f"clips that are one and the same file: {listing(shared)}"] if shared else []


def label_spellings(clips: Iterable[Clip]) -> dict[str, dict[str, dict[str, int]]]:
    """How often each spelling was read as a label: column → label → spelling → number of clips.

    A label's own name, in any case, is left out.
    """
    counts = Counter(
        row
        for clip in clips
        for row in (
            ("semantic_label", clip.semantic_label, clip.semantic_spelling),
            ("prosody_label", clip.prosody_label, clip.prosody_spelling),
        )
    )
    found: dict[str, dict[str, dict[str, int]]] = {}
    for (column, label, spelling), n in sorted(counts.items()):
        if spelling.casefold() not in ("", label):
            found.setdefault(column, {}).setdefault(label, {})[spelling] = n
    return found


def spelling_lines(spellings: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[str]:
    """A line for each column of `label_spellings`: `prosody_label: joy counts as happy (12 clips)`."""
    return [
        f"{column}: "
        + "; ".join(
            f"{shown(spelling)} counts as {label} ({n:,} clip{'s' * (n != 1)})"
            for label, by_spelling in labels.items()
            for spelling, n in by_spelling.items()
        )
        for column, labels in spellings.items()
    ]


def listing(names: Iterable[str], most: int = 20) -> str:
    """`a, b, c and 7 more`: the first `most` names."""
    names = list(names)
    return ", ".join(map(shown, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def dataset_identity(dataset: Dataset, skip_bad_clips: bool = False) -> dict[str, object]:
    """What a run records of its data; all but the places must be the same in every experiment of the run.

    `UserError` when a file cannot be read, unless such clips are skipped.
    """
    if not skip_bad_clips:
        dataset.check_readable()
    identity = {
        "name": dataset.name,
        "source": str(dataset.source),
        "sha256": dataset_hash(dataset),
        "n_clips": len(dataset.clips),
        "warnings": list(dataset.warnings),
    }
    if dataset.texts:
        identity["texts"] = str(dataset.texts)
    if dataset.corpus:
        identity["corpus"] = asdict(dataset.corpus)
    return identity
