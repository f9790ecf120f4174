"""When the device is short of memory.

    records = with_fewer_rows(subject, compute, say)

Rows of a sweep are independent of each other, so a sweep that does not fit is done in parts.
"""

from collections.abc import Callable
from typing import Any

import torch

from errors import UserError
from interventions.core.subject import Subject

Say = Callable[[str], None]


def with_fewer_rows(subject: Subject, compute: Callable[[], Any], say: Say) -> Any:
    """What `compute` gives; when memory runs out, once more with half the rows in a trace, and half the store.

    The smaller numbers stay for what comes later. Raises `UserError` when not even one row fits.
    """
    while True:
        try:
            return compute()
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler: the error's traceback holds the tensors of the failed forward.
        _halve(subject, say)


def _halve(subject: Subject, say: Say) -> None:
    lm, store = subject.lm, subject.clips
    rows = lm.max_rows or lm.n_layers
    if rows == 1 or lm.engine == "stepwise":
        raise UserError(
            "the device is out of memory with a single row; leave out very long clips, free the device, or pass "
            "--store-mb 0 and --dtype bfloat16"
        )
    lm.max_rows = rows // 2
    store.limit = min(store.limit, store.nbytes) // 2
    store.make_room()
    release_memory(lm.llm.device, all_of_it=True)
    say(f"out of memory: a sweep now has at most {lm.max_rows} rows (--max-rows {lm.max_rows} begins with that)")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, on whatever device."""
    # On the processor it is a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def release_memory(device: torch.device, all_of_it: bool = False) -> None:
    """Give cached blocks back when the allocator holds far more than what is in use (SPEC section 4)."""
    if device.type != "cuda":
        return
    reserved, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    if all_of_it or reserved - used > max(used, 2 << 30):
        torch.cuda.empty_cache()
