"""The weights of a checkpoint: what its files declare, their tensors and their hash.

    stored = stored_tensors(folder, family)           # names, shapes and dtypes; no weight is read yet
    tensors = read_tensors(stored, device, dtype)

Only safetensors are read, never a pickle.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from tqdm import tqdm

from voicepatch.errors import UserError
from voicepatch.models.families import family_of
from voicepatch.models.family import Family
from voicepatch.models.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_config, weight_paths
from voicepatch.registry.sources import own_files

BYTES_PER_VALUE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
COUNTER = ".num_batches_tracked"  # of a batch norm: the one whole number among weights, and nothing is computed from it
PROGRESS_AFTER = 2.0  # seconds; what is done sooner needs no bar
HASH_BLOCK = 2**20


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the header of its file declares it."""

    path: Path
    shape: tuple[int, ...]
    n_bytes: int


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
                        # A copy even where nothing changes: the file is mapped, and may be written over meanwhile.
                        tensors[name] = saved.to(device, dtype, copy=True)
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


@contextmanager
def hashing(folder: Path) -> Iterator[Callable[[], str]]:
    """Hash a checkpoint in a thread while the body loads it, so that a disk gives its bytes once.

    Gives a function that waits for `checkpoint_hash`. Where the body fails, the hash is given up.
    """
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(checkpoint_hash, folder, stop)
        try:
            yield future.result
        finally:
            stop.set()


def checkpoint_hash(folder: Path, stop: Event | None = None) -> str:
    """sha256 over every file that is read (configuration, weights, tokenizer, features), in a fixed order.

    Raises `CancelledError` once `stop` is set.
    """
    digest = hashlib.sha256()
    paths = _files_read(folder, family_of(read_config(folder)))
    path = folder
    try:
        with _progress("hashing the checkpoint", sum(path.stat().st_size for path in paths)) as bar:
            for path in paths:
                digest.update(path.name.encode("utf-8", "surrogateescape") + b"\0" + _file_hash(path, bar, stop))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); fetch the file again") from None
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


def _file_hash(path: Path, bar: tqdm, stop: Event | None) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            if stop is not None and stop.is_set():
                raise CancelledError
            digest.update(block)
            bar.update(len(block))
    return digest.digest()
