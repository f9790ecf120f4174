"""What the words of the command line are turned into: an intervention's name, layers, values of an option.

    click.option("--layers", type=LayerList())

Imports neither torch nor pandas, so that help comes at once.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import click

from registry.catalogue import catalogue, find
from registry.intervention import ALL

MOST_VALUES = 1000
SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class InterventionName(click.ParamType):
    """The name of an intervention other than the main one, or `all`."""

    name = "name"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"[{'|'.join([*controls(), 'all'])}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        entry = find(value)
        if value != "all" and (entry is None or entry.name == "patch"):
            names = ", ".join(name for name in [*catalogue(), "all"] if name != "patch")
            self.fail(f"{value!r} is not one of {names}", param, ctx)
        return entry.name if entry else value


def controls() -> list[str]:
    """Names of the controls, the silent one first."""
    return sorted((name for name, entry in catalogue().items() if entry.control), key=lambda name: name != "self")


class Values(click.ParamType):
    """One value of an intervention's option, or several: `0.1,0.5,1`, `0-15`, a list of the configuration file.

    `kind` is int, float, bool or str; `has_all` says that `all` stands for every value that the model has.
    """

    def __init__(self, name: str, kind: type, has_all: bool = False):
        self.option, self.kind, self.has_all = name, kind, has_all
        self.name = {int: "integer", float: "float", bool: "boolean", str: "text"}[kind]

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"{self.name.upper()}[,...]"

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
        if self.kind is float and not math.isfinite(number):
            self.fail(f"{text!r} is no number that can be computed with", param, ctx)
        if self.option == "alpha" and not 0 < number <= 1:
            self.fail(f"{text} is not in (0, 1]: 1 replaces A's value, less mixes B's into it", param, ctx)
        if self.kind is int and abs(number) >= 2**63:
            self.fail(f"{text[:40]} is too large", param, ctx)
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
