"""A folder with an adapter (LoRA), and the base model that it changes. No torch here.

    found = find_checkpoint("runs/my-lora")                          # the base's name and folder, and runs/my-lora
    adapter = adapter_of(found.folder, family, config, found.adapter)     # the one to merge, or None

An adapter is in one of three places: alone in a folder, beside the weights of its base, or in the folder that the
family of the checkpoint gives (Granite Speech 3.3, Phi-4-multimodal).
"""

import filecmp
from dataclasses import dataclass
from pathlib import Path

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.models.families import family_of
from voicepatch.models.family import PROCESSOR_FILES, Config, Family
from voicepatch.models.folder import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    INDEX,
    WEIGHTS,
    checkpoint_folder,
    read_config,
    read_json,
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's name and folder, and the folder of an adapter that lies alone, None without one."""

    name: str
    folder: Path
    adapter: Path | None = None


def find_checkpoint(source: str | Path, base: str | None = None) -> Checkpoint:
    """The checkpoint in a folder or hub id; if `source` holds an adapter alone, that of its base model.

    `base` is the folder or hub id of the base model; None means the one that `adapter_config.json` names. Raises
    `UserError` where there is no such base, and for a `base` where `source` is no adapter alone.
    """
    folder = checkpoint_folder(source)
    named = base_of(folder, base)
    if named is None:
        return Checkpoint(name_of(source), folder)
    base_folder = checkpoint_folder(named, f"{folder / ADAPTER_CONFIG}: base model" if base is None else "--base")
    if _is_alone(base_folder):
        raise UserError(f"{named}: is no base model but an adapter; name the folder of the merged model with --base")
    return Checkpoint(name_of(named), base_folder, folder)


def name_of(source: str | Path) -> str:
    """What a run calls a folder or hub id."""
    return Path(source).resolve().name if Path(source).is_dir() else str(source).replace("/", "--")


def base_of(folder: Path, base: str | None = None) -> str | None:
    """The folder or hub id of the base where an adapter lies alone; None for a folder that has weights.

    It is `base`, or what `adapter_config.json` names: from the working directory, or from the adapter's folder.
    """
    if not _is_alone(folder):
        if base is not None:
            raise UserError(f"--base {base}: {folder} is no adapter without its base; leave --base out", BAD_USAGE)
        return None
    if base is not None:
        return base
    named = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise UserError(f"{folder / ADAPTER_CONFIG}: names no base model; name its folder or hub id with --base")
    beside = folder / named
    return str(beside) if not Path(named).is_dir() and beside.is_dir() else named


def _is_alone(folder: Path) -> bool:
    return (folder / ADAPTER_CONFIG).is_file() and not any((folder / name).exists() for name in (WEIGHTS, INDEX))


def adapter_of(folder: Path, family: Family, config: Config, adapter: Path | None = None) -> Path | None:
    """The folder of the adapter to merge: `adapter`, the family's own, or `folder` if one lies beside the weights.

    transformers looks for `adapter_config.json` in the checkpoint's own folder and in no folder below it. Raises
    `UserError` where a file of the adapter is missing, and for two adapters, because their order is not known.
    """
    beside = any(folder.glob("adapter_config.json")) or any(folder.glob("adapter_model*"))
    own = own_adapter(folder, family, config)
    found = list(dict.fromkeys(path for path in (own, folder if beside else None, adapter) if path is not None))
    if len(found) > 1:
        raise UserError(
            f"{found[1]}: is an adapter, but {found[0]} has one too, and it is not known whether it was trained with "
            "that; merge them with peft (merge_and_unload(), then save_pretrained()) and pass the merged folder"
        )
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if found and not (found[0] / name).is_file():
            raise UserError(
                f"{found[0] / name}: missing; without the adapter this is another model, so fetch the file (a pickled "
                "adapter_model.bin is never read; save it as safetensors)"
            )
    return found[0] if found else None


def added_adapter(found: Checkpoint) -> Path | None:
    """The folder of the adapter that is merged and is no part of the checkpoint; None where there is none."""
    config = read_config(found.folder)
    family = family_of(config)
    adapter = adapter_of(found.folder, family, config, found.adapter)
    return None if adapter == own_adapter(found.folder, family, config) else adapter


def own_adapter(folder: Path, family: Family, config: Config) -> Path | None:
    """The folder of the adapter that is part of a checkpoint of this family; None where there is none."""
    has_one = family.adapter is not None and config.get("has_lora_adapter") is not False  # a key of Granite's
    return folder / family.adapter if has_one and family.adapter is not None else None


def unread_files(folder: Path, family: Family, adapter: Path) -> list[str]:
    """Names of the files beside an adapter that differ from those of the base, which are read in their place."""
    patterns = PROCESSOR_FILES if family.input_files is None else family.input_files
    paths = sorted({path for pattern in patterns for path in adapter.glob(pattern) if path.is_file()})
    names = [path.relative_to(adapter) for path in paths]
    return [str(name) for name in names if not _same(folder / name, adapter / name)]


def _same(first: Path, second: Path) -> bool:
    return first.is_file() and filecmp.cmp(first, second, shallow=False)
