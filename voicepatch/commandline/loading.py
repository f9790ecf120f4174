"""The model of a command, in this process or in workers.

    loading.check_model(settings)                 # before torch is imported
    executor = loading.load_executor(settings)

What needs torch is imported inside, so that mistakes are reported at once.
"""

import gc
import importlib.util
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.models.adapter_folder import adapter_of, base_of, find_checkpoint
from voicepatch.models.families import family_of
from voicepatch.models.folder import (
    check_layers,
    checkpoint_folder,
    is_hub_id,
    n_layers_of,
    read_config,
    refuse_quantised,
)
from voicepatch.runs.interrupt import IMPORTING, until_done
from voicepatch.types.settings import Settings

if TYPE_CHECKING:
    from voicepatch.engine.subject import Subject
    from voicepatch.runs.executor import Executor


def check_model(settings: Settings) -> None:
    """`UserError` for what a model's folder and configuration show to be wrong, before torch is imported."""
    if not _is_local(settings.model):
        return
    named = base_of(checkpoint_folder(settings.model), settings.base)
    if named is None or _is_local(named):
        found = find_checkpoint(settings.model, settings.base)
        config = read_config(found.folder)
        family = family_of(config)
        adapter_of(found.folder, family, config, found.adapter)
        if family.is_builtin:
            refuse_quantised(config)
        if n_layers := n_layers_of(config):
            check_layers(settings.layers, n_layers)


def _is_local(source: str) -> bool:
    """Whether a folder or hub id is read without a network; so is a name that can be neither, which is an error."""
    return os.path.exists(source) or not is_hub_id(source)


def wants_workers(settings: Settings) -> bool:
    """Whether workers compute the pairs."""
    return settings.workers not in (None, 0) or settings.ray is not None


def check_workers(settings: Settings) -> None:
    """`UserError` for a cluster without workers, and where Ray is needed but not installed."""
    if settings.ray is not None and settings.workers == 0:
        raise UserError("--workers 0 computes in this process; leave it out, or leave --ray out", BAD_USAGE)
    if wants_workers(settings) and importlib.util.find_spec("ray") is None:
        option = f"--workers {settings.workers}" if settings.ray is None else f"--ray {settings.ray}"
        raise UserError(f"{option} needs Ray: python -m pip install -r requirements-ray.txt", BAD_USAGE)


def load_executor(settings: Settings) -> "Executor":
    """Workers, which end with this command, or this process."""
    if not wants_workers(settings):
        from voicepatch.runs.executor import LocalExecutor

        return LocalExecutor(load_model(settings))
    from tqdm import tqdm

    from voicepatch.workers.pool import worker_pool

    click.echo(f"loading {settings.model} in workers ...", err=True)
    workers = settings.workers if isinstance(settings.workers, int) else None
    log = partial(tqdm.write, file=sys.stderr)  # a message may come while the progress bar is drawn
    arguments = load_arguments(settings) | {"base": base_for_workers(settings)}
    pool = worker_pool(settings.model, arguments, workers, settings.ray, log)
    return click.get_current_context().with_resource(pool)


def base_for_workers(settings: Settings) -> str | None:
    """The base of an adapter, as a place that is the same in a worker, which has another working directory."""
    named = settings.base
    if os.path.isdir(settings.model):
        named = base_of(Path(settings.model), settings.base)
    return os.path.abspath(named) if named is not None and os.path.isdir(named) else named


def load_model(settings: Settings) -> "Subject":
    """The model of `--model`, in this process."""
    weights = " with random weights, a negative control" if settings.random_weights else ""
    click.echo(f"loading {settings.model}{weights} ...", err=True)
    with until_done(IMPORTING):
        from voicepatch.engine.subject import load_subject

    subject = load_subject(settings.model, **load_arguments(settings))
    # Before anything has run: what is there by now stays, and need not be looked through for garbage again.
    gc.freeze()
    return subject


def load_arguments(settings: Settings) -> dict[str, Any]:
    """The arguments of `load_subject` that settings give, beside the checkpoint."""
    names = ("base", "task", "device", "dtype", "engine", "max_rows", "store_mb")
    seed = settings.seed if settings.random_weights else None
    return {name: getattr(settings, name) for name in names} | {"random_weights": seed}
