"""A checkpoint's folder: its place, its configuration, and its files with weights. No torch here.

    folder = checkpoint_folder("CASIA-LM/OpenS2S")    # or "path/to/OpenS2S"
    n_layers_of(read_config(folder))
    weight_paths(folder, family)

A checkpoint comes from elsewhere, so it is read as data only: JSON and safetensors, never a pickle, and no file outside
its folder.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.files import content_of, open_regular
from voicepatch.json_text import parse_json
from voicepatch.models.families import family_of
from voicepatch.models.family import Family, declared_families

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DECODERS = (("llm_config",), ("text_config",), ("thinker_config", "text_config"))  # where families describe theirs


def checkpoint_folder(source: str | Path, option: str = "--model") -> Path:
    """The local folder of a checkpoint or of an adapter; of a hub id, the files that are read are fetched.

    `option` is what named it, for errors.
    """
    return _folder(source, option, _fetch)


def config_folder(source: str | Path) -> Path:
    """The local folder of a checkpoint; of a hub id, `config.json` alone is fetched."""
    return _folder(source, "--model", partial(_fetch, only_config=True))


def _folder(source: str | Path, option: str, fetch: Callable[[str, str], Path]) -> Path:
    folder = Path(source)
    name = str(source)
    try:
        if folder.is_dir():
            return folder
        is_file = folder.exists()
    except OSError as error:
        raise UserError(f"{option} {name}: cannot be read ({error.strerror}); name a checkpoint folder") from None
    if is_file:
        raise UserError(f"{option} {name}: is a file; name the checkpoint folder that holds config.json")
    if not is_hub_id(name):
        way_out = "" if option == "--model" else "; name the base model's folder with --base"
        raise UserError(f"{option} {name}: no such folder, and not a hub id of the form OWNER/NAME{way_out}")
    return fetch(name, option)


def is_hub_id(name: str) -> bool:
    """Whether a name that is no folder may be one of the hub's, OWNER/NAME."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def _fetch(hub_id: str, option: str, only_config: bool = False) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError

    # A `*` of these patterns matches slashes too, so `tts/` must be named to be left out.
    small: dict[str, Any] = {"allow_patterns": ["*.json", "*.txt", "*.jinja"], "ignore_patterns": ["tts/*"]}
    revisions = {hub_id: branch for family in declared_families() for hub_id, branch in family.revisions.items()}
    branch: dict[str, Any] = {"revision": revisions[hub_id]} if hub_id in revisions else {}
    try:
        if only_config:
            return Path(snapshot_download(hub_id, allow_patterns=["config.json"], **branch))
        folder = Path(snapshot_download(hub_id, **small, **branch))
        if (folder / ADAPTER_CONFIG).is_file():
            snapshot_download(hub_id, allow_patterns=[ADAPTER_WEIGHTS], **branch)
            if not (folder / "config.json").is_file():
                return folder
        family = family_of(read_config(folder))
        if family.input_files is None:
            return Path(snapshot_download(hub_id, **branch))
        adapter = [] if family.adapter is None else [str(Path(family.adapter) / ADAPTER_WEIGHTS)]
        snapshot_download(hub_id, allow_patterns=[WEIGHTS, *adapter], **branch)
        shards = [name for name in _weight_files(folder, family) if name != WEIGHTS]
        if shards:
            snapshot_download(hub_id, allow_patterns=shards, **branch)
    except (HTTPError, HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{option} {hub_id}: could not be fetched ({reason[:120]}). Without a network, put config.json, "
            "*.safetensors (with model.safetensors.index.json if sharded), the tokenizer's files and "
            "preprocessor_config.json (OpenS2S: audio/preprocessor_config.json) into one folder and pass it: "
            f"{option} FOLDER"
        ) from None
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's `config.json`."""
    return read_json(folder / "config.json")


def refuse_quantised(config: Mapping[str, Any]) -> None:
    """`UserError` for a configuration that says how weights were quantised: they are other numbers than the model's."""
    for part in parts_of(config):
        found = part.get("quantization_config")
        if found is not None:
            method = found.get("quant_method") if isinstance(found, Mapping) else None
            raise UserError(
                f"config.json has a quantization_config ({str(method)[:40]}); take the checkpoint with float or "
                "bfloat16 weights that it was made from"
            )


def parts_of(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A configuration and the objects in it, at any depth."""
    yield config
    for value in config.values():
        if isinstance(value, Mapping):
            yield from parts_of(value)


def n_layers_of(config: Mapping[str, Any]) -> int | None:
    """The decoder layers that a configuration gives; None where it gives none."""
    for path in DECODERS:
        found: Any = config
        for key in (*path, "num_hidden_layers"):
            found = found.get(key) if isinstance(found, dict) else None
        if type(found) is int and found > 0:
            return found
    return None


def check_layers(layers: Sequence[int] | None, n_layers: int) -> None:
    """`UserError` for layers that the model lacks, naming only those, and for an empty list."""
    if layers is None:
        return
    missing = [layer for layer in layers if not 0 <= layer < n_layers]
    if missing or not layers:
        named = ",".join(map(str, missing[:3])) + (f",... ({len(missing)} layers)" if len(missing) > 3 else "")
        raise UserError(f"--layers {named}: the model has layers 0-{n_layers - 1}", BAD_USAGE)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint; `UserError` for anything else."""
    if not path.is_file():
        raise UserError(f"{path}: missing; a checkpoint folder holds it, so fetch it")
    try:
        with open_regular(path) as file:
            content = parse_json(content_of(file).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not readable JSON ({error}); fetch the file again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: should hold a JSON object; fetch the file again")
    return content


def _weight_files(folder: Path, family: Family) -> list[str]:
    """Names of the safetensors files to read; as in transformers, `model.safetensors` goes before an index."""
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    index = folder / INDEX
    if not index.exists():
        return []
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError(f"{index}: weight_map should give a file name for each tensor; fetch the file again")
    names = sorted({weight_map[name] for name in weight_map if family.needs(name)})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(f"{index}: names {name!r}, but weights are read from *.safetensors beside it only")
    return names


def weight_paths(folder: Path, family: Family) -> list[Path]:
    """The safetensors files to read: `model.safetensors`, or the shards of its index where there is no such file.

    Raises `UserError` where there are none or one is missing.
    """
    names = _weight_files(folder, family)
    if not names:
        raise UserError(
            f"{folder}: no model.safetensors, and no model.safetensors.index.json with the model's tensors; pickled "
            "weights (*.bin, *.pt) are never read, convert them"
        )
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: missing, but model.safetensors.index.json names it; fetch it")
    return [folder / name for name in names]
