"""The weights of a checkpoint: the tensors that its files hold, and their hash.

    paths = stored_tensors(folder, family)           # the file of each tensor; no weight is read yet
    sha256 = checkpoint_hash(folder)
    sha256 = adapter_hash(adapter)                   # of a folder with an adapter

Only safetensors are read, never a pickle.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from tqdm import tqdm

from voicepatch.errors import UserError
from voicepatch.file_hashes import file_hash
from voicepatch.models.families import family_of
from voicepatch.models.family import Family
from voicepatch.models.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_config, weight_paths
from voicepatch.registry.sources import own_files

DTYPES = ("F64", "F32", "F16", "BF16")
COUNTER = ".num_batches_tracked"  # of a batch norm: the one whole number among weights, and nothing is computed from it


def stored_tensors(folder: Path, family: Family) -> dict[str, Path]:
    """The file of each tensor that the family reads, by the tensor's name; only the headers of the files are read.

    Raises `UserError` for a file that is no safetensors file, a tensor that two files hold, and one that is not of
    floats, because quantised weights would load as numbers of another meaning.
    """
    stored: dict[str, Path] = {}
    for path in weight_paths(folder, family):
        try:
            with safe_open(path, framework="pt") as file:
                for name in filter(family.needs, file.keys()):
                    dtype = file.get_slice(name).get_dtype()
                    if name in stored:
                        raise UserError(f"{path}: holds {name}, as {stored[name].name} does; keep one of them")
                    if dtype not in DTYPES and not (dtype == "I64" and name.endswith(COUNTER)):
                        raise UserError(f"{path}: {name} is {dtype}; take a checkpoint with float or bfloat16 weights")
                    stored[name] = path
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{path}: not a readable safetensors file ({error}); fetch it again") from None
    if not stored:
        raise UserError(f"{folder}: holds another model's weights; no tensor's name begins {' or '.join(family.parts)}")
    return stored


def stored_bytes(folder: Path, family: Family) -> int:
    """Bytes of the files with weights."""
    return sum(path.stat().st_size for path in weight_paths(folder, family))


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all values are finite; in one pass on the tensor's own device, without a copy of its size."""
    # NaN wins a comparison in aminmax, so both of its ends are finite only where every value is.
    return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())


def checkpoint_hash(folder: Path) -> str:
    """sha256 over every file that is read (configuration, weights, tokenizer, features), in a fixed order.

    Of adapters, that of the family is part of the checkpoint; another one has an `adapter_hash`.
    """
    return _hash_of(_files_read(folder, family_of(read_config(folder))))


def adapter_hash(adapter: Path) -> str:
    """sha256 over the two files of an adapter that are read."""
    return _hash_of([adapter / name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)])


def _hash_of(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in tqdm(paths, desc="hashing the checkpoint", delay=2, leave=False):
        try:
            content = bytes.fromhex(file_hash(path))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); fetch the file again") from None
        digest.update(path.name.encode("utf-8", "surrogateescape") + b"\0" + content)
    return digest.hexdigest()


def model_hash(model: Any) -> str:
    """sha256 over all tensors of a model that was loaded elsewhere, and over its prompt."""
    digest = hashlib.sha256(repr(model.prompt).encode())
    for part, module in vars(model).items():
        for name, tensor in module.state_dict().items() if isinstance(module, nn.Module) else ():
            digest.update(f"{part}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _files_read(folder: Path, family: Family) -> list[Path]:
    # The code of a family from outside decides what its model computes.
    code = [] if family.is_builtin or not family.path.is_file() else own_files(family.path.resolve())
    if family.input_files is None:
        return [*sorted(path for path in folder.rglob("*") if path.is_file()), *code]
    patterns = [*family.input_files]
    if family.adapter is not None:
        patterns += [str(Path(family.adapter) / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
    small = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    return [folder / "config.json", *weight_paths(folder, family), *small, *code]
