"""When the device is short of memory.

    records = with_fewer_rows(subject, compute, log)

Rows are independent of each other, so those that do not fit into one forward are done in parts.
"""

from collections.abc import Callable
from typing import Any

from voicepatch.engine.memory import is_out_of_memory, release_memory
from voicepatch.engine.subject import Subject
from voicepatch.errors import UserError
from voicepatch.runs.log import Log


def with_fewer_rows(subject: Subject, compute: Callable[[], Any], log: Log) -> Any:
    """What `compute` gives; when memory runs out, once more with half the rows in a trace, and half the store.

    The smaller numbers stay for what comes later. Raises `UserError` when not even one row fits.
    """
    while True:
        try:
            return compute()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler: the error's traceback holds the tensors of the failed forward.
        _halve(subject, log)


def _halve(subject: Subject, log: Log) -> None:
    engine, store = subject.engine, subject.clips
    rows = engine.max_rows or engine.n_layers
    if rows == 1 or engine.name == "stepwise":
        raise UserError(
            "the device is out of memory with a single row; leave out very long clips, free the device, or pass "
            "--store-mb 0 and --dtype bfloat16"
        )
    engine.max_rows = rows // 2
    store.limit = min(store.limit, store.nbytes) // 2
    store.make_room()
    release_memory(engine.devices, unconditionally=True)
    log(f"out of memory: at most {engine.max_rows} rows a forward now (--max-rows {engine.max_rows} begins with that)")
