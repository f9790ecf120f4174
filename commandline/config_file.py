"""`--config FILE.yaml`: the same settings as the options, by the names of the specification or of the options.

The command line wins over the file, which wins over the defaults.
"""

import difflib
from pathlib import Path
from typing import Any

import click
import yaml

from errors import BAD_USAGE, UserError

DEFAULT_MAX_PAIRS = 100

# Key of the configuration file (SPEC's names first, then the command line's) -> parameter of the command.
CONFIG_KEYS = {
    "layers_to_patch": "layers",
    "patch_all_layers": "patch_all_layers",
    "patch_alpha": "alpha",
    "max_pairs_prosody": "max_pairs_prosody",
    "max_pairs_semantic": "max_pairs_semantic",
    "pair_sampling_seed": "seed",
} | {
    name: name
    for name in (
        *("model", "data", "out", "kind", "layers", "alpha", "align", "max_pairs", "seed", "device", "dtype", "engine"),
        *("overwrite", "same_speaker", "both_directions"),
    )
}


def load_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    settings = _read_yaml(path)
    for key in settings:
        if key not in CONFIG_KEYS:
            close = difflib.get_close_matches(str(key), CONFIG_KEYS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(CONFIG_KEYS)}"
            raise UserError(f"{path}: unknown key {key!r}; {hint}", BAD_USAGE)
    values = {CONFIG_KEYS[key]: value for key, value in settings.items() if value is not None}
    all_layers = values.pop("patch_all_layers", None)
    if all_layers not in (None, True, False):
        raise UserError(f"{path}: patch_all_layers is {all_layers!r}; write true or false", BAD_USAGE)
    if all_layers and "layers" in values:
        raise UserError(
            f"{path}: patch_all_layers is true, but layers_to_patch lists some; keep one of them", BAD_USAGE
        )
    if all_layers is False and "layers" not in values:
        raise UserError(f"{path}: patch_all_layers is false, so layers_to_patch must list the layers", BAD_USAGE)
    for key in ("max_pairs", "max_pairs_prosody", "max_pairs_semantic", "seed"):
        if key in values and type(values[key]) is not int:
            raise UserError(f"{path}: {key} is {values[key]!r}; write a whole number", BAD_USAGE)
    ctx.meta["config_caps"] = {kind: values.pop(f"max_pairs_{kind}", None) for kind in ("prosody", "semantic")}
    ctx.default_map = values


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: cannot be read ({error}); name a YAML file", BAD_USAGE) from None
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise UserError(f"--config {path}: is not valid YAML ({line[:160]})", BAD_USAGE) from None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UserError(f"--config {path}: should hold `key: value` lines; see config.example.yaml", BAD_USAGE)
    return settings


def max_pairs(kind: str, value: int | None) -> int:
    """The cap for a pair kind: the option, else the file's `max_pairs_KIND`, else 100."""
    in_file = click.get_current_context().meta.get("config_caps", {}).get(kind)
    cap = next(cap for cap in (value, in_file, DEFAULT_MAX_PAIRS) if cap is not None)
    if cap < 1:
        raise UserError(f"max_pairs_{kind} is {cap}; at least one pair is needed", BAD_USAGE)
    return cap
