"""From a data set on disk to clips.

    dataset = load_dataset(Path("corpus"))           # a folder, or a manifest.csv / .jsonl
    dataset.clips[0].text_id, dataset.warnings
    dataset_hash(dataset)                            # the identity of the data in patching_config.json

Decoding is another module's: here a file need only exist.
"""

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from errors import UserError
from models.labels import LABELS
from pairs.normalise import normalise_label
from pairs.rows import Row, read_rows
from pairs.shown import quoted, shown

AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3")
_TEXT_COLUMNS = ("text_id", "text", "semantic_label")
_CLIP_COLUMNS = ("clip_id", "path", *_TEXT_COLUMNS, "prosody_label")
_OPTIONAL_COLUMNS = ("speaker", "language", "text_type")


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording: what is said (`text_id`, `text`, `semantic_label`) and how (`prosody_label`, `speaker`).

    Both labels are among `models.labels.LABELS`; `path` is absolute. `text_type` is any further sort of texts, such as
    explicit or implicit, that a control should hold fixed.
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


@dataclass(frozen=True)
class Dataset:
    """The clips of one manifest or folder, sorted by `clip_id`.

    `name` is the folder's or the manifest's, of `[A-Za-z0-9._-]` only, so that it can name a run directory;
    `source` is the manifest or folder read; `warnings` says what was left out, a line each.
    """

    name: str
    source: Path
    clips: tuple[Clip, ...]
    warnings: tuple[str, ...]


def load_dataset(path: Path) -> Dataset:
    """The data set at `path`: a manifest, or a folder with text.jsonl or a manifest (SPEC section 11).

    A clip missing from a folder is a warning, one missing from a manifest an error.

    Raises `UserError` that names file and row.
    """
    source = Path(os.path.abspath(path))
    if os.path.isfile(source):
        if source.suffix.lower() not in (".csv", ".jsonl"):
            raise UserError(f"{source}: not a manifest; give a .csv or .jsonl file, or a folder with text.jsonl")
        # Every second manifest is called manifest.csv; the folder's name tells them apart.
        return _load_manifest(source, name=source.parent.name if source.stem == "manifest" else source.stem)
    if not os.path.isdir(source):
        raise UserError(f"{source}: no such file or folder; give a manifest (.csv, .jsonl) or a folder with text.jsonl")
    if os.path.isfile(source / "text.jsonl"):
        return _load_folder(source)
    manifests = [source / name for name in ("manifest.csv", "manifest.jsonl") if os.path.isfile(source / name)]
    if len(manifests) != 1:
        found = "both manifest.csv and manifest.jsonl" if manifests else "no text.jsonl, manifest.csv or manifest.jsonl"
        raise UserError(f"{source}: the folder holds {found}; give the path of the manifest itself, or add text.jsonl")
    return _load_manifest(manifests[0], name=source.name)


def dataset_hash(dataset: Dataset) -> str:
    """sha256, in hex, over every clip's labels, ids, text, file name and audio bytes.

    The order of rows and the place of the data do not matter: a file counts by its path from the data set's own folder,
    or by its bare name where it lies elsewhere. Raises `UserError` when a file cannot be read.
    """
    root = dataset.source if dataset.source.is_dir() else dataset.source.parent
    total = hashlib.sha256()
    for clip in sorted(dataset.clips, key=lambda clip: clip.clip_id):
        try:
            with clip.path.open("rb") as file:
                audio = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(
                f"{clip.path}: cannot be read ({error.strerror}); put clip {quoted(clip.clip_id)} back"
            ) from error
        labels = (
            clip.text_id,
            clip.text,
            clip.semantic_label,
            clip.prosody_label,
            clip.speaker,
            clip.language,
            clip.text_type,
        )
        row = json.dumps([clip.clip_id, _file_name(clip.path, root), *labels, audio])
        total.update(f"{row}\n".encode())
    return total.hexdigest()


def _file_name(path: Path, root: Path) -> str:
    path = Path(os.path.normpath(path))
    return _nfc(path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name)


def _load_manifest(source: Path, name: str) -> Dataset:
    clips: list[Clip] = []
    warnings: list[str] = []
    row_of_id: dict[str, int] = {}
    elsewhere: list[str] = []
    first_of_text: dict[str, tuple[int, Clip]] = {}
    for row in read_rows(source, _CLIP_COLUMNS, _OPTIONAL_COLUMNS):
        clip = Clip(
            clip_id=row.required("clip_id"),
            path=Path(os.path.normpath(source.parent / row.required("path"))),
            text_id=row.required("text_id"),
            text=row.required("text"),
            semantic_label=row.label("semantic_label"),
            prosody_label=row.label("prosody_label"),
            speaker=row.optional("speaker"),
            language=row.optional("language"),
            text_type=row.optional("text_type"),
        )
        if clip.clip_id in row_of_id:
            raise row.error(
                f"clip_id {quoted(clip.clip_id)} is already in row {row_of_id[clip.clip_id]}; ids must differ"
            )
        number, first = first_of_text.setdefault(clip.text_id, (row.number, clip))
        for column in ("semantic_label", "text"):
            here, there = getattr(clip, column), getattr(first, column)
            if here != there:
                raise row.error(
                    f"text_id {quoted(clip.text_id)} has {column} {quoted(here)} here and {quoted(there)} in row "
                    f"{number}; give one text_id to one text with one meaning"
                )
        if not os.path.isfile(clip.path):
            raise row.error(f"no audio file at {shown(clip.path)}; paths are relative to the manifest")
        written = Path(row.required("path"))
        if written.is_absolute() or ".." in written.parts:
            elsewhere.append(clip.clip_id)
        row_of_id[clip.clip_id] = row.number
        clips.append(clip)
    if elsewhere:
        warnings.append(
            f"{len(elsewhere)} of {len(clips)} paths are absolute or hold '..', so moving the manifest's folder "
            f"does not move these clips: {listing(elsewhere)}"
        )
    return _dataset(name, source, clips, warnings)


def _load_folder(source: Path) -> Dataset:
    texts: dict[str, Row] = {}
    for row in read_rows(source / "text.jsonl", _TEXT_COLUMNS, _OPTIONAL_COLUMNS):
        text_id = _nfc(row.required("text_id"))
        if text_id in texts:
            raise row.error(
                f"text_id {quoted(text_id)} is already in row {texts[text_id].number}; give each text its own"
            )
        row.required("text"), row.label("semantic_label")
        texts[text_id] = row

    clips: list[Clip] = []
    warnings: list[str] = []
    folders = _emotion_folders(source, warnings)
    for label in LABELS:
        if label not in folders:
            warnings.append(f"no folder for {label}: its {len(texts)} clips are left out")
            continue
        audio = _audio_files(folders[label])
        missing = [text_id for text_id in texts if text_id not in audio]
        strays = [text_id for text_id in audio if text_id not in texts]
        if missing:
            warnings.append(f"{label}: {len(missing)} of {len(texts)} clips are missing, left out: {listing(missing)}")
        if strays:
            warnings.append(f"{label}: audio without a text_id in text.jsonl is left out: {listing(strays)}")
        clips += [
            Clip(
                clip_id=f"{text_id}_{label}",
                path=audio[text_id],
                text_id=text_id,
                text=row.required("text"),
                semantic_label=row.label("semantic_label"),
                prosody_label=label,
                speaker=row.optional("speaker"),
                language=row.optional("language"),
                text_type=row.optional("text_type"),
            )
            for text_id, row in texts.items()
            if text_id in audio
        ]
    if not clips:
        raise UserError(
            f"{source}: no clips; a text_id of text.jsonl names its files, as in "
            f"happy/{shown(next(iter(texts)))}.wav (folders: {', '.join(LABELS)})"
        )
    return _dataset(source.name, source, clips, warnings)


def _emotion_folders(source: Path, warnings: list[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for folder in _entries(source):
        if folder.name.startswith(".") or not os.path.isdir(folder):
            continue
        label = normalise_label(folder.name)
        if label is None:
            if _audio_files(folder):
                raise UserError(f"{folder}: not an emotion of {', '.join(LABELS)}; rename or move it")
            warnings.append(f"folder {shown(folder.name)} is ignored: no emotion has this name, and it holds no audio")
        elif label in folders:
            raise UserError(f"{folder}: both this folder and {shown(folders[label].name)} mean {label}; merge them")
        else:
            folders[label] = folder
    return folders


def _audio_files(folder: Path) -> dict[str, Path]:
    """The audio files right in `folder`, by the text_id that names them."""
    files: dict[str, Path] = {}
    for file in _entries(folder):
        # macOS leaves a hidden "._001.wav" beside 001.wav on foreign disks
        if file.suffix.lower() not in AUDIO_EXTENSIONS or file.name.startswith(".") or not os.path.isfile(file):
            continue
        text_id = _nfc(file.stem)
        if text_id in files:
            names = f"{shown(files[text_id].name)} and {shown(file.name)}"
            raise UserError(f"{folder}: {names} are the same text; keep one")
        files[text_id] = file
    return files


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error


def _dataset(name: str, source: Path, clips: list[Clip], warnings: list[str]) -> Dataset:
    # The name becomes part of a directory's, which may have 255 letters in all.
    safe_name = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:100].strip("-.") or "data"
    clips = sorted(clips, key=lambda clip: clip.clip_id)
    return Dataset(safe_name, source, tuple(clips), (*warnings, *_shared_files(clips)))


def _shared_files(clips: list[Clip]) -> list[str]:
    """A warning where one file, be it by a link, is several clips: as A and B of a pair it would change nothing."""
    first: dict[tuple[int, int], Clip] = {}
    shared = []
    for clip in clips:
        status = os.stat(clip.path)
        known = first.setdefault((status.st_dev, status.st_ino), clip)
        if known is not clip:
            shared.append(f"{shown(known.clip_id)} and {shown(clip.clip_id)} ({shown(clip.path.name)})")
    return [f"clips that are one and the same file: {listing(shared)}"] if shared else []


def _nfc(text: str) -> str:
    """File systems disagree on how an accented or Hangul name is composed; text.jsonl may be of another one."""
    return unicodedata.normalize("NFC", text)


def listing(names: Iterable[str], most: int = 20) -> str:
    """`a, b, c and 7 more`: the first `most` names."""
    names = list(names)
    return ", ".join(map(shown, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def dataset_identity(dataset: Dataset) -> dict[str, object]:
    """What a run records of its data; all but `source` must be the same in every experiment of the run."""
    return {
        "name": dataset.name,
        "source": str(dataset.source),
        "sha256": dataset_hash(dataset),
        "n_clips": len(dataset.clips),
        "warnings": list(dataset.warnings),
    }
