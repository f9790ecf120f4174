"""How many workers there are, and the cores and GPUs that each one needs.

resources(workers=None, device=None)       # auto: one worker for each GPU; without GPUs, one for each core
resources(8, "cuda", available={"GPU": 16.0, "CPU": 128.0})
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from voicepatch.errors import BAD_USAGE, UserError


@dataclass(frozen=True)
class Resources:
    """The number of workers, their device, and the threads, cores and GPUs of each."""

    n_workers: int
    device: str
    threads: int
    cpus: int
    gpus: int


def resources(workers: int | None, device: str | None, available: Mapping[str, float] | None = None) -> Resources:
    """The resources of a pool of `workers`, None for as many as possible.

    `available` are the resources of a cluster, None for this machine. `UserError` when more is requested than there is.
    """
    where = "this machine" if available is None else "the cluster"
    if device and "cuda:" in device:
        raise UserError(f"--device {device}: each worker has a GPU of its own; write --device cuda", BAD_USAGE)
    if available is None:
        n_cores, n_gpus = count_cores(), 0 if device == "cpu" else count_gpus()
    else:
        n_cores, n_gpus = int(available.get("CPU", 0)), int(available.get("GPU", 0))
    if device == "cuda" and not n_gpus:
        raise UserError(f"--device cuda: {where} has no GPU for a worker; leave --device out", BAD_USAGE)
    text = os.environ.get("OMP_NUM_THREADS", "")
    chosen = int(text) if text.isdecimal() else 0
    on_gpu = n_gpus > 0 and device != "cpu"
    threads = chosen or (1 if workers is None else max(1, n_cores // workers))
    maximum = n_gpus if on_gpu else n_cores // threads
    n = maximum if workers is None else workers
    if not 1 <= n <= maximum:
        there = f"{n_gpus} GPU{'s' * (n_gpus != 1)}" if on_gpu else f"{n_cores} cores"
        each = "one" if on_gpu or threads == 1 else f"{threads} of them"
        raise UserError(
            f"--workers {workers or 'auto'}: {where} has {there}, and each worker needs {each}; "
            + (f"the maximum is {maximum}" if maximum else "set OMP_NUM_THREADS to a smaller number"),
            BAD_USAGE,
        )
    if on_gpu:
        return Resources(n, "cuda", chosen or max(1, n_cores // n), 1 if n_cores >= n else 0, 1)
    return Resources(n, device or "cpu", threads, threads, 0)


def count_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_gpus() -> int:
    """The number of GPUs that this process may use."""
    import torch

    return torch.cuda.device_count()
