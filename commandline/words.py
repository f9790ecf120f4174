"""What the words of the command line are turned into: an intervention's name, layers, values of an option.

    click.option("--layers", type=LayerList())

Imports neither torch nor pandas, so that help comes at once.
"""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from errors import can_be_written
from registry.catalogue import catalogue, find, refuse_broken
from registry.intervention import ALL, list_of

MOST_VALUES = 1000
MAX_SEED = 2**64 - 1  # what a generator of torch takes
SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class InterventionName(click.ParamType):
    """The name of an intervention other than the main one, or `all`."""

    name = "name"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"[{'|'.join([*controls(), 'all'])}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        entry = find(value)
        if entry is None:
            refuse_broken(value)
        if value != "all" and (entry is None or entry.name == "patch"):
            names = ", ".join(name for name in [*catalogue(), "all"] if name != "patch")
            self.fail(f"{value!r} is not one of {names}", param, ctx)
        return entry.name if entry else value


def controls() -> list[str]:
    """Names of the controls, the silent one first."""
    return sorted((name for name, entry in catalogue().items() if entry.control), key=lambda name: name != "self")


class Values(click.ParamType):
    """One value of an intervention's option, or several: `0.1,0.5,1`, `0-15`, a list of the configuration file.

    `kind` is int, float, bool or str; `has_all` says that `all` stands for every value that the model has; `least` is
    the smallest number that makes sense, `choices` are all values that do.
    """

    def __init__(
        self, name: str, kind: type, has_all: bool = False, least: float | None = None, choices: Sequence[Any] = ()
    ):
        self.option, self.kind, self.has_all, self.least, self.choices = name, kind, has_all, least, choices
        self.name = {int: "integer", float: "float", bool: "boolean", str: "text"}[kind]

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"{'[' + '|'.join(map(str, self.choices)) + ']' if self.choices else self.name.upper()}[,...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value is ALL or (self.has_all and value == "all"):
            return ALL
        parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
        if isinstance(value, str) and not all(part.strip() for part in parts):
            self.fail(
                f"{str(value)[:80]!r} has an empty value; write one, or several with commas between them", param, ctx
            )
        values = [found for part in parts for found in self._of(part, param, ctx)]
        if not values or len(set(values)) < len(values):
            self.fail(f"{str(value)[:80]!r}: give each value once, and at least one", param, ctx)
        if len(values) > MOST_VALUES:
            self.fail(f"{len(values):,} values; at most {MOST_VALUES:,} can be swept", param, ctx)
        return tuple(values)

    def _of(self, part: Any, param: click.Parameter | None, ctx: click.Context | None) -> Sequence[Any]:
        text = str(part).strip()
        if self.kind is int and (found := re.fullmatch(r"(\d{1,9})-(\d{1,9})", text)):
            first, last = map(int, found.groups())
            if last < first or last - first > MOST_VALUES:
                self.fail(f"{text!r} runs backwards or too far; write the smaller number first", param, ctx)
            if self.choices and not set(range(first, last + 1)) <= set(self.choices):
                self.fail(f"{text!r} is none of {list_of(self.choices)}", param, ctx)
            return range(first, last + 1)
        if self.kind is bool:
            if text.lower() not in SWITCHES:
                self.fail(f"{text[:40]!r} is neither true nor false", param, ctx)
            return [SWITCHES[text.lower()]]
        try:
            number = self.kind(text)
        except ValueError:
            more = " or range, as in 0-15" if self.kind is int else ""
            self.fail(f"{text[:40]!r} is no {self.name}{more}; write several with commas between them", param, ctx)
        if self.kind is str and not text.isprintable():
            self.fail(f"{text[:40]!r} has a control character in it; write it without", param, ctx)
        if self.kind is float and not math.isfinite(number):
            self.fail(f"{text!r} is no number that can be computed with", param, ctx)
        if self.option == "alpha" and not 0 < number <= 1:
            self.fail(f"{text} is not in (0, 1]: 1 replaces A's value, less mixes B's into it", param, ctx)
        if self.least is not None and number < self.least:
            self.fail(f"{text[:40]} is too small; the least is {self.least:g}", param, ctx)
        if self.kind is int and abs(number) >= 2**63:
            self.fail(f"{text[:40]} is too large", param, ctx)
        if self.choices and number not in self.choices:
            self.fail(f"{text[:40]!r} is none of {list_of(self.choices)}", param, ctx)
        return [number]


class WorkerCount(click.ParamType):
    """A number of workers, 0 for none, or `auto`."""

    name = "workers"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        text = str(value).strip()
        if text == "auto":
            return text
        if isinstance(value, bool) or not text.isdecimal() or int(text[:9]) > MOST_VALUES or len(text) > 9:
            self.fail(f"{text[:40]!r} is no number of workers; write one up to {MOST_VALUES}, or auto", param, ctx)
        return int(text)


class Whole(click.IntRange):
    """A whole number in a range, called so in help and messages."""

    name = "integer"


class PairCount(Whole):
    """A number of pairs, or `all`."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return value if value == "all" else super().convert(value, param, ctx)


class Share(click.FloatRange):
    """A number in a range; "not a number" is none of them."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail("it is not a number", param, ctx)
        return number


SEED = Whole(0, MAX_SEED)


class Place(click.Path):
    """A path of a file or folder, there or not; `~` is the home directory, also in a settings file and in quotes.

    An empty one is refused: to `pathlib` it is the current directory, which nobody means who leaves a variable empty.
    """

    def __init__(self, **what: Any):
        super().__init__(path_type=Path, **what)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        text = checked_place(self, os.fspath(value), param, ctx)
        try:
            Path(text).exists()
        except OSError as error:  # a name too long for the file system, a folder that may not be entered
            self.fail(f"{text[:80]!r} can be no path here ({error.strerror})", param, ctx)
        return super().convert(os.path.expanduser(text), param, ctx)


class ModelName(click.ParamType):
    """A checkpoint folder or a hub id."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return os.path.expanduser(checked_place(self, str(value), param, ctx))


class DeviceName(click.ParamType):
    """`cpu`, `cuda`, `cuda:N` or `mps`; whether the machine has it, only torch knows."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"(cpu|cuda|mps)(:\d{1,3})?", str(value)):
            self.fail(f"{str(value)[:40]!r} is no device; use cpu, cuda or cuda:N", param, ctx)
        return str(value)


def checked_place(kind: click.ParamType, text: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
    """`text`, unless it is empty, has a zero byte, which no system takes in a path, or names a place not in UTF-8."""
    if not text.strip():
        kind.fail("it is empty; name one, or leave the option out", param, ctx)
    if "\0" in text:
        kind.fail(f"{text[:80]!r} holds a zero byte", param, ctx)
    if os.sep == "/" and "\\" in text and not os.path.lexists(text):
        kind.fail(f"{text[:80]} has backslashes, which separate no folders on this system; write /", param, ctx)
    place = os.path.abspath(os.path.expanduser(text))
    if not can_be_written(place):
        kind.fail(f"{place}: is not in UTF-8; rename the file or folder, or give a link to it", param, ctx)
    return text


class LayerList(click.ParamType):
    """`20,22,24-30`, `all`, or a list of numbers from the configuration file."""

    name = "layers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...] | None:
        if value == "all":
            return None
        parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
        layers: list[int] = []
        for part in parts:
            first, dash, last = str(part).strip().partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()) or isinstance(part, bool):
                self.fail(f"{part!r} is not a layer or a range; write for example 20,22,24-30", param, ctx)
            # A range far beyond any model would only fill the memory before the model refuses it.
            if max(len(first), len(last)) > 9 or int(last or first) > 10_000:
                self.fail(f"{str(part)[:40]!r}: no model has so many layers", param, ctx)
            if dash and int(last) < int(first):
                self.fail(f"{part!r} runs backwards; write {last}-{first}", param, ctx)
            layers += range(int(first), int(last or first) + 1)
        return tuple(sorted(set(layers)))
