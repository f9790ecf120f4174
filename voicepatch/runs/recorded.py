"""What a run stores of an experiment's settings (`patching_config.json`).

known_settings(experiment, settings)     # before the model is loaded
recorded_settings(job, settings)         # all of them
settings_of_answers(subject, settings)   # of answers to single clips
"""

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from voicepatch.engine.subject import Subject
from voicepatch.errors import UserError
from voicepatch.file_hashes import file_hash
from voicepatch.models.folder import check_layers
from voicepatch.paths import DEMO_MODEL
from voicepatch.program import VERSION, program_hash
from voicepatch.registry.catalogue import find, plugins
from voicepatch.registry.intervention import Intervention
from voicepatch.registry.options import ALL
from voicepatch.runs.checks import NOISE
from voicepatch.runs.failures import NEAR_TIE
from voicepatch.runs.job import Job, donor_task
from voicepatch.runs.sweep import swept, values_of
from voicepatch.types.settings import Settings
from voicepatch.types.task import DONOR_TASK, default_task

LIBRARIES = ("torch", "nnsight", "transformers", "numpy", "pandas", "altair", "soundfile", "soxr")


def experiment_name(experiment: Intervention, kind: str) -> str:
    """NAME in the files of a run: the pair kind, or the experiment's name with or without it (SPEC section 8)."""
    return kind if experiment.main else f"{experiment.name}-{kind}" if experiment.named_by_kind else experiment.name


def layers_of(n: int, layers: Sequence[int] | None) -> list[int]:
    """The layers to patch in order, all of the model's `n` for None; `UserError` for one that it lacks."""
    check_layers(layers, n)
    return sorted(set(range(n) if layers is None else layers))


def known_settings(experiment: Intervention, settings: Settings) -> dict[str, Any]:
    """What is known before the model is loaded; own options whose values the model gives are missing."""
    defaults = {name: option.default for name, option in experiment.options.items()}
    chosen = {**defaults, **settings.options}
    known = _stored(experiment, settings, {name: value for name, value in chosen.items() if value is not ALL})
    if settings.layers is not None:
        known["layers_to_patch"] = list(settings.layers)
    if settings.device:
        known["device"] = settings.device.partition(":")[0]
    return known | files_of_experiment(experiment, settings.options)


def recorded_settings(job: Job, settings: Settings) -> dict[str, Any]:
    """Everything that a job runs with, but for the files of `files_of_experiment`."""
    engine, model = job.subject.engine, job.subject.model.llm
    return {
        **_stored(job.experiment, settings, job.values),
        "layers_to_patch": list(job.layers),
        "patch_all_layers": len(job.layers) == engine.n_layers or not job.experiment.by_layer,
        "swept": swept(job.values),
        "engine": engine.name,
        "device": model.device.type,
        "dtype": dtype_of(job.subject),
        "threads": torch.get_num_threads(),
        "use_cache": False,
        "engine_tolerance": NOISE[model.dtype],
        "near_tie_margin": NEAR_TIE[model.dtype],
    }


def dtype_of(subject: Subject) -> str:
    """The type of the model's numbers, as the configuration and `--dtype` call it."""
    return str(subject.model.llm.dtype).removeprefix("torch.")


def _stored(experiment: Intervention, settings: Settings, values: Mapping[str, Any]) -> dict[str, Any]:
    single = {name: _single(chosen) for name, chosen in values.items()}
    default = experiment.options["alpha"].default if "alpha" in experiment.options else 1
    return {
        "intervention": experiment.name,
        "doc": experiment.doc,
        "code_sha256": experiment.code_hash(),
        **experiment.recorded(),
        **settings.recorded(),
        "patch_alpha": single.pop("alpha", 1.0),
        **({"default_alpha": default} if default != 1 else {}),
        "options": single,
        **_program(),
    }


def _program() -> dict[str, Any]:
    """The versions of the program, Python and the libraries."""
    libraries = {name: version(name) for name in LIBRARIES}
    versions = {"voicepatch": VERSION, "python": platform.python_version(), **libraries}
    return {"versions": versions, "program_sha256": program_hash()}


def settings_of_answers(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Everything that answers are computed with, beside the model and the data."""
    return {
        "device": subject.model.llm.device.type,
        "dtype": dtype_of(subject),
        "threads": torch.get_num_threads(),
        "max_seconds": settings.max_seconds,
        **_program(),
    }


def files_of_experiment(experiment: Intervention, given: Mapping[str, Any]) -> dict[str, Any]:
    """The file of `--plugin` that it is in, and the sha256 of each file or task that one of its text options names.

    Of this process, where the command was started. `UserError` for a file that cannot be read.
    """
    entry = find(experiment.name)
    found: dict[str, Any] = {"plugin": str(entry.path)} if entry and entry.path in plugins() else {}
    texts = [option for option in experiment.options.values() if option.type is str]
    if texts:
        found["option_files"] = {}
    for option in texts:
        chosen = values_of(option, given.get(option.name, option.default))
        if option.name == DONOR_TASK:
            found["option_files"][chosen[0]] = donor_task(chosen).sha256
            continue
        for value in chosen:
            if os.path.isfile(value):
                try:
                    found["option_files"][value] = file_hash(Path(value))
                except OSError as error:
                    raise UserError(f"{option.flag} {value}: cannot be read ({error.strerror})") from None
    return found


def places(settings: Settings) -> dict[str, dict[str, str | list[str]]]:
    """Where the model, the task and the plugins lie that are not the program's own defaults, as options name them.

    Of this process, where the command was started.
    """
    found: dict[str, str | list[str]] = {}
    if settings.model != str(DEMO_MODEL):
        found["model"] = settings.model
    if settings.base is not None:
        found["base"] = settings.base
    if settings.task and settings.task != default_task():
        found["task"] = settings.task.source
    if files := plugins():
        found["plugins"] = [str(file) for file in files]
    return {"places": found}


def _single(chosen: Any) -> Any:
    """One value as itself, several as a list."""
    if not isinstance(chosen, (tuple, list)):
        return chosen
    return chosen[0] if len(chosen) == 1 else list(chosen)
