"""The command lines that make a run again, to paste into a shell.

    commands(run)          # ["python cli.py patch --kind prosody --max-pairs 20 --out results/again", ...]

They are made from the declarations of the settings, so a new setting appears by itself.
"""

import shlex
from typing import Any

from voicepatch.analysis.cells import ranges, value_text
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.paths import DEMO_DATA, RESULTS
from voicepatch.registry.catalogue import find
from voicepatch.report.experiments import Run
from voicepatch.types.setting import Setting, option_flag
from voicepatch.types.settings import DECLARED, stored_name

MACHINE = ("device", "dtype", "engine")
MODEL = "MODEL"  # stands for a checkpoint whose place was not recorded


def commands(run: Run) -> list[str]:
    """A command line for `answers` and for each experiment, in the order in which they were begun.

    All settings that differ from their defaults are written out; of what the machine decides, see `chosen_by_machine`.
    The commands share a directory of their own.
    """
    begun = list(run.config["experiments"])
    kinds = {main.kind for main in run.mains}  # whose commands run the experiments beside them too
    shown = [one for one in run.experiments if not (one.settings["beside_main"] and one.kind in kinds)]
    in_order = sorted(shown, key=lambda experiment: begun.index(experiment.name))
    lines = [*_answers(run), *(_command(run, experiment) for experiment in in_order)]
    return [shlex.join(["python", "cli.py", *words]) for words in lines]


def chosen_by_machine(run: Run) -> str:
    """What the commands leave to the program, and how to have it as it was; "" where it is written out."""
    if not _machine(run):
        return ""
    device, dtype, engine = _machine(run)
    flags = f"--device {device} --dtype {dtype} --engine {engine}"
    return f"They leave device, number type and engine to the program. This run had {flags}."


def _machine(run: Run) -> tuple[str, ...]:
    """Device, dtype and engine, where the experiments have the same and the program may have chosen them; or none."""
    found = {tuple(one.settings[name] for name in MACHINE) for one in run.experiments}
    device, dtype, engine = next(iter(found))
    is_default = dtype == ("bfloat16" if device == "cuda" else "float32") and engine != "stepwise"
    return (device, dtype, engine) if len(found) == 1 and is_default else ()


def _answers(run: Run) -> list[list[str]]:
    """The command that asks about each clip, where it was run; with the files of the first experiment."""
    if not run.config.get("answers", {}).get("finished"):
        return []
    return [["answers", *_places(run, run.experiments[0].settings), "--out", str(RESULTS / "again")]]


def _command(run: Run, experiment: ExperimentResults) -> list[str]:
    of, out = experiment.settings, str(RESULTS / "again")
    ranks = of["intervention"] == "ranked"
    words = _confirm(of, out) if ranks else [*_experiment(experiment), *_options(of)]
    words += _places(run, of)
    if not of["patch_all_layers"]:
        words += ["--layers", ranges(of["layers_to_patch"])]
    for name, setting in DECLARED.items():
        value, default = of.get(stored_name(name, experiment.kind)), setting.default
        if name == "same_speaker":
            default = run.results.task.same_speaker
        left = ("kind", "layers", *(MACHINE if _machine(run) else ()))
        if setting.recorded and name not in left and value is not None and not _equal(value, default):
            words += [setting.flag if value else setting.off_flag] if isinstance(value, bool) else _each(setting, value)
    beside = [one for one in run.experiments if one.settings["beside_main"] and one.kind == experiment.kind]
    words += ["--no-need"] if experiment.is_main and not beside else []
    return words if ranks else [*words, "--out", out]


def _experiment(experiment: ExperimentResults) -> list[str]:
    """The command, and the kind of pair."""
    of = experiment.settings
    if experiment.is_main:
        return [of["intervention"], "--kind", experiment.kind]
    if of["control"] and not of["options"]:
        return ["control", "--kind", of["intervention"], "--pairs", experiment.kind]
    return [of["intervention"], "--pairs", experiment.kind]


def _confirm(of: dict[str, Any], out: str) -> list[str]:
    """The command of an experiment whose options `confirm` chooses."""
    chosen = [word for name in ("top", "draws") for word in (option_flag(name), value_text(of["options"][name]))]
    return ["confirm", out, "--pairs", of["kind"], *chosen]


def _options(of: dict[str, Any]) -> list[str]:
    """The experiment's own options, without those that have their default; all of them where its file is not loaded."""
    entry = find(of["intervention"])
    defaults = {name: option.default for name, option in entry.options.items()} if entry else {}
    words = []
    for name, value in (of["options"] | {"alpha": of["patch_alpha"]}).items():
        default = of.get("default_alpha", 1) if name == "alpha" else defaults.get(name)
        if value != default:
            values = value if isinstance(value, list) else [value]
            words += [option_flag(name), ",".join(map(value_text, values))]
    return words


def _places(run: Run, of: dict[str, Any]) -> list[str]:
    """Where the plugins, the model, the task and the data lay."""
    places, data = of.get("places", {"model": MODEL}), run.config["data"]
    plugins = places.get("plugins", [of["plugin"]] if "plugin" in of else [])
    words = [word for plugin in plugins for word in ("--plugin", plugin)]
    words += ["--random-weights"] if "random_weights" in run.config["model"] else []
    words += [
        word for name in ("model", "base", "task") if name in places for word in (option_flag(name), places[name])
    ]
    words += [] if data["source"] == str(DEMO_DATA) else ["--data", data["source"]]
    words += ["--texts", data["texts"]] if "texts" in data else []
    renamed = ",".join(f"{name}={theirs}" for name, theirs in data.get("renamed", {}).items())
    return [*words, "--columns", renamed] if renamed else words


def _equal(value: Any, default: Any) -> bool:
    return value == (list(default) if isinstance(default, tuple) else default)


def _each(setting: Setting, value: Any) -> list[str]:
    """The option, once for each of several values."""
    values = value if isinstance(value, list) else [value]
    return [word for one in values for word in (setting.flag, value_text(one))]
