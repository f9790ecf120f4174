"""The values that an experiment's options take, and the combinations of them that each pair runs.

values = option_values(experiment, {"head": ALL, "alpha": (0.5, 1.0)}, subject)     # {"head": (0, 1, …), …}
combinations(values)                                                          # [{"head": 0, "alpha": 0.5}, …]
swept(values)                                                                 # ["head", "patch_alpha"]
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

from voicepatch.engine.mistakes import place_of
from voicepatch.engine.subject import Subject
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.registry.intervention import Intervention
from voicepatch.registry.options import ALL, Option, stored_name
from voicepatch.text import escape
from voicepatch.types.setting import option_flag

Values = dict[str, tuple[Any, ...]]
MOST_VALUES = 1000  # that an option runs over


def option_values(experiment: Intervention, given: Mapping[str, Any], subject: Subject) -> Values:
    """Each option of the experiment with its values; defaults where none is given.

    Raises `UserError` for an option that the experiment does not take, and for a value that it or the model does not
    have.
    """
    if not isinstance(experiment, Intervention):
        raise UserError(
            f"{getattr(experiment, '__name__', experiment)!r} is not an experiment; @intervention must be its "
            "outermost decorator, above all others",
            BAD_USAGE,
        )
    unknown = [name for name in given if name not in experiment.options]
    if unknown:
        raise UserError(f"{option_flag(unknown[0])}: {experiment.name} takes no such option; leave it out", BAD_USAGE)
    values = {}
    for option in experiment.options.values():
        chosen = given.get(option.name, option.default)
        if not option.range_of:
            values[option.name] = values_of(option, chosen)
            continue
        size = _size(experiment, option, given, subject)
        values[option.name] = values_of(option, (*range(size), *option.further) if chosen is ALL else chosen)
        for value in values[option.name]:
            if value not in option.further and value >= size:
                limit = (
                    f"{option_flag(option.range_of)} {size}" if option.range_of in experiment.options else "the model"
                )
                further = "".join(f" and {text}" for text in option.further)
                raise UserError(
                    f"{option.flag} {value}: {limit} has 0-{size - 1}{further} ({option.range_of} {size})", BAD_USAGE
                )
    return values


def values_of(option: Option, chosen: Any) -> tuple[Any, ...]:
    """One value of an option, or several, in the option's type; `UserError` for one that it cannot have."""
    values = tuple(chosen) if isinstance(chosen, (tuple, list, range)) else (chosen,)
    for value in values:
        if error := option.error(value):
            raise UserError(f"{option.flag} {escape(value)}: {error}", BAD_USAGE)
    if not values or len(set(values)) < len(values):
        raise UserError(f"{option.flag}: give each value once, and at least one", BAD_USAGE)
    return tuple(value if value in option.further else option.type(value) for value in values)


def _size(experiment: Intervention, option: Option, given: Mapping[str, Any], subject: Subject) -> int:
    """The number of values of an option with `range_of`: the model's, or the value of another option."""
    other = experiment.options.get(option.range_of)
    if other is None:
        size = getattr(subject.engine.written, option.range_of, getattr(subject, option.range_of, None))
        if not isinstance(size, int) or not size:
            raise UserError(
                f"{place_of(experiment)}: {experiment.name}: range_of= gives {option.name} as many values as "
                f"{option.range_of}, of which this model has none"
            )
        return size
    chosen = values_of(other, given.get(other.name, other.default))
    if len(chosen) != 1 or not 1 <= chosen[0] <= MOST_VALUES:
        raise UserError(
            f"{other.flag} {','.join(map(str, chosen))}: give one number from 1 to {MOST_VALUES}, since "
            f"{option.name} runs over as many values",
            BAD_USAGE,
        )
    return chosen[0]


def combinations(values: Values) -> list[dict[str, Any]]:
    """Every combination of the values, the last option changing fastest; one, empty, where there is no option."""
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def swept(values: Values) -> list[str]:
    """The columns of a record that tell the combinations apart."""
    return [stored_name(name) for name, chosen in values.items() if len(chosen) > 1]
