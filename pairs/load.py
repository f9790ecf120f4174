"""From a manifest or a folder on disk to a data set.

dataset = load_dataset(Path("corpus"))                           # a folder, or a manifest.csv / .jsonl
dataset = load_dataset(Path("clips.csv"), task=load_task("gender.yaml"))
dataset = load_dataset(Path("/data/ESD"), Path("texts.csv"))     # a known corpus, with labels of its texts
dataset.clips[0].text_id, dataset.warnings
"""

import os
from dataclasses import replace
from pathlib import Path

from pairs.corpora import load_corpus
from pairs.dataset import make_dataset
from pairs.rows import Row, read_rows, warnings_of
from pairs.texts import Texts, read_texts, with_texts
from voicepatch.errors import UserError
from voicepatch.text import escape, listing, nfc, short_repr
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import Dataset
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
    if texts is None:
        return _load(source, {}, task)
    texts = _on_disk(Path(os.path.abspath(texts)), {})
    return replace(_load(source, read_texts(texts, task), task), texts=texts)


def _load(source: Path, texts: Texts, task: Task) -> Dataset:
    if os.path.isfile(source):
        if source.suffix.lower() not in (".csv", ".jsonl"):
            raise UserError(f"{source}: not a manifest; give a .csv or .jsonl file, or a folder with text.jsonl")
        # Every second manifest is called manifest.csv; the folder's name tells them apart.
        return _load_manifest(source, source.parent.name if source.stem == "manifest" else source.stem, texts, task)
    if not os.path.isdir(source):
        raise UserError(
            f"{source}: no such file or folder; give a manifest (.csv, .jsonl), a folder with text.jsonl, or a corpus "
            "that `python cli.py corpora` lists"
        )
    if os.path.isfile(source / "text.jsonl"):
        return _load_folder(source, texts, task)
    manifests = [source / name for name in ("manifest.csv", "manifest.jsonl") if os.path.isfile(source / name)]
    if len(manifests) > 1:
        raise UserError(f"{source}: the folder holds both manifest.csv and manifest.jsonl; give the path of one")
    if manifests:
        return _load_manifest(manifests[0], source.name, texts, task)
    dataset = load_corpus(source, texts, task)
    if dataset is None:
        raise UserError(
            f"{source}: the folder holds no text.jsonl, manifest.csv or manifest.jsonl, and no wav file named as in a "
            "corpus that `python cli.py corpora` lists; give the path of the manifest itself, or add text.jsonl"
        )
    return dataset


def _load_manifest(source: Path, name: str, texts: Texts, task: Task) -> Dataset:
    clips: list[Clip] = []
    warnings: list[str] = []
    row_of_id: dict[str, int] = {}
    elsewhere: list[str] = []
    first_of_text: dict[str, tuple[int, Clip]] = {}
    rows: list[Row] = []
    names: dict[Path, dict[str, str]] = {}
    for row in read_rows(source, (*_CLIP_COLUMNS, *task.text_columns, task.voice), _OPTIONAL_COLUMNS):
        rows.append(row)
        clip = Clip(
            clip_id=row.required("clip_id"),
            path=_on_disk(Path(os.path.normpath(source.parent / row.required("path"))), names),
            text_id=row.required("text_id"),
            text=row.required("text"),
            semantic_label=row.words_label(task),
            prosody_label=row.label(task.voice, task),
            speaker=row.optional("speaker"),
            language=row.optional("language"),
            text_type=row.optional("text_type"),
            semantic_spelling=row.words_spelling(task),
            prosody_spelling=row.required(task.voice),
        )
        if clip.clip_id in row_of_id:
            raise row.error(
                f"clip_id {short_repr(clip.clip_id)} is already in row {row_of_id[clip.clip_id]}; ids must differ"
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
        written = Path(row.required("path"))
        if written.is_absolute() or ".." in written.parts:
            elsewhere.append(clip.clip_id)
        row_of_id[clip.clip_id] = row.number
        clips.append(clip)
    warnings += warnings_of(rows, _OPTIONAL_COLUMNS)
    if elsewhere:
        warnings.append(
            f"{len(elsewhere)} of {len(clips)} paths are absolute or hold '..', so moving the manifest's folder "
            f"does not move these clips: {listing(elsewhere)}"
        )
    clips, more = with_texts(clips, texts, task)
    return make_dataset(name, source, clips, [*warnings, *more], task)


def _on_disk(path: Path, names: dict[Path, dict[str, str]]) -> Path:
    """The path as the file system has it where that is composed otherwise; `names` keeps the folders looked into."""
    if os.path.lexists(path) or path == path.parent:
        return path
    folder = _on_disk(path.parent, names)
    if folder not in names:
        try:
            names[folder] = {nfc(name): name for name in os.listdir(folder)}
        except OSError:
            names[folder] = {}
    return folder / names[folder].get(nfc(path.name), path.name)


def _load_folder(source: Path, labels: Texts, task: Task) -> Dataset:
    texts: dict[str, Row] = {}
    for row in read_rows(source / "text.jsonl", (*_TEXT_COLUMNS, *task.text_columns), _OPTIONAL_COLUMNS):
        text_id = row.required("text_id")
        if text_id in texts:
            raise row.error(
                f"text_id {short_repr(text_id)} is already in row {texts[text_id].number}; give each text its own"
            )
        row.required("text"), row.words_label(task)
        texts[text_id] = row

    clips: list[Clip] = []
    warnings = warnings_of(texts.values(), _OPTIONAL_COLUMNS)
    folders = _folders_of_labels(source, warnings, task)
    for label in task.labels:
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
                semantic_label=row.words_label(task),
                prosody_label=label,
                speaker=row.optional("speaker"),
                language=row.optional("language"),
                text_type=row.optional("text_type"),
                semantic_spelling=row.words_spelling(task),
                prosody_spelling=folders[label].name,
            )
            for text_id, row in texts.items()
            if text_id in audio
        ]
    if not clips:
        raise UserError(
            f"{source}: no clips; a text_id of text.jsonl names its files, as in "
            f"{task.labels[0]}/{escape(next(iter(texts)))}.wav (folders: {', '.join(task.labels)})"
        )
    clips, more = with_texts(clips, labels, task)
    return make_dataset(source.name, source, clips, [*warnings, *more], task)


def _folders_of_labels(source: Path, warnings: list[str], task: Task) -> dict[str, Path]:
    """The folders that are called as a label of the task, by the label."""
    folders: dict[str, Path] = {}
    for folder in _entries(source):
        if folder.name.startswith(".") or not os.path.isdir(folder):
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
    """The audio files right in `folder`, by the text_id that names them."""
    files: dict[str, Path] = {}
    for file in _entries(folder):
        # macOS leaves a hidden "._001.wav" beside 001.wav on foreign disks
        if file.suffix.lower() not in AUDIO_EXTENSIONS or file.name.startswith(".") or not os.path.isfile(file):
            continue
        text_id = nfc(file.stem)
        if text_id in files:
            names = f"{escape(files[text_id].name)} and {escape(file.name)}"
            raise UserError(f"{folder}: {names} are the same text; keep one")
        files[text_id] = file
    return files


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error
