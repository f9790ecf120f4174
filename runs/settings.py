"""What an experiment runs with, and what of it is recorded (`patching_config.json`).

    settings = Settings("prosody", max_pairs=20, options={"alpha": (0.5, 1.0)})
    known_settings(experiment, settings, values)     # before the model is there
    recorded_settings(job, settings)

`Settings` are what the command line asks for; a `Job` is what becomes of it for a model.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from engine.pair_input import ALIGNMENTS
from engine.subject import Subject
from errors import UserError
from models.folder import check_layers
from models.limits import MAX_SECONDS
from pairs.clips import file_hash
from registry.catalogue import MAIN, find, plugins
from registry.intervention import Intervention
from runs.checks import NOISE
from runs.failures import NEAR_TIE
from runs.job import Job
from runs.sweep import option_flag, swept, values_of

LIBRARIES = ("torch", "nnsight", "transformers", "numpy", "pandas", "altair", "soundfile", "soxr")


@dataclass(frozen=True)
class Settings:
    """What an experiment runs with; `layers` None means all. `options` are its own: a value, several, or `ALL`."""

    kind: str
    max_pairs: int = 100
    seed: int = 42
    layers: tuple[int, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    align: str = ALIGNMENTS[0]
    same_speaker: bool = True
    both_directions: bool = False
    overwrite: bool = False
    skip_bad_clips: bool = False
    max_seconds: int = MAX_SECONDS
    max_failed: float = 0.01


def experiment_name(experiment: Intervention, kind: str) -> str:
    """NAME in the files of a run: the pair kind, or a control's name with it; `self` stands alone (SPEC section 8)."""
    return {MAIN: kind, "self": "self"}.get(experiment.name, f"{experiment.name}-{kind}")


def layers_of(n: int, layers: Sequence[int] | None) -> list[int]:
    """The layers to patch in order, all of the model's `n` for None; `UserError` for one that it lacks."""
    check_layers(layers, n)
    return sorted(set(range(n) if layers is None else layers))


def recorded_settings(job: Job, settings: Settings) -> dict[str, Any]:
    """Everything that a job runs with."""
    engine, model = job.subject.engine, job.subject.model.llm
    return {
        **known_settings(job.experiment, settings, job.values),
        "layers_to_patch": list(job.layers),
        "patch_all_layers": len(job.layers) == engine.n_layers,
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


def known_settings(experiment: Intervention, settings: Settings, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an experiment that are known before the model is."""
    single = {name: _single(chosen) for name, chosen in values.items()}
    default = float(experiment.options.get("alpha", 1))
    return {
        "intervention": experiment.name,
        "doc": experiment.doc,
        "code_sha256": experiment.code_hash(),
        "control": experiment.control,
        "kind": settings.kind,
        "patch_alpha": single.pop("alpha", 1.0),
        **({"default_alpha": default} if default != 1 else {}),
        "options": single,
        "align": settings.align,
        f"max_pairs_{settings.kind}": settings.max_pairs,
        "pair_sampling_seed": settings.seed,
        "same_speaker": settings.same_speaker,
        "both_directions": settings.both_directions,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
    }


def files_of_experiment(experiment: Intervention, given: Mapping[str, Any]) -> dict[str, Any]:
    """The file of `--plugin` that it is in, and the sha256 of each file that one of its text options names.

    Of this process, where the command was started. `UserError` for a file that cannot be read.
    """
    entry = find(experiment.name)
    found: dict[str, Any] = {"plugin": str(entry.path)} if entry and entry.path in plugins() else {}
    texts = [name for name, default in experiment.options.items() if isinstance(default, str)]
    if texts:
        found["option_files"] = {}
    for name in texts:
        for value in values_of(experiment, name, given.get(name, experiment.options[name])):
            if os.path.isfile(value):
                try:
                    found["option_files"][value] = file_hash(Path(value))
                except OSError as error:
                    raise UserError(f"{option_flag(name)} {value}: cannot be read ({error.strerror})") from None
    return found


def _single(chosen: Any) -> Any:
    """One value as itself, several as a list."""
    if not isinstance(chosen, (tuple, list)):
        return chosen
    return chosen[0] if len(chosen) == 1 else list(chosen)
