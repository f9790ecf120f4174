"""From a manifest or a folder on disk to a data set.

dataset = load_dataset(Path("corpus"))                           # a folder, or a manifest.csv / .jsonl
dataset = load_dataset(Path("clips.csv"), task=load_task("gender.yaml"))
dataset = load_dataset(Path("/data/ESD"), Path("texts.csv"))     # a known corpus, with labels of its texts
dataset = load_dataset(Path("my-set.parquet"), columns={"text": "transcription", "prosody_label": "emotion"})
dataset.clips[0].text_id, dataset.warnings
"""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pairs.corpora import load_corpus
from pairs.hugging_face import is_hugging_face
from pairs.record_files import SUFFIXES, warnings_of_data_set
from pairs.rows import read_rows, rows_by, warnings_of
from pairs.texts import Texts, read_texts, with_texts
from voicepatch.errors import BAD_USAGE, UserError, can_be_written
from voicepatch.text import escape, listing, nfc, short_repr
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import Dataset, Recognised, dataset_hash
from voicepatch.types.task import Task, default_task, task_of

AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3")
_TEXT_COLUMNS = ("text_id", "text")
_CLIP_COLUMNS = ("clip_id", "path", *_TEXT_COLUMNS)
_OPTIONAL_COLUMNS = ("speaker", "language", "text_type")


def load_dataset(
    path: Path, texts: Path | None = None, task: Task | None = None, columns: Mapping[str, str] | None = None
) -> Dataset:
    """The data set at `path` (SPEC section 11).

    It is a manifest, a folder with text.jsonl or a manifest, a known corpus, or a Hugging Face data set on disk.

    A clip missing from a folder is a warning, one missing from a manifest an error. The labels of `texts`, by text_id,
    stand in place of those of the data. `task` says which columns hold labels and how they are spelled; None is the
    emotion task. `columns` has the data's name of a column that is called otherwise there: `{"text": "transcription"}`.

    Raises `UserError` that names file and row.
    """
    task = task or default_task()
    source = _on_disk(Path(os.path.abspath(path)), {})
    texts = texts and _on_disk(Path(os.path.abspath(texts)), {})
    labels = read_texts(texts, task) if texts else {}
    names = _checked_names(columns or {}, task)
    clips, warnings, corpus = _load(source, labels, task, names)
    if not can_be_written(str(source)):
        raise UserError(f"{source}: its path is not in UTF-8; rename the file or folder, or give a link to it")
    # Every second manifest is called manifest.csv; the folder's name tells them apart.
    is_folder = source.is_dir() or source.stem == "manifest"
    name = (source if source.is_dir() else source.parent).name if is_folder else source.stem
    # The name becomes part of a directory's, which may have 255 letters in all.
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", nfc(name))[:100].strip("-.") or "data"
    clips = sorted(clips, key=lambda clip: clip.clip_id)
    return Dataset(name, source, tuple(clips), (*warnings, *_shared_files(clips)), corpus, texts, task, names)


def find_clips(config: Mapping[str, Any]) -> tuple[dict[str, Clip], str]:
    """The clips by id of a run with this configuration, or none and the reason; the data must be as they were."""
    data = config["data"]
    try:
        texts = Path(data["texts"]) if "texts" in data else None
        dataset = load_dataset(Path(data["source"]), texts, task_of(config["task"]), data.get("renamed"))
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


def _checked_names(columns: Mapping[str, str], task: Task) -> dict[str, str]:
    """The names of `columns`, sorted; `UserError` for one that no column of a manifest has."""
    known = dict.fromkeys((*_CLIP_COLUMNS, *task.text_columns, task.voice, *_OPTIONAL_COLUMNS))
    for name in columns:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(known)}"
            raise UserError(
                f"--columns {short_repr(name)}: is no column of a manifest for task {task.name}; {hint}", BAD_USAGE
            )
    return dict(sorted(columns.items()))


def _load(
    source: Path, labels: Texts, task: Task, names: Mapping[str, str]
) -> tuple[list[Clip], list[str], Recognised | None]:
    """The clips, warnings, and the corpus where it is a known one."""
    manifests = [source / name for name in ("manifest.csv", "manifest.jsonl") if os.path.isfile(source / name)]
    if os.path.isfile(source):
        if source.suffix.lower() not in (*SUFFIXES, ".parquet"):
            raise UserError(f"{source}: not a manifest; give a {', '.join(SUFFIXES)} or .parquet file, or a folder")
        clips, warnings = _load_manifest(source, task, names)
    elif not os.path.isdir(source):
        raise UserError(
            f"{source}: no such file or folder; give a manifest (.csv, .jsonl), a folder with text.jsonl, a Hugging "
            "Face data set, or a corpus that `python cli.py corpora` lists"
        )
    elif os.path.isfile(source / "text.jsonl"):
        clips, warnings = _load_folder(source, task, names)
    elif len(manifests) > 1:
        raise UserError(f"{source}: the folder holds both manifest.csv and manifest.jsonl; give the path of one")
    elif manifests:
        clips, warnings = _load_manifest(manifests[0], task, names)
    elif is_hugging_face(source):
        clips, warnings = _load_manifest(source, task, names)
    elif found := load_corpus(source, labels, task):
        if names:
            raise UserError(
                f"--columns: {source} is a corpus whose file names are read; leave --columns out", BAD_USAGE
            )
        return found
    else:
        raise UserError(
            f"{source}: the folder holds no text.jsonl, manifest.csv or manifest.jsonl, no Hugging Face data set, and "
            "no wav file named as in a corpus that `python cli.py corpora` lists; name the manifest itself, or add "
            "text.jsonl"
        )
    clips, more = with_texts(clips, labels, task)
    return clips, [*warnings, *more], None


def _load_manifest(source: Path, task: Task, columns: Mapping[str, str]) -> tuple[list[Clip], list[str]]:
    clips: list[Clip] = []
    first_of_text: dict[str, tuple[int, Clip]] = {}
    names: dict[Path, dict[str, str]] = {}
    required = (*_CLIP_COLUMNS, *task.text_columns, task.voice)
    rows = rows_by(read_rows(source, required, _OPTIONAL_COLUMNS, names=columns), "clip_id")
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
    about = warnings_of_data_set(source, columns) if is_hugging_face(source) else []
    return clips, [*about, *warnings_of(rows.values(), _OPTIONAL_COLUMNS)]


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


def _load_folder(source: Path, task: Task, columns: Mapping[str, str]) -> tuple[list[Clip], list[str]]:
    required = (*_TEXT_COLUMNS, *task.text_columns)
    rows = read_rows(source / "text.jsonl", required, _OPTIONAL_COLUMNS, (task.voice,), columns)
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
