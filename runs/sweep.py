"""The values that an experiment's options take, and the combinations of them that each pair runs.

values = option_values(experiment, {"head": ALL, "alpha": (0.5, 1.0)}, lm)    # {"head": (0, 1, …), "alpha": (0.5, 1.0)}
combinations(values)                                                          # [{"head": 0, "alpha": 0.5}, …]
swept(values)                                                                 # ["head", "patch_alpha"]
"""

from collections.abc import Mapping
from itertools import product
from numbers import Integral, Real
from typing import Any

from engine.lm import LM
from errors import BAD_USAGE, UserError
from pairs.shown import shown
from registry.intervention import ALL, Intervention, list_of

Values = dict[str, tuple[Any, ...]]
MOST_VALUES = 1000  # that an option runs over
NAMES = {int: "whole number", float: "number", str: "text", bool: "True or False"}


def option_values(experiment: Intervention, given: Mapping[str, Any], lm: LM) -> Values:
    """Each option of the experiment with its values; defaults where none is given.

    Raises `UserError` for an option that the experiment does not take, and for a value that it or the model does not
    have.
    """
    if not isinstance(experiment, Intervention):
        raise UserError(
            f"{getattr(experiment, '__name__', experiment)!r} is no experiment; @intervention must be its outermost "
            "decorator, above all others",
            BAD_USAGE,
        )
    unknown = [name for name in given if name not in experiment.options]
    if unknown:
        raise UserError(f"{option_flag(unknown[0])}: {experiment.name} takes no such option; leave it out", BAD_USAGE)
    values = {}
    for name, default in experiment.options.items():
        chosen = given.get(name, default)
        most = _number_of_values(experiment, name, given, lm)
        values[name] = values_of(experiment, name, range(most) if chosen is ALL else chosen)
        _check(experiment, name, values[name], most)
    return values


def values_of(experiment: Intervention, name: str, chosen: Any) -> tuple[Any, ...]:
    """One value of an option, or several, as the option has them; `UserError` for one that it cannot have."""
    flag, default = option_flag(name), experiment.options[name]
    kind = int if default is ALL else float if name == "alpha" else type(default)
    choices, values = experiment.choices.get(name, ()), []
    for value in chosen if isinstance(chosen, (tuple, list, range)) else (chosen,):
        fits = isinstance(value, {int: Integral, float: Real}.get(kind, kind))
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise UserError(f"{flag} {shown(value)}: is no {NAMES[kind]}", BAD_USAGE)
        if kind is str and not value.isprintable():
            raise UserError(f"{flag} {shown(value)}: has a control character in it; write it without", BAD_USAGE)
        if choices and value not in choices:
            raise UserError(f"{flag} {shown(value)}: is none of {list_of(choices)}", BAD_USAGE)
        values.append(kind(value))
    return tuple(values)


def _number_of_values(experiment: Intervention, name: str, given: Mapping[str, Any], lm: LM) -> int | None:
    """How many values an option in `over` runs over: as many as the model has, or as another option says."""
    number = experiment.over.get(name)
    if number not in experiment.options:
        return number and getattr(lm, number)
    chosen = given.get(number, experiment.options[number])
    chosen = list(chosen) if isinstance(chosen, (tuple, list)) else [chosen]
    if len(chosen) != 1 or not 1 <= chosen[0] <= MOST_VALUES:
        raise UserError(
            f"{option_flag(number)} {','.join(map(str, chosen))}: give one number from 1 to {MOST_VALUES}, since "
            f"{name} runs over so many values",
            BAD_USAGE,
        )
    return chosen[0]


def _check(experiment: Intervention, name: str, values: tuple[Any, ...], most: int | None) -> None:
    flag = option_flag(name)
    if not values or len(set(values)) < len(values):
        raise UserError(f"{flag}: give each value once, and at least one", BAD_USAGE)
    small = [value for value in values if name in experiment.least and value < experiment.least[name]]
    if small:
        raise UserError(f"{flag} {small[0]:g}: must be at least {experiment.least[name]:g}", BAD_USAGE)
    beyond = [value for value in values if most is not None and value not in range(most)]
    if beyond:
        number = experiment.over[name]
        has = f"{option_flag(number)} {most} has" if number in experiment.options else "the model has"
        raise UserError(f"{flag} {beyond[0]}: {has} 0-{most - 1} ({number} {most})", BAD_USAGE)
    wrong = [value for value in values if name == "alpha" and not 0 < value <= 1]
    if wrong:
        raise UserError(f"{flag} {wrong[0]:g}: a dose is in (0, 1]", BAD_USAGE)


def option_flag(name: str) -> str:
    """An option as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def combinations(values: Values) -> list[dict[str, Any]]:
    """Every combination of the values, the last option changing fastest; one, empty, where there is no option."""
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def swept(values: Values) -> list[str]:
    """The columns of a record that tell the combinations apart."""
    return [column(name) for name, chosen in values.items() if len(chosen) > 1]


def column(name: str) -> str:
    """What an option is called in a record."""
    return "patch_alpha" if name == "alpha" else name
