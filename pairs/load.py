"""From a manifest or a folder on disk to a data set.

dataset = load_dataset(Path("corpus"))                           # a folder, or a manifest.csv / .jsonl
dataset = load_dataset(Path("clips.csv"), task=load_task("gender.yaml"))
dataset = load_dataset(Path("/data/ESD"), Path("texts.csv"))     # a known corpus, with labels of its texts
dataset.clips[0].text_id, dataset.warnings
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pairs.corpora import load_corpus
from pairs.rows import read_rows, rows_by, warnings_of
from pairs.texts import Texts, read_texts, with_texts
from voicepatch.errors import UserError, can_be_written
from voicepatch.text import escape, listing, nfc, short_repr
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import Dataset, Recognised, dataset_hash
from voicepatch.types.task import Task, default_task

AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3")
_TEXT_COLUMNS = ("text_id", "text")
_CLIP_COLUMNS = ("clip_id", "path", *_TEXT_COLUMNS)
_OPTIONAL_COLUMNS = ("speaker", "language", "text_type")


def load_dataset(path: Path, texts: Path | None = None, task: Task | None = None) -> Dataset:
    """The data set at `path`: a manifest, a folder with text.jsonl or a manifest, or a known corpus (SPEC section 11).

    A clip missing from a folder is a warning, one missing from a manifest an error. The labels of `texts`, by text_id,
    stand in place of those of the data. `task` says which columns hold labels and how they are spelled; None is the
    emotion task.

    Raises `UserError` that names file and row.
    """
    task = task or default_task()
    source = _on_disk(Path(os.path.abspath(path)), {})
    texts = texts and _on_disk(Path(os.path.abspath(texts)), {})
    labels = read_texts(texts, task) if texts else {}
    clips, warnings, corpus = _load(source, labels, task)
    if not can_be_written(str(source)):
        raise UserError(f"{source}: its path is not in UTF-8; rename the file or folder, or give a link to it")
    # Every second manifest is called manifest.csv; the folder's name tells them apart.
    is_folder = source.is_dir() or source.stem == "manifest"
    name = (source if source.is_dir() else source.parent).name if is_folder else source.stem
    # The name becomes part of a directory's, which may have 255 letters in all.
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", nfc(name))[:100].strip("-.") or "data"
    clips = sorted(clips, key=lambda clip: clip.clip_id)
    return Dataset(name, source, tuple(clips), (*warnings, *_shared_files(clips)), corpus, texts, task)


def find_clips(data: dict[str, Any]) -> tuple[dict[str, Clip], str]:
    """The run's clips by id, or none and the reason; the data must be those that the run recorded."""
    try:
        dataset = load_dataset(Path(data["source"]), Path(data["texts"]) if "texts" in data else None)
        same = dataset_hash(dataset) == data["sha256"]
        if not same:
            dataset.check_readable()
    except UserError as error:
        return {}, f"The data could not be read when this page was made, so it has no texts and no sound ({error})."
    if not same:
        return {}, (
            f"What lies at {data['source']} is no longer what this run was made from (its sha256 differs), "
            "so this page has no texts and no sound."
        )
    return {clip.clip_id: clip for clip in dataset.clips}, ""


def _load(source: Path, labels: Texts, task: Task) -> tuple[list[Clip], list[str], Recognised | None]:
    """The clips, warnings, and the corpus where it is a known one."""
    manifests = [source / name for name in ("manifest.csv", "manifest.jsonl") if os.path.isfile(source / name)]
    if os.path.isfile(source):
        if source.suffix.lower() not in (".csv", ".jsonl"):
            raise UserError(f"{source}: not a manifest; give a .csv or .jsonl file, or a folder with text.jsonl")
        clips, warnings = _load_manifest(source, task)
    elif not os.path.isdir(source):
        raise UserError(
            f"{source}: no such file or folder; give a manifest (.csv, .jsonl), a folder with text.jsonl, or a corpus "
            "that `python cli.py corpora` lists"
        )
    elif os.path.isfile(source / "text.jsonl"):
        clips, warnings = _load_folder(source, task)
    elif len(manifests) > 1:
        raise UserError(f"{source}: the folder holds both manifest.csv and manifest.jsonl; give the path of one")
    elif manifests:
        clips, warnings = _load_manifest(manifests[0], task)
    elif found := load_corpus(source, labels, task):
        return found
    else:
        raise UserError(
            f"{source}: the folder holds no text.jsonl, manifest.csv or manifest.jsonl, and no wav file named as in a "
            "corpus that `python cli.py corpora` lists; give the path of the manifest itself, or add text.jsonl"
        )
    clips, more = with_texts(clips, labels, task)
    return clips, [*warnings, *more], None


def _load_manifest(source: Path, task: Task) -> tuple[list[Clip], list[str]]:
    clips: list[Clip] = []
    first_of_text: dict[str, tuple[int, Clip]] = {}
    names: dict[Path, dict[str, str]] = {}
    required = (*_CLIP_COLUMNS, *task.text_columns, task.voice)
    rows = rows_by(read_rows(source, required, _OPTIONAL_COLUMNS), "clip_id")
    for row in rows.values():
        clip = Clip(
            clip_id=row.required("clip_id"),
            path=_on_disk(Path(os.path.normpath(source.parent / row.required("path"))), names),
            text_id=row.required("text_id"),
            prosody_label=row.label(task.voice, task),
            prosody_spelling=row.required(task.voice),
            **row.of_text(task),
        )
        number, first = first_of_text.setdefault(clip.text_id, (row.number, clip))
        same = {task.words: (clip.semantic_label, first.semantic_label), "text": (clip.text, first.text)}
        for column, (here, there) in same.items():
            if here != there:
                raise row.error(
                    f"text_id {short_repr(clip.text_id)} has {column} {short_repr(here)} here and "
                    f"{short_repr(there)} in row {number}; give one text_id to one text with one meaning"
                )
        if not os.path.isfile(clip.path):
            raise row.error(f"no audio file at {escape(clip.path)}; paths are relative to the manifest")
        clips.append(clip)
    return clips, warnings_of(rows.values(), _OPTIONAL_COLUMNS)


def _on_disk(path: Path, names: dict[Path, dict[str, str]]) -> Path:
    """The path in the Unicode form that the file system has; `names` caches the names in each folder."""
    if os.path.lexists(path) or path == path.parent:
        return path
    folder = _on_disk(path.parent, names)
    if folder not in names:
        try:
            names[folder] = {nfc(name): name for name in os.listdir(folder)}
        except OSError:
            names[folder] = {}
    return folder / names[folder].get(nfc(path.name), path.name)


def _load_folder(source: Path, task: Task) -> tuple[list[Clip], list[str]]:
    rows = read_rows(source / "text.jsonl", (*_TEXT_COLUMNS, *task.text_columns), _OPTIONAL_COLUMNS)
    texts = rows_by(rows, "text_id")
    of_text = {text_id: row.of_text(task) for text_id, row in texts.items()}
    clips: list[Clip] = []
    warnings = warnings_of(texts.values(), _OPTIONAL_COLUMNS)
    folders = _folders_of_labels(source, warnings, task)
    for label in task.labels:
        if label not in folders:
            warnings.append(f"no folder for {label}: its {len(texts)} clips are left out")
            continue
        audio = _audio_files(folders[label])
        missing = [text_id for text_id in texts if text_id not in audio]
        unknown = [text_id for text_id in audio if text_id not in texts]
        if missing:
            warnings.append(f"{label}: {len(missing)} of {len(texts)} clips are missing, left out: {listing(missing)}")
        if unknown:
            warnings.append(f"{label}: audio without a text_id in text.jsonl is left out: {listing(unknown)}")
        clips += [
            Clip(
                clip_id=f"{text_id}_{label}",
                path=audio[text_id],
                text_id=text_id,
                prosody_label=label,
                prosody_spelling=folders[label].name,
                **fields,
            )
            for text_id, fields in of_text.items()
            if text_id in audio
        ]
    if not clips:
        raise UserError(
            f"{source}: no clips; a text_id of text.jsonl names its files, as in "
            f"{task.labels[0]}/{escape(next(iter(texts)))}.wav (folders: {', '.join(task.labels)})"
        )
    return clips, warnings


def _folders_of_labels(source: Path, warnings: list[str], task: Task) -> dict[str, Path]:
    """The folders whose names are spellings of the task's labels, by the label."""
    folders: dict[str, Path] = {}
    for folder in _entries(source):
        if not os.path.isdir(folder):
            continue
        label = task.label_of(folder.name)
        if label is None:
            if _audio_files(folder):
                raise UserError(
                    f"{folder}: is no label of task {task.name} ({', '.join(task.labels)}); rename or move it"
                )
            warnings.append(f"folder {escape(folder.name)} is ignored: no label has this name, and it holds no audio")
        elif label in folders:
            raise UserError(f"{folder}: both this folder and {escape(folders[label].name)} mean {label}; merge them")
        else:
            folders[label] = folder
    return folders


def _audio_files(folder: Path) -> dict[str, Path]:
    """The audio files of `folder`, without those of folders in it, by the text_id that names them."""
    files: dict[str, Path] = {}
    for file in _entries(folder):
        if file.suffix.lower() not in AUDIO_EXTENSIONS or not os.path.isfile(file):
            continue
        other = files.setdefault(nfc(file.stem), file)
        if other is not file:
            raise UserError(f"{folder}: {escape(other.name)} and {escape(file.name)} are the same text; keep one")
    return files


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, without hidden files: macOS leaves "._001.wav" beside 001.wav on foreign disks."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error


def _shared_files(clips: Sequence[Clip]) -> list[str]:
    """A warning where several clips have the same file, also by a link: a pair of them would change nothing."""
    first: dict[tuple[int, int], Clip] = {}
    shared = []
    for clip in clips:
        status = os.stat(clip.path)
        other = first.setdefault((status.st_dev, status.st_ino), clip)
        if other is not clip:
            shared.append(f"{escape(other.clip_id)} and {escape(clip.clip_id)} ({escape(clip.path.name)})")
    return [f"clips that are one and the same file: {listing(shared)}"] if shared else []
