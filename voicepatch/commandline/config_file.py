"""The settings that a command was given explicitly: on its command line, or in the YAML file of `--config`.

    explicit = explicit_settings(options, [entry])        # {"max_pairs": 20, "alpha": (0.5, 1.0)}

The file has the same names as the options, or those of patching_config.json (`layers_to_patch`). The command line wins.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from voicepatch.commandline.param_types import option_type
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.registry.catalogue import catalogue
from voicepatch.registry.options import stored_name as stored_option
from voicepatch.registry.syntax import Entry
from voicepatch.text import short_repr
from voicepatch.types.pair import KINDS
from voicepatch.types.setting import option_flag
from voicepatch.types.settings import DECLARED, stored_name
from voicepatch.yaml_file import read_yaml

EXAMPLE = "config.example.yaml"
ALL_LAYERS, PLUGINS = "patch_all_layers", "plugins"
SETTING_KEYS = {key: name for name in DECLARED for kind in KINDS for key in (name, stored_name(name, kind))}


def explicit_settings(options: Mapping[str, Any], entries: Sequence[Entry] = ()) -> dict[str, Any]:
    """The settings and own options that were given, for a command that runs the experiments of `entries`."""
    ctx = click.get_current_context()
    given = {name: value for name, value in options.items() if _is_given(ctx, name) and name != "config"}
    for name in given:
        _check_taken(option_flag(name), name, given[name], entries)
    if not options.get("config"):
        return given
    return read_settings_file(options["config"], given.get("kind"), entries) | given


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def read_settings_file(path: Path, kind: str | None, entries: Sequence[Entry]) -> dict[str, Any]:
    """The settings of a file under their names; `UserError` for a key or a value that no setting has.

    `kind` is the kind of pair that the command line gives, whose `max_pairs_KIND` counts.
    """
    content = {key: value for key, value in read_yaml(path, "--config", EXAMPLE).items() if value is not None}
    content.pop(PLUGINS, None)  # loaded before the command was looked up
    own = {key: name for entry in catalogue().values() for name in entry.options for key in (name, stored_option(name))}
    known = SETTING_KEYS | own
    for key in content:
        if key not in known and key != ALL_LAYERS:
            close = difflib.get_close_matches(str(key)[:80], known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
            raise UserError(f"{path}: unknown key {short_repr(key)}; {hint}", BAD_USAGE)
    kind = kind or content.get("kind", KINDS[0])
    all_layers = content.pop(ALL_LAYERS, None)
    found: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for key, value in content.items():
        name = known[key]
        where = f"{path}: {key}"
        found_value = _read(where, name, value, entries)
        if name in DECLARED and key not in (name, stored_name(name, kind)):
            continue  # the maximum for the other kind of pair
        if name in keys:
            raise UserError(f"{path}: {keys[name]} and {key} set the same; keep one of them", BAD_USAGE)
        keys[name] = key
        if name in DECLARED or _check_taken(where, name, found_value, entries):
            found[name] = found_value
    _check_layers(path, all_layers, found)
    return found


def _read(where: str, name: str, value: Any, entries: Sequence[Entry]) -> Any:
    takers = [entry.options[name] for entry in (*entries, *catalogue().values()) if name in entry.options]
    value_type = DECLARED[name].type if name in DECLARED else option_type(takers[0])
    try:
        if isinstance(value, str) and not value.isprintable():
            raise ValueError(f"{short_repr(value)} contains control characters; write it without")
        return value_type.read(value)
    except ValueError as error:
        raise UserError(f"{where}: {error}", BAD_USAGE) from None


def _check_taken(where: str, name: str, value: Any, entries: Sequence[Entry]) -> bool:
    """Whether the experiments take an own option; `UserError` where one does not, unless its value changes nothing."""
    lacking = [entry for entry in entries if name not in DECLARED and name not in entry.options]
    if not lacking:
        return bool(entries)
    defaults = [
        (entry.options[name].default,) for entry in catalogue().values() if entry.main and name in entry.options
    ]
    if where.startswith("--") or value not in defaults:
        raise UserError(f"{where}: {lacking[0].name} takes no {name}; leave it out", BAD_USAGE)
    return False


def _check_layers(path: Path, all_layers: Any, found: dict[str, Any]) -> None:
    """`patch_all_layers` must agree with `layers_to_patch`."""
    if all_layers is None:
        return
    if not isinstance(all_layers, bool):
        raise UserError(f"{path}: {ALL_LAYERS}: {short_repr(all_layers)} is not true or false", BAD_USAGE)
    if all_layers != (found.setdefault("layers") is None):
        needed = "be left out (keep one of them)" if all_layers else "list the layers"
        raise UserError(
            f"{path}: {ALL_LAYERS} is {str(all_layers).lower()}, so layers_to_patch must {needed}", BAD_USAGE
        )


def plugins_in(path: str) -> list[str]:
    """The files and folders under `plugins:` of a settings file; none where the file cannot be read."""
    try:
        listed = read_yaml(Path(path).expanduser(), "--config", EXAMPLE).get(PLUGINS) or []
    except UserError:
        return []  # the command reads the file again and says what is wrong
    if not isinstance(listed, list) or not all(isinstance(one, str) and one.isprintable() for one in listed):
        raise UserError(f"{path}: {PLUGINS}: {short_repr(listed)} is not a list of files", BAD_USAGE)
    return listed
