"""Hugging Face data sets on disk: a folder of `save_to_disk`, a parquet file, or a folder of parquet files.

    is_hugging_face(Path("/data/my-set"))
    unpacked = unpack(Path("/data/my-set"))
    unpacked.records, unpacked.warnings          # records[0]["path"] is a sound file of its own

The sounds lie inside such a data set. They are written into a folder of their own once, beside Hugging Face's other
files (`HF_HOME`), and later commands read that folder. Of the package `datasets` only the readers are used, so neither
torchcodec nor any code of the data set is needed.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.files import cannot_be_written
from voicepatch.text import escape, listing

ROWS, ABOUT, SPLIT, SOUND = "rows.jsonl", "about.json", "split", "path"
PIP = "python -m pip install -r requirements-datasets.txt"
_SPLIT = re.compile(r"(.+)-\d{5}-of-\d{5}")


@dataclass(frozen=True)
class Unpacked:
    """The rows of all splits as text, the first of them with the number 1, and what a reader must know of them."""

    records: list[dict[str, str]]
    warnings: list[str]


def is_hugging_face(source: Path) -> bool:
    """Whether `source` is a Hugging Face data set on disk."""
    if not source.is_dir():
        return source.suffix.lower() == ".parquet"
    return any((source / name).is_file() for name in ("dataset_dict.json", "state.json")) or bool(_parquet_in(source))


def unpack(source: Path, sound: str | None = None) -> Unpacked:
    """The rows of a data set, each with the path of its sound, which is written the first time.

    `sound` is the column of the sound, found by its type if None. Raises `UserError` for what cannot be read, for no
    sound or several, and where the package `datasets` is missing.
    """
    folder = _folder(source, sound)
    if not folder.is_dir():
        _write(source, sound, folder)
    try:
        lines = (folder / ROWS).read_text(encoding="utf-8").split("\n")
        records = [json.loads(line) for line in lines if line]
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        missing = [path for path in about["sounds"] if not (folder / path).is_file()]
        if len(records) != about["n_rows"] or missing:
            raise ValueError(f"{missing[0]} is not there" if missing else f"{len(records)} of {about['n_rows']} rows")
    except PermissionError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); pass another HF_HOME") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: what was unpacked of {source} is damaged ({error}); delete this folder") from None
    if not records:
        raise UserError(f"{source}: has no rows")
    return Unpacked(records, about["warnings"])


def unpacked_before(source: Path, sound: str | None = None) -> Unpacked:
    """The first row alone, and the warnings, of what `unpack` has read."""
    folder = _folder(source, sound)
    with (folder / ROWS).open(encoding="utf-8") as file:
        first = json.loads(file.readline())
    return Unpacked([first], json.loads((folder / ABOUT).read_text(encoding="utf-8"))["warnings"])


def _folder(source: Path, sound: str | None) -> Path:
    """Where the rows and sounds are: another size or time of one of the files is another folder."""
    from huggingface_hub.constants import HF_HOME

    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    facts = [(os.path.relpath(path, source), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(json.dumps([str(source), sound, facts]).encode(errors="surrogateescape")).hexdigest()[:16]
    return Path(HF_HOME) / "voicepatch" / key


def _write(source: Path, sound: str | None, folder: Path) -> None:
    """Write rows and sounds under another name, and give them theirs when all are there."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        private = tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True)
        with private as inside:
            made = Path(inside) / folder.name
            made.mkdir()  # others may read it, if the umask lets them
            _write_into(made, folder, source, sound)
            made.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was faster
            raise cannot_be_written(folder, error, "HF_HOME") from None


def _write_into(made: Path, folder: Path, source: Path, sound: str | None) -> None:
    """The sounds of all rows, and the rows with the paths that the sounds will have in `folder`."""
    counts: dict[str, int] = {}
    left_out: dict[str, None] = {}
    sounds = []
    with (made / ROWS).open("w", encoding="utf-8", newline="\n") as file:
        rows = _rows(source, sound)
        for number, (split, row, recorded) in enumerate(tqdm(rows, "unpacking sounds", unit="clip", delay=2), start=1):
            counts[split] = counts.get(split, 0) + 1
            values = {name: _text(value) for name, value in row.items()}
            left_out |= dict.fromkeys(name for name, value in values.items() if value is None)
            record = {
                original(source, name, row) if name in (SPLIT, SOUND) else name: value
                for name, value in values.items()
                if value is not None
            }
            content, path = recorded
            if content is not None:
                suffix = Path(path or "").suffix.lower()
                name = f"row{number:06d}{suffix if re.fullmatch(r'[.][a-z0-9]+', suffix) else ''}"
                (made / name).write_bytes(content)
                record[SOUND] = str(folder / name)
                sounds.append(name)
            else:
                record[SOUND] = str((source if source.is_dir() else source.parent) / path) if path else ""
            file.write(json.dumps(record | ({SPLIT: split} if split else {}), ensure_ascii=False) + "\n")
    warnings = []
    if len(counts) > 1:
        splits = ", ".join(f"{escape(name)} ({n:,})" for name, n in counts.items())
        warnings.append(f"the splits {splits} are joined; --where {SPLIT}=NAME takes one of them")
    if left_out:
        warnings.append(f"columns that hold neither text nor numbers are not used: {listing(left_out)}")
    about = {"n_rows": sum(counts.values()), "sounds": sounds, "warnings": warnings}
    (made / ABOUT).write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8", newline="\n")


def original(source: Path, name: str, columns: Iterable[str]) -> str:
    """The name of a column of the data that the program calls another one by; `UserError` where it is taken."""
    renamed = f"original_{name}"
    if renamed in columns:
        raise UserError(
            f"{source}: column {name} would be called {renamed}, which is there already; rename one of them"
        )
    return renamed


def _rows(source: Path, sound: str | None) -> Iterator[tuple[str, dict[str, Any], tuple[bytes | None, str | None]]]:
    """Split, the values of the other columns, and content and path of the sound, for each row of a data set."""
    try:
        import datasets
    except ImportError:
        raise UserError(f"{source}: a Hugging Face data set needs the package datasets: {PIP}", BAD_USAGE) from None
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are raised as well
    try:
        for split, data in _splits(source, datasets).items():
            features = data.features or data._resolve_features().features
            column = sound or _sound_column(source, features)
            if column not in features:
                raise UserError(f"{source}: has no column {escape(column)}; its columns are {listing(features)}")
            if isinstance(features[column], datasets.Audio):
                data = data.cast_column(column, datasets.Audio(decode=False))
            names = {
                name: feature.names for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)
            }
            for row in data:
                recorded = row.pop(column)
                for name, of_number in names.items():
                    row[name] = None if row[name] in (None, -1) else of_number[row[name]]
                yield split, row, _sound(recorded)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # of the library, which has many
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{source}: not a readable Hugging Face data set ({reason}); save it again") from None


def _splits(source: Path, datasets: Any) -> Mapping[str, Any]:
    """Each split by its name, "" for the only one of a data set without splits."""
    if files := _parquet_in(source):
        by_split: dict[str, list[str]] = {}
        for file in files:
            found = _SPLIT.fullmatch(file.stem)
            by_split.setdefault(found[1] if found else "", []).append(str(file))
        return {
            name: datasets.load_dataset("parquet", data_files=paths, split="train", streaming=True)
            for name, paths in by_split.items()
        }
    loaded = datasets.load_from_disk(str(source))
    return loaded if isinstance(loaded, datasets.DatasetDict) else {"": loaded}


def _parquet_in(source: Path) -> list[Path]:
    """The parquet files of a data set; `UserError` where they are in several folders, each a data set."""
    if source.is_file():
        return [source] if source.suffix.lower() == ".parquet" else []
    files = sorted(source.glob("*.parquet")) or sorted(source.glob("*/*.parquet"))
    folders = sorted({file.parent.name for file in files})
    if len(folders) > 1:
        raise UserError(f"{source}: has parquet files in several folders ({listing(folders)}); give one of them")
    return files


def _sound_column(source: Path, features: Mapping[str, Any]) -> str:
    """The column of the type Audio, or with bytes and a path as such a column is stored."""
    found = [
        name
        for name, feature in features.items()
        if type(feature).__name__ == "Audio" or isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    ]
    if len(found) == 1:
        return found[0]
    what = f"several columns with sounds ({listing(found)})" if found else "no column with sounds"
    raise UserError(
        f"{source}: has {what}; its columns are {listing(features)}; --columns {SOUND}=NAME names the one to take"
    )


def _sound(recorded: Any) -> tuple[bytes | None, str | None]:
    """The content and the path of a sound, as far as a row has them."""
    if isinstance(recorded, dict):
        return recorded.get("bytes"), recorded.get("path")
    return (recorded, None) if isinstance(recorded, bytes) else (None, recorded)


def _text(value: Any) -> str | None:
    """A value as text, "" for a missing one; None for what is neither text nor number."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (str, int, float)) else None
