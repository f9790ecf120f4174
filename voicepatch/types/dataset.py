"""The data set that clips make, and its identity.

    dataset.clips[0].text_id, dataset.warnings
    dataset_hash(dataset)               # by content
    dataset_identity(dataset)           # "data" in patching_config.json

Decoding is another module's: here a file need only exist.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from msgspec import structs

from voicepatch.errors import UserError
from voicepatch.file_hashes import file_hash
from voicepatch.text import escape, nfc, short_repr
from voicepatch.types.clip import Clip
from voicepatch.types.record import Count, Keys
from voicepatch.types.task import Task, default_task


class Recognised(Keys):
    """What a folder is known as by its file names, and what became of its `n_wavs` wav files.

    `left_out` counts them by reason; `pairs` holds, for each kind of pair, those possible within speakers and in all.
    """

    name: str
    edition: str
    n_wavs: Count
    n_clips: Count
    left_out: dict[str, Count]
    n_speakers: Count
    n_texts: Count
    pairs: dict[str, dict[str, Count]]

    def lines(self) -> tuple[str, ...]:
        kinds = (
            f"{of['same_speaker']:,} {kind} pairs possible ({of['any_speaker']:,} with --any-speaker)"
            for kind, of in self.pairs.items()
        )
        name = f"{self.name}, {self.edition}" if self.edition else self.name
        left_out = "; ".join(f"{n:,} {reason}" for reason, n in self.left_out.items())
        return (
            f"{name}: {self.n_clips:,} of {self.n_wavs:,} wav files are clips; "
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
    The clips' labels are those of `task`. `renamed` has the data's name of each column that is called otherwise there.
    """

    name: str
    source: Path
    clips: tuple[Clip, ...]
    warnings: tuple[str, ...]
    corpus: Recognised | None = None
    texts: Path | None = None
    task: Task = field(default_factory=default_task)
    renamed: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that a pair list has beside its own: the further ones of the clips, and the language."""
        further = {column for clip in self.clips for column in clip.columns}
        return tuple(sorted(further | {"language" for clip in self.clips if clip.language}))

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
                    f"{clip.path}: cannot be read ({unreadable[clip.path]}); put clip {short_repr(clip.clip_id)} back, "
                    "or change its permissions (--on-bad-clip skip leaves its pairs out)"
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


def dataset_hash(dataset: Dataset) -> str:
    """sha256, in hex, over every clip's labels, ids, text, further columns, file name and audio bytes.

    The bytes of a file that cannot be read are null. The order of rows and the place of the data do not matter: a file
    counts by its path from the data set's own folder, or by its bare name where it lies elsewhere, and in a known
    corpus, whose names are all different and whose folders vary with the copy.
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
        further = [dict(sorted(clip.columns.items()))] if clip.columns else []
        row = json.dumps([clip.clip_id, name, *labels, dataset.hashes[clip.path], *further])
        total.update(f"{row}\n".encode())
    return total.hexdigest()


def _file_name(path: Path, root: Path) -> str:
    path = Path(os.path.normpath(path))
    return nfc(path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name)


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
    if dataset.columns:
        identity["columns"] = list(dataset.columns)
    if dataset.renamed:
        identity["renamed"] = dict(dataset.renamed)
    if dataset.texts:
        identity["texts"] = str(dataset.texts)
    if dataset.corpus:
        identity["corpus"] = structs.asdict(dataset.corpus)
    return identity


def label_spellings(clips: Iterable[Clip]) -> dict[str, dict[str, dict[str, int]]]:
    """How often each spelling was read as a label: the label's role → label → spelling → number of clips.

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
        if label and spelling.casefold() not in ("", label):
            found.setdefault(column, {}).setdefault(label, {})[spelling] = n
    return found


def spelling_lines(spellings: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[str]:
    """A line for each column of `label_spellings`: `prosody_label: joy counts as happy (12 clips)`."""
    return [
        f"{column}: "
        + "; ".join(
            f"{escape(spelling)} counts as {label} ({n:,} clip{'s' * (n != 1)})"
            for label, by_spelling in labels.items()
            for spelling, n in by_spelling.items()
        )
        for column, labels in spellings.items()
    ]
