"""`--config FILE.yaml`: the same settings as the options, by the names of the specification or of the options.

The command line wins over the file, which wins over the defaults.
"""

import difflib
import re
import reprlib
from collections import Counter
from pathlib import Path
from typing import Any

import click
import yaml
from click.core import ParameterSource

from errors import BAD_USAGE, UserError
from registry.catalogue import catalogue

DEFAULT_MAX_PAIRS = 100
MAX_BYTES = 64 * 1024
MAX_DEPTH = 10
MAX_VALUE = 3000  # characters; Python prints no whole number of over 4300 digits
MAX_WHOLE = 2**64 - 1
# To YAML 1.1, 010 is 8, 1:30 is 90 and 1_0 is 10.
ODD_NUMBER = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-9]{1,2})+(\.[0-9_]*)?|[0-9]+_[0-9_]*)")

# What a value of the file may be, before the option's own checks see it, and how a message calls that.
WHOLE = (int,), "a whole number"
SWITCH = (bool,), "true or false"
NUMBER = (int, float, str), "a number"  # YAML reads 1e-3 as text; the option makes a number of it
LAYERS = (list, int, str), "layers, such as [20, 22] or 20,24-30"
DOSES = (int, float, str, list), "a number, or several as in [0.25, 1]"
OWN = (bool, int, float, str, list), "a value, or several as in [2, 3]"  # an option of an experiment's own
WORKERS = (int, str), "a number of workers, or auto"
PAIRS = (int, str), "a number of pairs, or all"
TEXT = (str,), "text, in quotes where YAML takes it for something else"

# Parameter of the command, or key of the file that only stands for some -> what it may be.
VALUES = {
    **dict.fromkeys(
        ("model", "data", "texts", "out", "kind", "align", "device", "dtype", "engine", "on_bad_clip", "ray"), TEXT
    ),
    "workers": WORKERS,
    "pairs_in_report": PAIRS,
    "layers": LAYERS,
    "patch_all_layers": SWITCH,
    "alpha": DOSES,
    "max_failed": NUMBER,
    **dict.fromkeys(
        ("max_pairs", "max_pairs_prosody", "max_pairs_semantic", "seed", "max_rows", "store_mb", "max_seconds"), WHOLE
    ),
    **dict.fromkeys(("overwrite", "same_speaker", "both_directions"), SWITCH),
}
# Key of the configuration file -> one of the above: SPEC's names first, then the command line's.
CONFIG_KEYS = {"layers_to_patch": "layers", "patch_alpha": "alpha", "pair_sampling_seed": "seed"} | {
    name: name for name in VALUES
}


def load_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Put the file's settings into the command's defaults; `UserError` for a key or value that no option has."""
    if path is None:
        return
    values = _by_parameter(path, _read_yaml(path))
    for name, value in values.items():
        types, expected = VALUES.get(name, OWN)
        # True is an int in Python, and none in a settings file.
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise UserError(f"{path}: {name} is {reprlib.repr(value)}; write {expected}", BAD_USAGE)
        if isinstance(value, str) and not value.isprintable():
            raise UserError(f"{path}: {name} is {reprlib.repr(value)}; write it without control characters", BAD_USAGE)
    _check_layers(path, values)
    _check_own(path, values, ctx.command)
    _check_numbers(path, values)
    values.pop("patch_all_layers", None)
    ctx.meta["config_caps"] = {kind: values.pop(f"max_pairs_{kind}", None) for kind in ("prosody", "semantic")}
    ctx.default_map = values


def _by_parameter(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that are given, under the names of the command's parameters."""
    own = {option: option for entry in catalogue().values() for option in entry.options}
    known = CONFIG_KEYS | own
    given: dict[str, str] = {}
    for key, value in settings.items():
        if key not in known:
            close = difflib.get_close_matches(str(key)[:80], known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
            raise UserError(f"{path}: unknown key {reprlib.repr(key)}; {hint}", BAD_USAGE)
        if value is None:
            continue
        if known[key] in given:
            raise UserError(f"{path}: {given[known[key]]} and {key} set the same; keep one of them", BAD_USAGE)
        given[known[key]] = key
    return {name: settings[key] for name, key in given.items()}


def _check_layers(path: Path, values: dict[str, Any]) -> None:
    all_layers = values.get("patch_all_layers")
    if all_layers and "layers" in values:
        raise UserError(
            f"{path}: patch_all_layers is true, but layers_to_patch lists some; keep one of them", BAD_USAGE
        )
    if all_layers is False and "layers" not in values:
        raise UserError(f"{path}: patch_all_layers is false, so layers_to_patch must list the layers", BAD_USAGE)
    listed = values.get("layers")
    if listed == []:
        raise UserError(f"{path}: layers_to_patch lists no layer; write some, or leave it out for all", BAD_USAGE)
    for layer in listed if isinstance(listed, list) else []:
        if type(layer) not in (int, str):
            raise UserError(f"{path}: layers_to_patch has {reprlib.repr(layer)}; write {LAYERS[1]}", BAD_USAGE)


def _check_own(path: Path, values: dict[str, Any], command: click.Command) -> None:
    """The settings of experiments' own options: each must reach the experiment that the command runs."""
    taken = {param.name for param in command.params}
    runs_experiments = "overwrite" in taken and command.name != "check"
    for name, value in values.items():
        if name in VALUES and name != "alpha":
            continue
        key = "patch_alpha" if name == "alpha" else name
        types, expected = VALUES.get(name, OWN)
        for one in value if isinstance(value, list) else []:
            if type(one) not in types or isinstance(one, list) or (isinstance(one, str) and not one.isprintable()):
                raise UserError(f"{path}: {key} has {reprlib.repr(one)}; write {expected}", BAD_USAGE)
        # A dose of 1 is what runs without an alpha.
        if runs_experiments and name not in taken and (name, value) != ("alpha", 1):
            raise UserError(f"{path}: {command.name} takes no {name}; leave {key} out", BAD_USAGE)


def _check_numbers(path: Path, values: dict[str, Any]) -> None:
    for name, value in values.items():
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, int) and abs(number) > MAX_WHOLE for number in numbers):
            raise UserError(f"{path}: {name} is too large; write a number below 2**64", BAD_USAGE)
    for name in ("max_pairs", "max_pairs_prosody", "max_pairs_semantic"):
        if values.get(name, 1) < 1:
            raise UserError(f"{path}: {name} is {values[name]}; at least one pair is needed", BAD_USAGE)
        if name != "max_pairs" and name in values and "max_pairs" in values:
            raise UserError(f"{path}: max_pairs and {name} contradict each other; keep one of them", BAD_USAGE)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"--config {path}: cannot be read ({error}); name a YAML file", BAD_USAGE) from None
    if len(raw) > MAX_BYTES:
        raise UserError(f"--config {path}: is too long for settings; see config.example.yaml", BAD_USAGE)
    try:
        settings, keys = _parse(text)
    # A value can claim a type that it is not of (!!int x), which PyYAML leaves to Python's own errors.
    except (
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        line = " ".join(str(error).split())
        raise UserError(
            f"--config {path}: is not valid YAML ({line[:160]}); see config.example.yaml", BAD_USAGE
        ) from None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UserError(f"--config {path}: should hold `key: value` lines; see config.example.yaml", BAD_USAGE)
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise UserError(f"--config {path}: {reprlib.repr(twice[0])} is there twice; keep one of them", BAD_USAGE)
    return settings


def _parse(text: str) -> tuple[Any, list[str]]:
    """The content, and the keys as they are written, of which YAML keeps the last where one is there twice."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        # A few aliases of aliases are a value that no memory holds; PyYAML takes minutes for thousands of brackets.
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases; write each value out")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_VALUE:
            raise yaml.YAMLError("a value in it is far too long")
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and ODD_NUMBER.fullmatch(event.value):
            raise yaml.YAMLError(f"{event.value} is another number in YAML than it reads; write it in plain digits")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError("its values are nested too deeply")
    node = yaml.compose(text, yaml.SafeLoader)
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return yaml.safe_load(text), [key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode)]


def told_options(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that have a value from the command line or the settings file, not by default."""
    ctx = click.get_current_context()
    given = (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)
    told = {name: value for name, value in options.items() if ctx.get_parameter_source(name) in given}
    in_file = ctx.meta.get("config_caps", {}).get(kind)
    return {"max_pairs": in_file} | told if in_file is not None else told


def max_pairs(kind: str, value: int | None) -> int:
    """The cap for a pair kind: the option, else the file's `max_pairs_KIND`, else 100."""
    in_file = click.get_current_context().meta.get("config_caps", {}).get(kind)
    cap = next(cap for cap in (value, in_file, DEFAULT_MAX_PAIRS) if cap is not None)
    if cap < 1:
        raise UserError(f"max_pairs_{kind} is {cap}; at least one pair is needed", BAD_USAGE)
    return cap
