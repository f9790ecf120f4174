"""The files of a checkpoint: where they are, what they declare, their tensors and their hash.

    folder = checkpoint_folder("CASIA-LM/OpenS2S")    # or "path/to/OpenS2S"
    stored = stored_tensors(folder, family)           # names, shapes and dtypes; no weight is read yet
    tensors = read_tensors(stored, device, dtype)

A checkpoint comes from elsewhere, so it is read as data only: JSON and safetensors, never a pickle, and nothing it
names outside its own folder.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from errors import UserError
from models.families import REVISIONS, Family, family_of

BYTES_PER_VALUE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
COUNTER = ".num_batches_tracked"  # of a batch norm: the one whole number among weights, and nothing is computed from it
MAX_JSON_BYTES = 64 * 2**20  # the index of the real model holds 0.1 MB, its tokenizer 11
PROGRESS_AFTER = 2.0  # seconds; what is done sooner needs no bar
HASH_BLOCK = 2**20
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the header of its file declares it."""

    path: Path
    shape: tuple[int, ...]
    n_bytes: int


def checkpoint_folder(source: str | Path) -> Path:
    """The local folder of a checkpoint; a hub id is fetched, without the speech decoder, as far as it is needed."""
    folder = Path(source)
    name = str(source)
    try:
        if folder.is_dir():
            return folder
        is_file = folder.exists()
    except OSError as error:
        raise UserError(f"--model {name}: cannot be read ({error.strerror}); name a checkpoint folder") from None
    if is_file:
        raise UserError(f"--model {name}: is a file; name the checkpoint folder that holds config.json")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(f"--model {name}: no such folder, and not a hub id of the form OWNER/NAME")
    return _fetch(name)


def _fetch(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError

    # A `*` of these patterns matches slashes too, so `tts/` must be named to be left out.
    small = {"allow_patterns": ["*.json", "*.txt", "*.jinja"], "ignore_patterns": ["tts/*"]}
    branch = {"revision": REVISIONS[hub_id]} if hub_id in REVISIONS else {}
    try:
        folder = Path(snapshot_download(hub_id, **small, **branch))
        family = family_of(read_config(folder))
        weights = _weight_files(folder, family) or ["model.safetensors"]
        if family.adapter is not None:
            weights.append(str(Path(family.adapter) / ADAPTER_WEIGHTS))
        snapshot_download(hub_id, allow_patterns=weights, **branch)
    except (HTTPError, HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"--model {hub_id}: could not be fetched ({reason[:120]}). Without a network, put config.json, "
            "*.safetensors (with model.safetensors.index.json if sharded), the tokenizer's files and "
            "preprocessor_config.json (OpenS2S: audio/preprocessor_config.json) into one folder and pass it: "
            "--model FOLDER"
        ) from None
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's `config.json`."""
    return read_json(folder / "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint; `UserError` for anything else, too large or too deep a file included."""
    if not path.is_file():
        raise UserError(f"{path}: missing; a checkpoint folder holds it, so fetch it")
    try:
        size = path.stat().st_size
        content = json.loads(path.read_text(encoding="utf-8")) if size <= MAX_JSON_BYTES else None
    # ValueError: no UTF-8, no JSON, or a number of thousands of digits.
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not readable JSON ({error}); fetch the file again") from None
    if size > MAX_JSON_BYTES:
        raise UserError(f"{path}: holds {size:,} bytes, too many for a configuration; fetch the file again")
    if not isinstance(content, dict):
        raise UserError(f"{path}: should hold a JSON object; fetch the file again")
    return content


def _weight_files(folder: Path, family: Family) -> list[str]:
    """Names of the safetensors files that hold a needed tensor."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise UserError(f"{index}: weight_map should give a file name for each tensor; fetch the file again")
        names = sorted({weight_map[name] for name in weight_map if family.needs(name)})
        for name in names:
            if name in ("", "..") or Path(name).name != name or "\\" in name:
                raise UserError(f"{index}: names a file outside the folder: {name!r}; fetch the file again")
            if not name.endswith(".safetensors"):
                raise UserError(f"{index}: names {name!r}, but weights are read from *.safetensors only")
        return names
    return ["model.safetensors"] if (folder / "model.safetensors").exists() else []


def weight_paths(folder: Path, family: Family) -> list[Path]:
    """The safetensors files to read; `UserError` where there are none or one is missing. Pickles are never read."""
    names = _weight_files(folder, family)
    if not names:
        pickled = "; pickled weights (*.bin, *.pt) are refused, convert them" if _has_pickle(folder) else ""
        raise UserError(
            f"{folder}: no model.safetensors, and no model.safetensors.index.json with the model's tensors{pickled}"
        )
    for name in names:
        try:
            there = (folder / name).is_file()
        except OSError:  # a name too long for the file system
            there = False
        if not there:
            raise UserError(f"{folder / name}: missing, but model.safetensors.index.json names it; fetch it")
    return [folder / name for name in names]


def _has_pickle(folder: Path) -> bool:
    return any(path.suffix in {".bin", ".pt", ".pth", ".ckpt"} for path in folder.iterdir())


def stored_tensors(folder: Path, family: Family) -> dict[str, StoredTensor]:
    """The needed tensors by name, from the headers alone.

    Raises `UserError` for a file that is no safetensors file, a tensor that two files hold, or one that is not of
    floats: quantised weights would load as numbers of another meaning.
    """
    stored: dict[str, StoredTensor] = {}
    for path in weight_paths(folder, family):
        try:
            with safe_open(path, framework="pt") as file:
                for name in filter(family.needs, file.keys()):
                    tensor = file.get_slice(name)
                    shape, dtype = tuple(tensor.get_shape()), tensor.get_dtype()
                    if name in stored:
                        raise UserError(f"{path}: holds {name}, as {stored[name].path.name} does; keep one of them")
                    if dtype not in BYTES_PER_VALUE and not (dtype == "I64" and name.endswith(COUNTER)):
                        raise UserError(f"{path}: {name} is {dtype}; take a checkpoint with float or bfloat16 weights")
                    stored[name] = StoredTensor(path, shape, torch.Size(shape).numel() * BYTES_PER_VALUE.get(dtype, 8))
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise _unreadable(path, error) from None
    if not stored:
        raise UserError(f"{folder}: holds another model's weights; no tensor's name begins {' or '.join(family.parts)}")
    return stored


def read_tensors(
    stored: Mapping[str, StoredTensor], device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """The tensors themselves, one by one to the device, so that host memory holds no second copy.

    Raises `UserError` for a value that is not finite, naming its tensor, and where the device has too little memory.
    """
    tensors: dict[str, torch.Tensor] = {}
    path = Path()
    n_bytes = sum(tensor.n_bytes for tensor in stored.values())
    try:
        with _progress("reading weights", n_bytes) as bar:
            for path in sorted({tensor.path for tensor in stored.values()}):
                with safe_open(path, framework="pt") as file:
                    for name in [name for name, tensor in stored.items() if tensor.path == path]:
                        saved = file.get_tensor(name)
                        tensors[name] = saved.to(device, dtype)
                        if not is_finite(tensors[name]):
                            raise UserError(f"{path}: {name} {_not_finite(saved, dtype)}")
                        bar.update(stored[name].n_bytes)
    except (SafetensorError, OSError, MemoryError, RuntimeError) as error:
        # torch has a type of its own for a lack of memory on CUDA, and none on the CPU.
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "memory" in str(error):
            raise UserError(
                f"--device {device}: too little memory for {n_bytes / 1e9:.1f} GB of weights; "
                "free some, or take --dtype bfloat16 or another device"
            ) from None
        raise _unreadable(path, error) from None
    return tensors


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all values are finite; in one pass on the tensor's own device, without a copy of its size."""
    # NaN wins a comparison in aminmax, so both of its ends are finite only where every value is.
    return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())


def _not_finite(saved: torch.Tensor, dtype: torch.dtype) -> str:
    if is_finite(saved):
        return f"has values too large for {str(dtype).removeprefix('torch.')}; pass --dtype bfloat16 or float32"
    return "holds NaN or infinite values; fetch the file again"


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: not a readable safetensors file ({error}); fetch it again")


def _progress(what: str, n_bytes: int) -> tqdm:
    return tqdm(
        total=n_bytes, desc=what, unit="B", unit_scale=True, unit_divisor=1000, delay=PROGRESS_AFTER, leave=False
    )


def checkpoint_hash(folder: Path) -> str:
    """sha256 over every file that is read (configuration, weights, tokenizer, features), in a fixed order."""
    digest = hashlib.sha256()
    family = family_of(read_config(folder))
    patterns = [*family.input_files]
    if family.adapter is not None:
        patterns += [str(Path(family.adapter) / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
    small = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    paths = [folder / "config.json", *weight_paths(folder, family), *small]
    path = folder
    try:
        with _progress("hashing the checkpoint", sum(path.stat().st_size for path in paths)) as bar:
            for path in paths:
                digest.update(path.name.encode("utf-8", "surrogateescape") + b"\0" + _file_hash(path, bar))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); fetch the file again") from None
    return digest.hexdigest()


def _file_hash(path: Path, bar: tqdm) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.digest()
