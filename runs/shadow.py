"""What an experiment takes over from the main one of its run, so that the curves of both can be compared.

    main = main_of(run, experiment.name, "prosody")            # as the run's configuration has it, if it does
    refuse_otherwise(run, main, experiment, "prosody", told)   # an option that was given another value
    settings = as_in(main, experiment, settings)

Every other experiment has the main one's recipients and targets. A control, whose curve is held against the main one,
has its dose, layers, alignment and dtype as well. Imports no torch, so that a mistake is found at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from errors import BAD_USAGE, UserError
from files import CONFIG
from registry.catalogue import MAIN
from runs.directory import RunDir

if TYPE_CHECKING:
    from runs.settings import Settings

# Options and settings by their names here, and what the configuration of a run calls them.
DRAWN = {"seed": "pair_sampling_seed", "same_speaker": "same_speaker", "both_directions": "both_directions"}
OF_CURVE = {"alpha": "patch_alpha", "layers": "layers_to_patch", "align": "align", "dtype": "dtype"}
Recorded = Mapping[str, Any]


class Experiment(Protocol):
    """What of an experiment, or of its entry in the catalogue, is looked at here."""

    name: str
    control: bool
    options: Mapping[str, Any]


def main_of(run: RunDir, name: str, kind: str) -> Recorded | None:
    """What the main experiment of a run ran with, for any other one; None before it was begun."""
    main = run.config().get("experiments", {}).get(kind) if name != MAIN else None
    missing = [key for key in (f"max_pairs_{kind}", *DRAWN.values(), *OF_CURVE.values()) if main and key not in main]
    if missing:
        raise UserError(f"{run.path / CONFIG}: is damaged ({kind} has no {missing[0]}); pass another --out")
    return main


def shadowed(experiment: Experiment, kind: str) -> dict[str, str]:
    """The settings that an experiment takes over, and their names in the configuration."""
    of_curve = OF_CURVE if experiment.control else {}
    taken = {"max_pairs": f"max_pairs_{kind}"} | DRAWN | of_curve
    return {name: recorded for name, recorded in taken.items() if name != "alpha" or "alpha" in experiment.options}


def refuse_otherwise(run: RunDir, main: Recorded, experiment: Experiment, kind: str, told: Mapping[str, Any]) -> None:
    """`UserError` where an option that was given (`told`) has another value than the main experiment ran with."""
    for name, recorded in shadowed(experiment, kind).items():
        if name not in told or _same(name, told[name], main.get(recorded), main):
            continue
        flag = "--any-speaker" if name == "same_speaker" and not told[name] else f"--{name.replace('_', '-')}"
        raise UserError(
            f"{flag}: {experiment.name} runs as the {kind} experiment of {run.path} did, whose {recorded} is "
            f"{_short(main.get(recorded))}, not {_short(told[name])}; leave {flag} out, or pass another --out",
            BAD_USAGE,
        )


def as_in(main: Recorded, experiment: Experiment, settings: "Settings") -> "Settings":
    """The settings with what is taken over from the main experiment.

    The dtype is the model's, and loaded with it. Layers that a caller in Python lists stand.
    """
    values = {name: main[recorded] for name, recorded in shadowed(experiment, settings.kind).items()}
    values.pop("dtype", None)
    options = dict(settings.options)
    if "alpha" in values:
        options["alpha"] = _several(values.pop("alpha"))
    if "layers" in values:
        values["layers"] = tuple(values["layers"]) if settings.layers is None else settings.layers
    return replace(settings, options=options, **values)


def ran_otherwise(experiments: Mapping[str, Recorded], kind: str, main: Recorded) -> dict[str, list[str]]:
    """The controls of a kind that ran before their main experiment and unlike it, and which settings differ."""
    keys = [f"max_pairs_{kind}", *DRAWN.values(), *OF_CURVE.values()]
    controls = {name: ran for name, ran in experiments.items() if ran.get("control") and ran.get("kind") == kind}
    differing = {name: [key for key in keys if ran.get(key) != main.get(key)] for name, ran in controls.items()}
    return {name: keys for name, keys in differing.items() if keys}


def _same(name: str, told: Any, ran: Any, main: Recorded) -> bool:
    if name == "layers" and told is None:
        return bool(main.get("patch_all_layers"))
    return _several(told) == _several(ran)


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _short(value: Any, most: int = 8) -> str:
    if value is None:
        return "all"
    if not isinstance(value, Sequence) or isinstance(value, str):
        return str(value)
    return ",".join(map(str, value[:most])) + (",..." if len(value) > most else "")
