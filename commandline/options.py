"""The options that commands share.

    @cli.command()
    @experiment_options
    def patch(**options): ...

Imports neither torch nor pandas, so that help comes at once.
"""

import importlib.util
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from commandline.config_file import CONFIG_KEYS, DEFAULT_MAX_PAIRS, load_config
from commandline.program import debug_option
from commandline.words import (
    SEED,
    DeviceName,
    LayerList,
    ModelName,
    PairCount,
    Place,
    Share,
    Values,
    Whole,
    WorkerCount,
)
from errors import BAD_USAGE, UserError
from models.limits import MAX_SECONDS
from pairs import KINDS
from registry.catalogue import Entry
from registry.intervention import ALL

ROOT = Path(__file__).resolve().parent.parent
DEMO_MODEL = ROOT / "demo" / "opens2s-demo"
DEMO_DATA = ROOT / "demo" / "synthetic-clips"
RESULTS = ROOT / "results"
MOST_OF_A_NAME = 64  # two of them and what comes between fit into a file's name, which is 255 bytes at most
ENGINES = ("auto", "tail", "sweep", "stepwise")
DTYPES = ("float32", "bfloat16", "float16")
DOSE = "Dose: (1 - alpha) * A + alpha * B is written; 0.1,0.5,1 runs several."


def run_path(out: Path | None, model: str, data_name: str) -> Path:
    """`--out`, or a directory under results/ that the model's and the data's names give."""
    if out:
        return out
    name = Path(model).resolve().name if os.path.isdir(model) else model
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
    return RESULTS / f"{safe[:MOST_OF_A_NAME]}--{data_name[:MOST_OF_A_NAME]}"


def _stack(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def intervention_options(entry: Entry) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option for each parameter of an intervention; its help is the docstring's line `name: what it is`."""
    help_lines = dict(re.findall(r"^\s*(\w+): (.+)$", entry.doc, flags=re.MULTILINE))
    least = {name: 0 for name in entry.over} | dict(entry.least)
    return _stack(
        *(
            _option(name, default, help_lines.get(name), least.get(name), entry.choices.get(name, ()))
            for name, default in entry.options.items()
        )
    )


def _option(
    name: str, default: Any, text: str | None, least: float | None, choices: Sequence[Any]
) -> Callable[..., Any]:
    kind = int if default is ALL else float if name == "alpha" else type(default)
    return click.option(
        f"--{name.replace('_', '-')}",
        name,
        type=Values(name, kind, default is ALL, least, choices),
        # Text may have commas of its own; anything else is written as it would be on the command line.
        default=(default,) if kind is str else str(default).lower(),
        show_default=True,
        help=text or (DOSE if name == "alpha" else None),
    )


alpha_option = click.option("--alpha", type=Values("alpha", float), help=f"{DOSE}  [default: the intervention's]")


plugin_option = click.option(
    "--plugin",
    type=Place(),
    multiple=True,
    expose_value=False,
    help="A Python file with further interventions.",
)

pair_options = _stack(
    click.option(
        "--model", type=ModelName(), default=str(DEMO_MODEL), help="Checkpoint folder or hub id.  [default: the demo's]"
    ),
    click.option(
        "--data",
        type=Place(),
        default=DEMO_DATA,
        help="Manifest (.csv, .jsonl), folder of clips, or a corpus that `corpora` lists.  [default: the demo's]",
    ),
    click.option(
        "--texts",
        type=Place(dir_okay=False),
        help="CSV file with text_id, semantic_label and optionally text, text_type, which win over those of the data.",
    ),
    click.option(
        "--out",
        type=Place(file_okay=False),
        help="Run directory.  [default: results/MODEL--DATA]",
    ),
    click.option("--max-pairs", type=Whole(min=1), help=f"At most so many pairs.  [default: {DEFAULT_MAX_PAIRS}]"),
    click.option(
        "--seed", type=SEED, default=42, show_default=True, help="Seed of the pairs drawn and their direction."
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
        type=Place(),
        is_eager=True,
        expose_value=False,
        callback=load_config,
        help="YAML file with these settings; the command line wins.",
    ),
    plugin_option,
    debug_option,
)

report_option = click.option(
    "--pairs-in-report",
    type=PairCount(min=1),
    help="So many pairs of each experiment, drawn at random, are in report.html to look at; all makes it large.  "
    "[default: up to 500]",
)

experiment_options = _stack(
    pair_options,
    click.option(
        "--layers", type=LayerList(), default="all", show_default=True, help="Layers to patch, as in 20,22,24-30."
    ),
    click.option(
        "--align",
        type=click.Choice(["truncate_to_min", "resample_linear"]),
        default="truncate_to_min",
        show_default=True,
        help="How spans of unequal length meet: cut to the shorter one, or B's interpolated in time to A's length.",
    ),
    click.option("--device", type=DeviceName(), help="cpu, cuda or cuda:N.  [default: cuda where there is one]"),
    click.option("--dtype", type=click.Choice(DTYPES), help="[default: bfloat16 on cuda, float32 on cpu]"),
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="auto",
        show_default=True,
        help="tail: only what a patch can change; sweep: all layers in one trace; stepwise: one trace a layer, the "
        "textbook way. auto is the fastest that is exact. Same results.",
    ),
    click.option(
        "--max-rows",
        type=Whole(min=1),
        help="Patched rows in one trace; fewer need less memory.  [default: a row for every layer]",
    ),
    click.option(
        "--store-mb",
        type=Whole(min=0),
        help="MiB of the device that recorded clips may take between pairs.  [default: half of what is free]",
    ),
    click.option(
        "--on-bad-clip",
        type=click.Choice(["stop", "skip"]),
        default="stop",
        show_default=True,
        help="A clip that cannot be read stops the run, or its pairs are left out and listed.",
    ),
    click.option(
        "--max-seconds",
        type=Whole(min=1),
        default=MAX_SECONDS,
        show_default=True,
        help="A clip longer than this counts as one that cannot be read.",
    ),
    click.option(
        "--max-failed",
        type=Share(0, 1),
        default=0.01,
        show_default=True,
        help="Stop when more than this share of the pairs gave numbers that are not finite.",
    ),
    click.option("--overwrite", is_flag=True, help="Run a finished experiment again; the old files are moved aside."),
    report_option,
)


worker_options = _stack(
    click.option(
        "--workers",
        type=WorkerCount(),
        help="Processes that share the pairs, each with the model: so many, or auto for one a GPU, else one a core. "
        "Needs Ray.  [default: 0, none but this process; auto with --ray]",
    ),
    click.option("--ray", metavar="ADDRESS", help="Workers of a Ray cluster that runs: HOST:PORT, or auto to find it."),
)


def wants_workers(options: Mapping[str, Any]) -> bool:
    """Whether pairs are to be computed by workers."""
    return options["workers"] not in (None, 0) or options["ray"] is not None


def check_workers(options: Mapping[str, Any]) -> None:
    """`UserError` for a cluster without workers, and where Ray is needed but not installed."""
    if options["ray"] is not None and options["workers"] == 0:
        raise UserError("--workers 0 computes in this process; leave it out, or leave --ray out", BAD_USAGE)
    if wants_workers(options) and importlib.util.find_spec("ray") is None:
        asked = f"--workers {options['workers']}" if options["ray"] is None else f"--ray {options['ray']}"
        raise UserError(f"{asked} needs Ray: python -m pip install -r requirements-ray.txt", BAD_USAGE)


def check_plugin(entry: Entry, commands: Collection[str]) -> None:
    """`UserError` where an intervention or an option of it has a name of the program's own."""
    if entry.name in commands or entry.name == "all":
        word = "a command of the program" if entry.name in commands else "every control, to `control --kind`"
        raise UserError(f"{entry.where}: {entry.name} is {word}; rename the function", BAD_USAGE)
    taken = sorted(set(entry.options) & PROGRAM_OPTIONS)
    if taken:
        raise UserError(f"{entry.where}: the program has an option {taken[0]} already; rename the parameter", BAD_USAGE)


kind_option = click.option("--kind", type=click.Choice(KINDS), required=True, help="What differs between A and B.")


def _pair_kind_option(*words: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        *words,
        "pair_kind",
        type=click.Choice(KINDS),
        default="prosody",
        show_default=True,
        help="Which main experiment's recipients and targets it takes.",
    )


pair_kind_option = _pair_kind_option("--pairs")
own_pair_kind_option = _pair_kind_option("--pairs", "--kind")  # where --kind has no other meaning


@experiment_options
@worker_options
@pair_kind_option
def _with_every_option() -> None:
    pass


_WORDS = [
    word for option in click.command()(_with_every_option).params for word in (*option.opts, *option.secondary_opts)
]
PROGRAM_OPTIONS = {word.lstrip("-").replace("-", "_") for word in _WORDS} | {"kind", "pair_kind", "help"}
PROGRAM_OPTIONS |= set(CONFIG_KEYS) - {"alpha"}
