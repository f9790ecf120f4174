"""The settings of an experiment: given explicitly, inherited from the main experiment of its run, or the default.

    settings = resolve_settings(run, experiment, {"kind": "prosody", "layers": (0, 5)})

Every other experiment has the main one's recipients and targets. A control, whose curve is compared with the main one,
also has its layers, dose and alignment. Imports no torch, so that a mistake is found at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.files import CONFIG
from voicepatch.registry.options import ALPHA, Option
from voicepatch.registry.options import stored_name as stored_option
from voicepatch.store.directory import RunDir
from voicepatch.types.setting import option_flag
from voicepatch.types.settings import DECLARED, Settings, stored_name

Recorded = Mapping[str, Any]


class Experiment(Protocol):
    """An experiment, or its entry in the catalogue."""

    @property
    def name(self) -> str: ...

    @property
    def control(self) -> bool: ...

    @property
    def main(self) -> bool: ...

    @property
    def options(self) -> Mapping[str, Option]: ...

    def layers_called(self, n_layers: int, chosen: Sequence[int] | None) -> Sequence[int]: ...


def resolve_settings(run: RunDir, experiment: Experiment, explicit: Mapping[str, Any]) -> Settings:
    """The settings that an experiment runs with in `run`.

    `explicit` are those of the command line and the settings file, with the experiment's own options among them.
    Raises `UserError` for an explicit one that differs from what the experiment inherits.
    """
    settings = make_settings(explicit)
    experiment.layers_called(0, settings.layers)
    main = main_of(run, experiment, settings.kind)
    if main is None:
        return settings
    inherited = _inherited(main, experiment, settings.kind)
    for name, value in inherited.items():
        if name in explicit and not _same(name, explicit[name], value, main):
            raise _differs(run, experiment, settings.kind, name, explicit[name], value)
    return make_settings({**explicit, **inherited})


def make_settings(values: Mapping[str, Any]) -> Settings:
    """`Settings` of values by name, those of no declared name being the experiment's own options.

    The task decides whether a pair has one speaker where nothing else does.
    """
    declared = {name: value for name, value in values.items() if name in DECLARED}
    if task := declared.get("task"):
        declared.setdefault("same_speaker", task.same_speaker)
    return Settings(**declared, options={name: value for name, value in values.items() if name not in DECLARED})


def main_of(run: RunDir, experiment: Experiment, kind: str) -> Recorded | None:
    """What the main experiment of a run ran with, for any other experiment; None before it was begun."""
    main = run.config().get("experiments", {}).get(kind) if not experiment.main else None
    missing = [
        name for name in inherited_names("by all", "by controls") if main and stored_name(name, kind) not in main
    ]
    if missing:
        raise UserError(
            f"{run.path / CONFIG}: is damaged ({kind} has no {stored_name(missing[0], kind)}); pass another --out"
        )
    return main


def ran_with_other_settings(experiments: Mapping[str, Recorded], kind: str, main: Recorded) -> dict[str, list[str]]:
    """The controls of a kind that ran before their main experiment, and the settings in which they differ from it."""
    keys = [stored_name(name, kind) for name in inherited_names("by all", "by controls")] + [ALPHA.stored]
    controls = {name: ran for name, ran in experiments.items() if ran.get("control") and ran.get("kind") == kind}
    differing = {name: [key for key in keys if ran.get(key) != main.get(key)] for name, ran in controls.items()}
    return {name: keys for name, keys in differing.items() if keys}


def inherited_names(*how: str) -> list[str]:
    """The settings that other experiments inherit from the main one, `by all` or `by controls`."""
    return [name for name, setting in DECLARED.items() if setting.inherited in how]


def _inherited(main: Recorded, experiment: Experiment, kind: str) -> dict[str, Any]:
    names = inherited_names("by all", *(["by controls"] if experiment.control else []))
    values = {name: main[stored_name(name, kind)] for name in names}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if experiment.control:
        own = {name: main.get(stored_option(name), main["options"].get(name)) for name in experiment.options}
        values |= {name: _several(value) for name, value in own.items() if value is not None}
    return values


def _differs(run: RunDir, experiment: Experiment, kind: str, name: str, explicit: Any, inherited: Any) -> UserError:
    flag = (not explicit and name in DECLARED and DECLARED[name].off_flag) or option_flag(name)
    stored = stored_name(name, kind) if name in DECLARED else stored_option(name)
    return UserError(
        f"{flag}: {experiment.name} runs as the {kind} experiment of {run.path} did, whose {stored} is "
        f"{_short(inherited)}, not {_short(explicit)}; leave {flag} out, or pass another --out",
        BAD_USAGE,
    )


def _same(name: str, explicit: Any, inherited: Any, main: Recorded) -> bool:
    if name == "layers" and explicit is None:
        return bool(main["patch_all_layers"])
    return _several(explicit) == _several(inherited)


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _short(value: Any, most: int = 8) -> str:
    if value is None:
        return "all"
    if not isinstance(value, Sequence) or isinstance(value, str):
        return str(value)
    return ",".join(map(str, value[:most])) + (",..." if len(value) > most else "")
