"""The device, or the devices, and the dtype to run on.

device = pick_device("cuda:0")
dtype = pick_dtype(None, device)             # bfloat16
first, second = pick_devices("cuda:0,cuda:1")
"""

import torch

from voicepatch.errors import BAD_USAGE, UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str | None) -> torch.device:
    """The device to run on; raises `UserError` for one that this machine does not have."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError:
        raise UserError(f"--device {device}: unknown device; use cpu, cuda or cuda:N", BAD_USAGE) from None
    available = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (target.index or 0) >= available.get(target.type, 0):
        raise UserError(f"--device {device}: no such device on this machine; use --device cpu", BAD_USAGE)
    return target


def pick_devices(device: str | None) -> tuple[torch.device, ...]:
    """The device to run on, or several CUDA devices for one model; `UserError` where they cannot be used."""
    names = device.split(",") if device else [device]
    found = tuple(pick_device(name) for name in names)
    if len(found) == 1:
        return found
    if any(one.type != "cuda" or one.index is None for one in found):
        raise UserError(
            f"--device {device}: a model can be on several CUDA devices, each with its number; write cuda:0,cuda:1",
            BAD_USAGE,
        )
    if len(set(found)) < len(found):
        raise UserError(f"--device {device}: names a device twice; name each once", BAD_USAGE)
    return found


def pick_dtype(dtype: str | None, device: torch.device) -> torch.dtype:
    """The dtype named, or bfloat16 on CUDA and float32 elsewhere."""
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: unknown; use one of {', '.join(DTYPES)}", BAD_USAGE)
    return DTYPES[dtype]
