"""The command line's shared options, the configuration file behind them, and how errors are shown.

The command line wins over `--config FILE.yaml`, which wins over the defaults.
"""

import difflib
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from errors import BAD_INPUT, BAD_USAGE, UserError
from interventions.core.registry import Entry, add_plugin, catalogue
from pairs import KINDS

ROOT = Path(__file__).resolve().parent
DEMO_MODEL = ROOT / "demo" / "opens2s-demo"
DEMO_DATA = ROOT / "demo" / "synthetic-clips"
RESULTS = ROOT / "results"
DEFAULT_MAX_PAIRS = 100
ENGINES = ("sweep", "stepwise")
DTYPES = ("float32", "bfloat16", "float16")
INTERRUPTED = 130

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


class Program(click.Group):
    """The group that turns a `UserError` into one line and its exit status, and has a command for each intervention."""

    make_command: Callable[[Entry], click.Command]

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *(name for name in catalogue() if name not in self.commands)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        command = super().get_command(ctx, name)
        if command is None and name in catalogue():
            return self.make_command(catalogue()[name])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Commands first, then the interventions, each with its first line."""
        for title, names in (("Commands", super().list_commands(ctx)), ("Interventions", list(catalogue()))):
            rows = [
                (n, self.get_command(ctx, n).get_short_help_str(limit=90))
                for n in names
                if n != "patch" or title[0] == "C"
            ]
            with formatter.section(title):
                formatter.write_dl(rows)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        # Before anything is parsed: a plugin's name must be known where a command or a --kind is looked up.
        words = list(sys.argv[1:] if args is None else args)
        try:
            for word, value in zip(words, words[1:], strict=False):
                if word == "--plugin":
                    add_plugin(Path(value))
            catalogue()
        except UserError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(error.status)
        return super().main(words, *rest, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            if ctx.meta.get("debug"):
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.status)
        except KeyboardInterrupt:
            click.echo("interrupted: the same command goes on where this one stopped", err=True)
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.meta.get("debug"):
                raise
            line = str(error).splitlines()[0] if str(error) else ""
            click.echo(f"error: {type(error).__name__}: {line} (a bug in the program; --debug shows where)", err=True)
            ctx.exit(BAD_INPUT)


class InterventionName(click.ParamType):
    """The name of an intervention other than the main one, or `all`."""

    name = "name"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"[{'|'.join([*controls(), 'all'])}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value != "all" and (value not in catalogue() or value == "patch"):
            names = ", ".join(name for name in [*catalogue(), "all"] if name != "patch")
            self.fail(f"{value!r} is not one of {names}", param, ctx)
        return value


def controls() -> list[str]:
    """Names of the controls, the silent one first."""
    return sorted((name for name, entry in catalogue().items() if entry.control), key=lambda name: name != "self")


class NumberList(click.ParamType):
    """Numbers with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, (tuple, list)):
            return tuple(value)
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0.25,0.5,1", param, ctx)


class LayerList(click.ParamType):
    """`20,22,24-30`, `all`, or a list of numbers from the configuration file."""

    name = "layers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...] | None:
        if value == "all":
            return None
        parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
        layers: list[int] = []
        for part in parts:
            first, dash, last = str(part).strip().partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()) or isinstance(part, bool):
                self.fail(f"{part!r} is not a layer or a range; write for example 20,22,24-30", param, ctx)
            if dash and int(last) < int(first):
                self.fail(f"{part!r} runs backwards; write {last}-{first}", param, ctx)
            # A range far beyond any model would only fill the memory before the model refuses it.
            if int(last or first) > 10_000:
                self.fail(f"{part!r}: no model has so many layers", param, ctx)
            layers += range(int(first), int(last or first) + 1)
        return tuple(sorted(set(layers)))


def _debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta["debug"] = ctx.meta.get("debug", False) or value


debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_debug, help="Show the traceback of an error."
)


def _alpha(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if math.isnan(value) or not 0 < value <= 1:
        raise click.BadParameter(f"{value} is not in (0, 1]: 1 replaces A's stream, less mixes B's into it")
    return value


def _load_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
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


def run_path(out: Path | None, model: str, data_name: str) -> Path:
    """`--out`, or a directory under results/ that the model's and the data's names give."""
    if out:
        return out
    path = Path(model)
    name = path.resolve().name if path.is_dir() else model
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
    return RESULTS / f"{safe}--{data_name}"


def _stack(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def intervention_options(entry: Entry) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option for each parameter of an intervention; its help is the docstring's line `name: what it is`."""
    help_lines = dict(re.findall(r"^\s*(\w+): (.+)$", entry.doc, flags=re.MULTILINE))
    return _stack(
        *(
            click.option(
                f"--{name.replace('_', '-')}",
                name,
                type=NumberList() if isinstance(default, (tuple, list)) else type(default),
                default=default if not isinstance(default, (tuple, list)) else ",".join(map(str, default)),
                show_default=True,
                help=help_lines.get(name),
            )
            for name, default in entry.options.items()
            if name != "alpha"
        )
    )


pair_options = _stack(
    click.option("--model", default=str(DEMO_MODEL), help="Checkpoint folder or hub id.  [default: the demo's]"),
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        default=DEMO_DATA,
        help="Manifest (.csv, .jsonl) or folder of clips.  [default: the demo's]",
    ),
    click.option(
        "--out", type=click.Path(path_type=Path, file_okay=False), help="Run directory.  [default: results/MODEL--DATA]"
    ),
    click.option(
        "--max-pairs", type=click.IntRange(min=1), help=f"At most so many pairs.  [default: {DEFAULT_MAX_PAIRS}]"
    ),
    click.option(
        "--seed", type=int, default=42, show_default=True, help="Seed of the pairs drawn and their direction."
    ),
    click.option(
        "--same-speaker/--any-speaker",
        default=True,
        show_default=True,
        help="Must A and B have one speaker, where the data name it?",
    ),
    click.option("--both-directions", is_flag=True, help="Run each pair both ways, A to B and B to A."),
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_load_config,
        help="YAML file with these settings; the command line wins.",
    ),
    click.option(
        "--plugin",
        type=click.Path(path_type=Path),
        multiple=True,
        expose_value=False,
        help="A Python file with further interventions.",
    ),
    debug_option,
)

experiment_options = _stack(
    pair_options,
    click.option(
        "--layers", type=LayerList(), default="all", show_default=True, help="Layers to patch, as in 20,22,24-30."
    ),
    click.option(
        "--alpha",
        type=float,
        default=1.0,
        show_default=True,
        callback=_alpha,
        help="Dose: (1 - alpha) * A + alpha * B is written.",
    ),
    click.option(
        "--align",
        type=click.Choice(["truncate_to_min", "resample_linear"]),
        default="truncate_to_min",
        show_default=True,
        help="How spans of unequal length meet (resample_linear is reserved).",
    ),
    click.option("--device", help="cpu, cuda or cuda:N.  [default: cuda where there is one]"),
    click.option("--dtype", type=click.Choice(DTYPES), help="[default: bfloat16 on cuda, float32 on cpu]"),
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="sweep",
        show_default=True,
        help="sweep: all layers in one trace; stepwise: one trace a layer, the textbook way. Same results.",
    ),
    click.option("--overwrite", is_flag=True, help="Run a finished experiment again; the old files are moved aside."),
)

pair_kind_option = click.option(
    "--pairs",
    "pair_kind",
    type=click.Choice(KINDS),
    default="prosody",
    show_default=True,
    help="Which main experiment it shadows.",
)
