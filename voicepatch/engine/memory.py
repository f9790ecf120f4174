"""Free memory of a device, and release of what is not in use."""

from collections.abc import Iterable

import psutil
import torch


def free_memory(device: torch.device) -> int:
    """Bytes free on the device, or in the machine where the device is the processor."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, on whatever device."""
    # On the processor it is a plain RuntimeError, or Python's own error.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def release_memory(devices: Iterable[torch.device], unconditionally: bool = False) -> None:
    """Give cached blocks back when an allocator holds far more than what is in use (SPEC section 4)."""
    for device in devices:
        if device.type != "cuda":
            return
        reserved, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
        if unconditionally or reserved - used > max(used, 2 << 30):
            torch.cuda.empty_cache()  # of all devices
            return
