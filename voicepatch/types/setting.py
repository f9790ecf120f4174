"""How one setting is declared: its type, default, help and stored name, and how its value is read.

    setting = Setting("Maximum number of pairs.", whole_number(minimum=1), stored="max_pairs_{kind}")
    setting.type.read("20")             # 20, from the command line or from a YAML file
    setting.type.read("many")           # ValueError: 'many' is not a whole number of at least 1

`Settings` (settings.py) holds all of them. Imports neither torch nor click.
"""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from voicepatch.errors import can_be_written
from voicepatch.text import short_repr
from voicepatch.types.task import load_task

LARGEST_NUMBER = 2**64 - 1
MOST_LAYERS = 10_000


@dataclass(frozen=True)
class ValueType:
    """What a value may be: how help shows it, and a function that reads it and raises `ValueError`."""

    metavar: str
    read: Callable[[Any], Any]
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """One setting: the declaration that the command line, the settings file and the run directory share.

    `stored` is its name in patching_config.json and in the settings file (the setting's own name if None);
    `recorded` whether a run stores it, and `compared` whether two runs with other values are different runs.
    `inherited` says which experiments take the value of the main experiment of their run. `default_text` describes a
    default that is not a fixed value; `off_flag` is the flag that switches a setting off.
    """

    help: str
    type: ValueType
    stored: str | None = None
    recorded: bool = False
    compared: bool = False
    inherited: Literal["never", "by controls", "by all"] = "never"
    default_text: str = ""
    off_flag: str = ""
    name: str = ""
    default: Any = None

    @property
    def flag(self) -> str:
        """The setting as an option of the command line."""
        return option_flag(self.name)


def option_flag(name: str) -> str:
    """A setting's or an option's name as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def _wrong(value: Any, expected: str) -> ValueError:
    return ValueError(f"{short_repr(value)} is not {expected}")


def _read_switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value, "true or false")
    return value


SWITCH = ValueType("", _read_switch)


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(value, "text; put it in quotes")
    if not value.strip():
        raise ValueError("it is empty; give a value, or leave it out")
    if not value.isprintable():
        raise ValueError(f"{short_repr(value)} contains a control character; write it without")
    return value


TEXT = ValueType("TEXT", _read_text)
TASK = ValueType("NAME|FILE", lambda value: load_task(_read_text(value)))


def choice(*choices: str) -> ValueType:
    """One of some words."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _wrong(value, f"one of {', '.join(choices)}")
        return value

    return ValueType(f"[{'|'.join(choices)}]", read, choices)


def whole_number(minimum: int, maximum: int = LARGEST_NUMBER) -> ValueType:
    """A whole number in a range."""
    limits = f"of at least {minimum}" if maximum == LARGEST_NUMBER else f"from {minimum} to {maximum}"

    def read(value: Any) -> int:
        digits = str(value).strip() if isinstance(value, str) else ""
        if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]{1,30}", digits):
            value = int(digits)
        if type(value) is not int or not minimum <= value <= maximum:
            raise _wrong(value, f"a whole number {limits}")
        return value

    return ValueType("INTEGER", read)


def number(minimum: float, maximum: float) -> ValueType:
    """A number in a range."""

    def read(value: Any) -> float:
        try:
            found = math.nan if isinstance(value, (bool, list, dict)) else float(value)
        except (TypeError, ValueError, OverflowError):
            found = math.nan
        if not minimum <= found <= maximum:
            raise _wrong(value, f"a number from {minimum:g} to {maximum:g}")
        return found

    return ValueType("FLOAT", read)


def number_or(word: str, minimum: int, maximum: int = LARGEST_NUMBER) -> ValueType:
    """A whole number in a range, or one word such as `all`."""
    numbers = whole_number(minimum, maximum)

    def read(value: Any) -> int | str:
        if value == word:
            return word
        try:
            return numbers.read(value)
        except ValueError as error:
            raise ValueError(f"{error}, and not {word}") from None

    return ValueType(f"N|{word}", read)


def _read_layers(value: Any) -> tuple[int, ...] | None:
    if value == "all":
        return None
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    layers: set[int] = set()
    for part in parts:
        found = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", str(part))
        if found is None or not isinstance(part, (int, str)) or isinstance(part, bool):
            raise _wrong(part, "a layer or a range of layers; write for example 20,22,24-30")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise ValueError(f"{part} runs backwards; write {last}-{first}")
        if last > MOST_LAYERS:
            raise ValueError(f"{part}: no model has that many layers")
        layers |= set(range(first, last + 1))
    if not layers:
        raise ValueError("it lists no layer; list some, or leave it out for all")
    return tuple(sorted(layers))


LAYERS = ValueType("LAYERS", _read_layers)


def _read_device(value: Any) -> str:
    if not re.fullmatch(r"(cpu|cuda|mps)(:\d{1,3})?", str(value)):
        raise _wrong(value, "a device; use cpu, cuda or cuda:N")
    return str(value)


DEVICE = ValueType("TEXT", _read_device)


def _checked_path(value: Any) -> str:
    """A path with `~` expanded; an empty one is refused, since to `pathlib` it is the current directory."""
    if not isinstance(value, (str, os.PathLike)):
        raise _wrong(value, "text; put it in quotes")
    text = os.fspath(value)
    if not text.strip():
        raise ValueError("it is empty; give a value, or leave it out")
    if "\0" in text:
        raise ValueError(f"{short_repr(text)} contains a zero byte")
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
