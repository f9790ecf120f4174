"""Run a function of a checkpoint's files in a process of its own, with limits of time and memory.

    tokens, prompt = bounded(read, folder, turn)          # read(folder, turn)

A chat template is a program, and a tokenizer is nearly one: either can run without end, fill the memory or crash its
process. On Linux the process is a fork, which takes some milliseconds; elsewhere it is a new one, which takes seconds.
"""

import faulthandler
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from voicepatch.errors import UserError

SECONDS = 60  # the largest tokenizer of the families, that of Gemma 4, takes up to 10
BYTES = 2 * 2**30  # in addition to what the process has at its start


def bounded(function: Callable[..., Any], folder: Path, *args: Any) -> Any:
    """The result of `function(folder, *args)`; it travels between processes as a pickle.

    Raises the `UserError` that the function raises, and one that names the folder if the process takes more than
    `SECONDS` or `BYTES`, or ends without a result.
    """
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(theirs, BYTES, function, folder, args), daemon=True)
    # Python 3.12 warns of a fork while other threads run; the child waits for none of their locks.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        process.start()
    theirs.close()
    failure: BaseException | str
    try:
        failure, value = ours.recv() if ours.poll(SECONDS) else (f"takes more than {SECONDS} s", None)
    except (EOFError, OSError):
        failure, value = f"crashes, or takes more than {BYTES / 2**30:g} GiB of memory", None
    finally:
        process.kill()
        process.join()
        ours.close()
    if isinstance(failure, BaseException):
        raise failure
    if failure:
        raise UserError(f"{folder}: its tokenizer or chat template {failure}; use the checkpoint's own files")
    return value


def _run(connection: Connection, n_bytes: int, function: Callable[..., Any], folder: Path, args: tuple) -> None:
    # Ctrl-C reaches all processes of the group; the parent process acts on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.disable()  # it would write to the terminal
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads reserve memory that the limit counts
    with open(os.devnull, "wb") as null:  # a panic and a lack of memory write a report of their own
        os.dup2(null.fileno(), 2)
    with suppress(ImportError, OSError, ValueError):  # only Linux has all of these
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + n_bytes, hard))
    try:
        connection.send(("", function(folder, *args)))
    except MemoryError:
        connection.send((f"takes more than {n_bytes / 2**30:g} GiB of memory", None))
    except UserError as error:
        connection.send((error, None))
    except BaseException as error:
        connection.send((RuntimeError(f"{type(error).__name__}: {error}"), None))
