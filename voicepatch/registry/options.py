"""The options of an experiment, made once from the signature of its function.

    @intervention(range_of={"head": "n_heads"}, minimum={"k": 1})
    def idea(lm, pair, layer, head, k=3, at: Literal["span", "after"] = "span", alpha=1.0): ...

    idea.options["k"]           # Option("k", int, 3, minimum=1)
    idea.options["k"].error(0)  # "must be at least 1"

The command line, Python and the stored settings use these declarations.
"""

import enum
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from voicepatch.analysis.metrics import reserved
from voicepatch.errors import UserError
from voicepatch.types.setting import LARGEST_NUMBER, option_flag, range_text

FIRST = ("lm", "pair", "layer")
TYPES = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
STARS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


class All(enum.Enum):
    """The type of `ALL`: an option runs over all values that the model has."""

    ALL = "all"

    def __str__(self) -> str:
        return self.value


ALL = All.ALL


@dataclass(frozen=True)
class Option:
    """An option of an experiment.

    `default` is `ALL` for an option with `range_of`, which runs over the numbers below that attribute of the model, or
    below that option of the experiment, and then over the texts `further`. `exclusive` excludes the minimum itself.
    `stored` is its name in files.
    """

    name: str
    type: type
    default: Any
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    exclusive: bool = False
    range_of: str = ""
    further: tuple[str, ...] = ()
    help: str = ""
    stored: str = ""

    @property
    def flag(self) -> str:
        """The option as it is written on the command line."""
        return option_flag(self.name)

    @property
    def range(self) -> str:
        """The range of a number as help shows it; "" where it has none."""
        return "" if self.range_of else range_text(self.minimum, self.maximum, self.exclusive)

    def error(self, value: Any) -> str:
        """What is wrong with one value, as the end of a message; "" where nothing is."""
        if value in self.further:
            return ""
        accepted: Any = {int: Integral, float: Real}.get(self.type, self.type)
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.type is not bool):
            return f"is not {TYPES[self.type]}"
        if self.choices and value not in self.choices:
            return f"is not one of {', '.join(map(str, self.choices))}"
        if isinstance(value, str):
            return "" if value.isprintable() else "contains a control character; write it without"
        if not math.isfinite(value) or (self.type is int and abs(value) > LARGEST_NUMBER):
            return "is not finite, or too large"
        low, high = (value if limit is None else limit for limit in (self.minimum, self.maximum))
        if not low <= value <= high or (self.exclusive and value == low):
            return f"is not in the range {range_text(self.minimum, self.maximum, self.exclusive)}"
        return ""


ALPHA = Option(
    "alpha",
    float,
    1.0,
    minimum=0,
    maximum=1,
    exclusive=True,
    help="Dose: (1 - alpha) * A + alpha * B is written; 0.1,0.5,1 is a sweep.",
    stored="patch_alpha",
)


def stored_name(name: str) -> str:
    """The name of an option in records, tables and configuration files."""
    return ALPHA.stored if name == ALPHA.name else name


def options_of(
    where: str,
    name: str,
    doc: str,
    parameters: Sequence[inspect.Parameter],
    range_of: Mapping[str, str | tuple[str, ...]],
    minimum: Mapping[str, float],
) -> dict[str, Option]:
    """The options of the function `name`; `UserError`, beginning with `where`, for a parameter that cannot be one.

    Of the annotations, plain types and `Literal` count. A line `name: what it is` of `doc` is the help of an option.
    """
    _check_parameters(where, name, parameters, range_of)
    helps = dict(re.findall(r"^\s*(\w+): (.+)$", doc, flags=re.MULTILINE))
    options = {}
    for parameter in parameters[len(FIRST) :]:
        option = _typed(f"{where}: the option {parameter.name} of {name}", parameter)
        number, *further = _as_tuple(range_of.get(option.name, ""))
        option = replace(option, help=helps.get(option.name, option.help), range_of=number, further=tuple(further))
        options[option.name] = replace(option, minimum=0) if option.range_of else option
    for key, value in minimum.items():
        if key not in options or not _is_number(options[key].default) or not _is_number(value):
            raise UserError(
                f"{where}: minimum= has {key}: {value!r}; {name} has no option {key} with a number as its default"
            )
        options[key] = replace(options[key], minimum=value)
    for option in options.values():
        error = "" if option.default is ALL else option.error(option.default)
        if error:
            raise UserError(f"{where}: the option {option.name} of {name}: its default {option.default!r} {error}")
    return options


def _check_parameters(
    where: str, name: str, parameters: Sequence[inspect.Parameter], range_of: Mapping[str, str | tuple[str, ...]]
) -> None:
    names = [STARS.get(parameter.kind, "") + parameter.name for parameter in parameters]
    has_default = {parameter.name: parameter.default is not parameter.empty for parameter in parameters}
    missing = [option for option in names[len(FIRST) :] if not has_default.get(option) and option not in range_of]
    if tuple(names[: len(FIRST)]) != FIRST or missing:
        found = f"{', '.join(missing)} has none" if missing else f"it takes ({', '.join(names)})"
        wraps = "; a decorator between @intervention and the function must use functools.wraps"
        raise UserError(
            f"{where}: {name} must take (lm, pair, layer) and then options with defaults, as in "
            f"def {name}(lm, pair, layer, alpha=1.0); {found}{wraps if '*args' in names else ''}"
        )
    for option, number in range_of.items():
        texts = _as_tuple(number)
        if option not in names[len(FIRST) :] or not all(isinstance(t, str) and t.isidentifier() for t in texts):
            raise UserError(
                f"{where}: range_of= must give the number of values of an option of {name}, as in "
                f'range_of={{"head": "n_heads"}}; it has {option!r}: {number!r}'
            )
        if has_default[option]:
            raise UserError(
                f"{where}: {option} of {name} is in range_of=, so it takes all its values, but has a default; remove "
                f"the default, as in def {name}(lm, pair, layer, {option})"
            )


def _as_tuple(number: Any) -> tuple[Any, ...]:
    """The number that an option runs over, and the texts after it, from a value of `range_of`."""
    return number if isinstance(number, tuple) and number else (number,)


def _typed(what: str, parameter: inspect.Parameter) -> Option:
    """The option with its type, default and choices; `UserError` where these contradict each other."""
    name, default = parameter.name, parameter.default
    if name in reserved():
        raise UserError(f"{what} has the name of a column of the records, or of a table made from them; rename it")
    if default is parameter.empty:
        default = ALL
    elif type(default) not in TYPES:
        raise UserError(
            f"{what} must have one plain value as its default (a number, text, True or False), not {default!r}; "
            "several are given when it runs"
        )
    choices = literals(parameter.annotation)
    if len({type(choice) for choice in choices}) > 1 or not all(type(choice) in TYPES for choice in choices):
        raise UserError(f"{what} has choices of several types; write numbers alone, or text alone")
    if any(isinstance(choice, str) and (not choice.isprintable() or "," in choice) for choice in choices):
        raise UserError(f"{what} has a choice that contains a comma or a control character; write another one")
    annotated = type(choices[0]) if choices else next((t for t in TYPES if parameter.annotation is t), None)
    kind = int if default is ALL else type(default)
    if name == ALPHA.name:
        return replace(ALPHA, default=float(default) if kind is int else default)
    if annotated is float and kind is int and default is not ALL:
        kind, default = float, float(default)
    if annotated not in (None, kind):
        raise UserError(f"{what} is annotated as {annotated.__name__}, which {default!r} is not")
    return Option(name, kind, default, choices, stored=name)


def literals(annotation: Any) -> tuple[Any, ...]:
    """The values of a `Literal`, also of one in `Annotated`, `Optional` or a union of several; () for anything else."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return parts
    if origin is Annotated:
        return literals(parts[0])
    if origin in (Union, UnionType):
        each = [literals(part) for part in parts if part is not NoneType]
        return tuple(chain.from_iterable(each)) if all(each) else ()
    return ()


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
