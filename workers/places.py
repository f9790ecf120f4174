"""How many workers there are to be, and what each of them takes of a machine.

needs(Request(workers=None), device=None)           # auto: one for each GPU, or each core that its threads need
needs(Request(8, "auto"), "cuda", {"GPU": 16.0, "CPU": 128.0})
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from errors import BAD_USAGE, UserError


@dataclass(frozen=True)
class Request:
    """What was asked for: so many `workers`, None for as many as there is room for; `address` of a cluster."""

    workers: int | None
    address: str | None = None


@dataclass(frozen=True)
class Need:
    """`n` workers on `device` with so many threads, and Ray's resources for each and in all."""

    n: int
    device: str
    threads: int
    cpus_each: int
    gpus_each: int

    @property
    def n_cpus(self) -> int:
        return self.n * self.cpus_each

    @property
    def n_gpus(self) -> int:
        return self.n * self.gpus_each


def needs(request: Request, device: str | None, there: Mapping[str, float] | None = None) -> Need:
    """What to ask of Ray; `UserError` for more than there is. `there` are a cluster's resources, None this one's."""
    where = "this machine" if there is None else "the cluster"
    if device and device.startswith("cuda:"):
        raise UserError(f"--device {device}: each worker has a GPU of its own; write --device cuda", BAD_USAGE)
    n_cpus = n_cores() if there is None else int(there.get("CPU", 0))
    n_gpus = (0 if device == "cpu" else _n_gpus()) if there is None else int(there.get("GPU", 0))
    if device == "cuda" and not n_gpus:
        raise UserError(f"--device cuda: {where} has no GPU for a worker; leave --device out", BAD_USAGE)
    on_gpu = n_gpus > 0 and device in (None, "cuda")
    if on_gpu:
        n = _counted(request, n_gpus, f"{where} has {n_gpus} GPU{'s' * (n_gpus != 1)}, one for each worker")
        threads = max(1, min(n_cpus // n, _asked_threads() or n_cpus))
        return Need(n, "cuda", threads, 1 if there is None or n_cpus >= n else 0, 1)
    each = _asked_threads() or (1 if request.workers is None else max(1, n_cpus // request.workers))
    core = "one" if each == 1 else f"{each} of them"
    n = _counted(request, n_cpus // each, f"{where} has {n_cpus} cores, and each worker needs {core}")
    return Need(n, device or "cpu", each, each, 0)


def _counted(request: Request, room: int, what: str) -> int:
    n = room if request.workers is None else request.workers
    if n > room or n < 1:
        asked = "auto" if request.workers is None else request.workers
        raise UserError(f"--workers {asked}: {what}; ask for {room or 'fewer threads'}", BAD_USAGE)
    return n


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _asked_threads() -> int | None:
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and int(text) else None


def _n_gpus() -> int:
    import torch

    return torch.cuda.device_count()
