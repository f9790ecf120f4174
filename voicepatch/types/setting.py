"""How one setting is declared: its type, default, help and stored name, and how its value is read.

    max_pairs: Annotated[Positive, Setting("Maximum number of pairs.", stored="max_pairs_{kind}")] = 100

    DECLARED["max_pairs"].type.read("20")        # 20, from the command line or from a YAML file
    DECLARED["max_pairs"].type.read("many")      # ValueError: 'many' is not a whole number, x>=1

`Settings` (settings.py) holds all of them. Imports neither torch nor click.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from voicepatch.errors import can_be_written
from voicepatch.text import nfc, short_repr
from voicepatch.types.task import load_task

LARGEST_NUMBER = 2**63 - 1
MOST_LAYERS = 10_000
Positive = Annotated[int, Meta(ge=1, le=LARGEST_NUMBER)]
Natural = Annotated[int, Meta(ge=0, le=LARGEST_NUMBER)]
Distance = Annotated[float, Meta(ge=0, le=1000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Device = Annotated[
    str,
    Meta(
        pattern=r"^(cpu|cuda|mps)(:\d{1,3})?(,cuda:\d{1,3})*$",
        description="a device; use cpu, cuda or cuda:N, or several as in cuda:0,cuda:1",
    ),
]


@dataclass(frozen=True)
class ValueType:
    """What a value may be: how help shows it, its range, and a function that reads it and raises `ValueError`."""

    metavar: str
    read: Callable[[Any], Any]
    range: str = ""
    repeatable: bool = False  # on the command line; the settings file has a list


@dataclass(frozen=True)
class Setting:
    """One setting: the declaration that the command line, the settings file and the run directory share.

    `reads` is the type of its values where the annotation of the field does not say it. `stored` is its name in
    patching_config.json and in the settings file (the setting's own name if None); `recorded` whether a run stores it,
    and `compared` whether two runs with other values are different runs. `inherited` says which experiments take the
    value of the main experiment of their run. `default_text` describes a default that is not a fixed value; `off_flag`
    is the flag that switches a setting off.
    """

    help: str
    reads: ValueType | None = None
    stored: str | None = None
    recorded: bool = False
    compared: bool = False
    inherited: Literal["never", "by controls", "by all"] = "never"
    default_text: str = ""
    off_flag: str = ""
    name: str = ""
    default: Any = None
    annotation: Any = None

    @property
    def type(self) -> ValueType:
        """The type of its values."""
        return self.reads or type_of(self.annotation)

    @property
    def flag(self) -> str:
        """The setting as an option of the command line."""
        return option_flag(self.name)


def option_flag(name: str) -> str:
    """A setting's or an option's name as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def range_text(minimum: float | None, maximum: float | None, exclusive: bool = False) -> str:
    """The range of a number x as help and messages show it: `x>=1`, `0<x<=1`; "" where it has none."""
    if maximum in (None, LARGEST_NUMBER):
        return "" if minimum is None else f"x{'>' if exclusive else '>='}{minimum:g}"
    return f"{minimum:g}{'<' if exclusive else '<='}x<={maximum:g}"


def type_of(annotation: Any) -> ValueType:
    """The type that an annotation says: a number with a range, words in `Literal`, both, true or false, or text."""
    each = [_described(part) for part in _parts(annotation)]
    expected = " or ".join(expected for _, expected, _ in each)

    def read(value: Any) -> Any:
        if value is None or value == "" or isinstance(value, str) and not value.isprintable():
            raise ValueError(f"{short_repr(value)} is not {expected}")
        try:
            return msgspec.convert(value, annotation, strict=not isinstance(value, str))
        except msgspec.ValidationError:
            raise ValueError(f"{short_repr(value)} is not {expected}") from None

    return ValueType("|".join(metavar for metavar, _, _ in each), read, each[0][2])


def without_none(annotation: Any) -> Any:
    """The type of an optional value where it is given."""
    return Union[tuple(part for part in _parts(annotation) if part is not NoneType)]  # noqa: UP007


def _parts(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _described(annotation: Any) -> tuple[str, str, str]:
    """How help shows a value, what a message says of it, and its range."""
    if get_origin(annotation) is Literal:
        words = get_args(annotation)
        if len(words) == 1:
            return words[0], words[0], ""
        return f"[{'|'.join(words)}]", f"one of {', '.join(words)}", ""
    kind, meta = get_args(annotation) if get_origin(annotation) is Annotated else (annotation, Meta())
    limits = range_text(meta.ge, meta.le)
    metavar, noun = {
        bool: ("", "true or false"),
        int: ("INTEGER", "a whole number"),
        float: ("FLOAT", "a number"),
        str: ("TEXT", "text; put it in quotes, and leave out control characters"),
    }[kind]
    return metavar, meta.description or (f"{noun} ({limits})" if limits else noun), limits


SWITCH, TEXT = type_of(bool), type_of(str)
TASK = ValueType("NAME|FILE", lambda value: load_task(TEXT.read(value)))


def _read_layers(value: Any) -> tuple[int, ...] | None:
    if value == "all":
        return None
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    layers: set[int] = set()
    for part in parts:
        found = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", str(part))
        if found is None or not isinstance(part, (int, str)) or isinstance(part, bool):
            raise ValueError(f"{short_repr(part)} is not a layer or a range of layers; write for example 20,22,24-30")
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last <= MOST_LAYERS:
            raise ValueError(f"{part} runs backwards, or past layer {MOST_LAYERS}")
        layers |= set(range(first, last + 1))
    if not layers:
        raise ValueError("it lists no layer; list some, or leave it out for all")
    return tuple(sorted(layers))


LAYERS = ValueType("LAYERS", _read_layers)


def _read_texts(value: Any, is_right: Callable[[str], bool], expected: str) -> tuple[str, ...]:
    parts = value if isinstance(value, (list, tuple)) else [value]
    for part in parts:
        if not isinstance(part, str) or not part.isprintable() or not is_right(part):
            raise ValueError(f"{short_repr(part)} is not {expected}")
    return tuple(dict.fromkeys(nfc(part.strip()) for part in parts))


def _read_conditions(value: Any) -> tuple[str, ...]:
    def is_condition(part: str) -> bool:
        column, _, values = part.partition("=")
        return bool(column.strip() and values.strip())

    found = _read_texts(value, is_condition, "COLUMN=VALUE; write for example text_type=explicit")
    return tuple(sorted(found))


WHERE = ValueType("[a.|b.]COLUMN=VALUE[,VALUE]", _read_conditions, repeatable=True)
BY = ValueType(
    "COLUMN", lambda value: _read_texts(value, lambda part: bool(part.strip()), "the name of a column"), repeatable=True
)


def _read_columns(value: Any) -> tuple[tuple[str, str], ...]:
    pairs = (
        list(value.items()) if isinstance(value, dict) else [part.split("=", 1) for part in TEXT.read(value).split(",")]
    )
    found: dict[str, str] = {}
    for pair in pairs:
        name, column = [str(part).strip() for part in pair] if len(pair) == 2 else ("", "")
        if not name or not column:
            raise ValueError(
                f"{short_repr('='.join(map(str, pair)))} is not NAME=COLUMN, for example text=transcription"
            )
        if name in found or column in found.values():
            raise ValueError(f"{name}={column} names a column twice; keep one")
        found[name] = column
    return tuple(found.items())


COLUMNS = ValueType("NAME=COLUMN,...", _read_columns)


def _checked_path(value: Any) -> str:
    """A path with `~` expanded; an empty one is an error, since to `pathlib` it is the current directory."""
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"{short_repr(value)} is not text; put it in quotes")
    text = os.fspath(value)
    if not text.strip() or "\0" in text:
        raise ValueError(f"{short_repr(text)} is empty, or contains a zero byte")
    if os.sep == "/" and "\\" in text and not os.path.lexists(text):
        raise ValueError(f"{text[:80]} has backslashes, which do not separate folders on this system; write /")
    place = os.path.abspath(os.path.expanduser(text))
    if not can_be_written(place):
        raise ValueError(f"{place}: is not in UTF-8; rename the file or folder, or give a link to it")
    return os.path.expanduser(text)


MODEL = ValueType("TEXT", _checked_path)  # a folder or a hub id


def path(*, may_be_file: bool = True, may_be_folder: bool = True, must_exist: bool = False) -> ValueType:
    """A path of a file or folder, which need not be there unless `must_exist`."""
    metavar = "PATH" if may_be_file and may_be_folder else "FILE" if may_be_file else "FOLDER"

    def read(value: Any) -> Path:
        found = Path(_checked_path(value))
        try:
            exists = found.exists()
        except OSError as error:  # a name too long for the file system, a folder that may not be entered
            raise ValueError(f"{short_repr(str(found))} cannot be a path here ({error.strerror})") from None
        if not exists and must_exist:
            raise ValueError(f"{found} does not exist")
        if exists and not may_be_folder and found.is_dir():
            raise ValueError(f"{found} is a folder; name a file")
        if exists and not may_be_file and not found.is_dir():
            raise ValueError(f"{found} is a file; name a folder")
        return found

    return ValueType(metavar, read)
