"""A function of a checkpoint's files in a process of its own, with limits of time and memory.

    tokens, prompt = bounded(read, folder, turn)          # read(at, folder, turn)

A chat template is a program and a tokenizer nearly one: either can run for ever, fill the memory or end the process
that reads it. On Linux the process is a fork, which costs some milliseconds; elsewhere it is a new one, some seconds.
"""

import faulthandler
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from voicepatch.errors import UserError

SECONDS = 20  # of the processor; the largest tokenizer of the families takes about 2
WAIT = 6  # times as long by the clock: the machine may be busy, the disk slow
BYTES = 2 * 2**30  # beyond what the process has at its start

At = Callable[[Path], None]


def bounded(function: Callable[..., Any], *args: Any) -> Any:
    """What `function(at, *args)` gives, or the `UserError` that it raises; both travel between processes as pickles.

    The function calls `at(path)` before it reads or runs a file. Raises `UserError` with the last of these paths where
    the process takes more than `SECONDS` of processor time, more than `BYTES` of memory, or ends without a result.
    """
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(theirs, (SECONDS, BYTES), function, args), daemon=True)
    try:
        # Python 3.12 warns of a fork while other threads run; the child waits for none of their locks.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            process.start()
    except OSError as error:
        raise UserError(f"no process can be started to read the tokenizer in ({error.strerror}); free some") from None
    theirs.close()
    place, result, deadline = Path(), None, time.monotonic() + WAIT * SECONDS
    try:
        while result is None and ours.poll(max(0.0, deadline - time.monotonic())):
            message = ours.recv()
            place, result = (message, None) if isinstance(message, Path) else (place, message)
        if result is None:
            raise _too_slow(place)
    except (EOFError, OSError):  # it ended, before a message or in the midst of one
        process.join()
        raise _ended(place, process.exitcode or 0) from None
    finally:
        process.kill()
        process.join()
        ours.close()
    failure, value = result
    if isinstance(failure, MemoryError):
        raise _too_large(place)
    if failure is not None:
        raise failure
    return value


def _run(connection: Connection, limits: tuple[int, int], function: Callable[..., Any], args: tuple) -> None:
    # Ctrl-C reaches the whole group of processes; the one that waits for this one acts on it.
    for name, handler in (("SIGINT", signal.SIG_IGN), ("SIGTERM", signal.SIG_DFL), ("SIGHUP", signal.SIG_DFL)):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)
    faulthandler.disable()  # where it is on, it would write a page on the terminal
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads reserve memory that the limit counts
    with open(os.devnull, "wb") as null:  # a panic and a lack of memory write a report of their own
        os.dup2(null.fileno(), 2)
    _limit(*limits)
    result: tuple[BaseException | None, Any]
    try:
        result = (None, function(connection.send, *args))
    except (UserError, MemoryError) as error:
        result = (error, None)
    except BaseException as error:
        result = (RuntimeError(f"{type(error).__name__}: {error}"), None)
    connection.send(result)


def _limit(seconds: int, n_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: the time by the clock is the one limit
        return
    in_use = 0
    with suppress(OSError, ValueError):
        in_use = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    limits = {"RLIMIT_CPU": seconds, "RLIMIT_CORE": 0} | ({"RLIMIT_AS": in_use + n_bytes} if in_use else {})
    for name, value in limits.items():
        kind = getattr(resource, name)
        soft, hard = resource.getrlimit(kind)
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (value if soft == resource.RLIM_INFINITY else min(value, soft), hard))


def _too_slow(place: Path) -> UserError:
    return UserError(f"{place}: takes more than {SECONDS} s to be read or run; use the checkpoint's own file")


def _too_large(place: Path) -> UserError:
    return UserError(f"{place}: takes more than {BYTES / 2**30:g} GiB of memory; use the checkpoint's own file")


def _ended(place: Path, status: int) -> UserError:
    if -status == getattr(signal, "SIGXCPU", None):
        return _too_slow(place)
    return UserError(
        f"{place}: ends the process that reads it (status {status}), for a lack of memory (more than "
        f"{BYTES / 2**30:g} GiB) or a fault of the library that reads it; use the checkpoint's own file"
    )
