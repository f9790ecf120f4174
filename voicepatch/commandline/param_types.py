"""Types of the command line's parameters: a declared setting, an experiment's own option, an experiment's name.

    click.option("--seed", type=ParamType(DECLARED["seed"].type))

Imports neither torch nor pandas, so that help comes at once.
"""

import re
from collections.abc import Sequence
from typing import Any

import click

from voicepatch.registry.catalogue import catalogue, find, refuse_broken
from voicepatch.registry.options import ALL, TYPES, Option
from voicepatch.text import short_repr
from voicepatch.types.setting import ValueType

MOST_VALUES = 1000
METAVARS = {int: "INTEGER", float: "FLOAT", bool: "BOOLEAN", str: "TEXT"}
SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class ParamType(click.ParamType):
    """A parameter whose values a `ValueType` reads."""

    name = "value"

    def __init__(self, value_type: ValueType):
        self.value_type = value_type

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.value_type.metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.value_type.read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class InterventionName(click.ParamType):
    """The name of an intervention other than the main one, or `all`."""

    name = "name"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"[{'|'.join([*controls(), 'all'])}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        entry = find(value)
        if entry is None:
            refuse_broken(value)
        if value != "all" and (entry is None or entry.main):
            names = ", ".join([*(name for name, entry in catalogue().items() if not entry.main), "all"])
            self.fail(f"{value!r} is not one of {names}", param, ctx)
        return entry.name if entry else value


class ControlCommand(click.Command):
    """The command `control`, whose help says what each control must show."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        expected = [(name, catalogue()[name].expected) for name in controls()]
        with formatter.section("What each control must show"):
            formatter.write_dl([line for line in expected if line[1]])


def controls() -> list[str]:
    """Names of the controls, those that must change nothing first."""
    entries = [entry for entry in catalogue().values() if entry.control]
    return [entry.name for entry in sorted(entries, key=lambda entry: not entry.must_change_nothing)]


def option_type(option: Option) -> ValueType:
    """An experiment's own option: one value or several, as `0.1,0.5,1`, `0-15`, or a list of the settings file.

    `all` stands for every value that the model has, where the option runs over them.
    """

    def read(value: Any) -> Any:
        if value is ALL or (option.range_of and value == "all"):
            return ALL
        parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
        if isinstance(value, dict) or not all(isinstance(part, (bool, int, float, str)) for part in parts):
            raise ValueError(f"{short_repr(value)} is not a value, or several as in [2, 3]")
        if isinstance(value, str) and not all(part.strip() for part in parts):
            raise ValueError(f"{short_repr(value)} has an empty value; write one, or several with commas between them")
        texts = [str(part).strip() for part in parts]
        values = [v for text in texts for v in ([text] if text in option.further else _parsed(option.type, text))]
        for found in values:
            if error := option.error(found):
                written = f"{found:g}" if isinstance(found, float) else repr(str(found)[:40])
                raise ValueError(f"{written} {error}")
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{short_repr(value)}: give each value once, and at least one")
        if len(values) > MOST_VALUES:
            raise ValueError(f"{len(values):,} values; at most {MOST_VALUES:,} can be swept")
        return tuple(values)

    metavar = f"[{'|'.join(map(str, option.choices))}]" if option.choices else METAVARS[option.type]
    return ValueType(f"{metavar}[,...]", read)


def _parsed(kind: type, text: str) -> Sequence[Any]:
    """The values that a text stands for: one, or those of a range of whole numbers."""
    if kind is int and (found := re.fullmatch(r"(\d{1,9})-(\d{1,9})", text)):
        first, last = map(int, found.groups())
        if last < first or last - first > MOST_VALUES:
            raise ValueError(f"{text!r} runs backwards or too far; write the smaller number first")
        return range(first, last + 1)
    if kind is bool:
        if text.lower() not in SWITCHES:
            raise ValueError(f"{short_repr(text)} is neither true nor false")
        return [SWITCHES[text.lower()]]
    try:
        return [kind(text)]
    except ValueError:
        more = " or range, as in 0-15" if kind is int else ""
        raise ValueError(
            f"{short_repr(text)} is not {TYPES[kind]}{more}; write several with commas between them"
        ) from None
