"""What ends a run from outside: Ctrl-C, a kill, a terminal that closes.

    with stoppable():                       # each of them is a KeyboardInterrupt
        with after_this_pair() as stop_requested:    # the first waits for the pair that is being computed
            for records in rows:
                run.append(name, records)
                if stop_requested():
                    break

A signal that is ignored on purpose, as under nohup, stays ignored. While Python still imports the program,
`quiet_from_the_start` stands in for these.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Any

INTERRUPTED = 130
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows knows no SIGHUP
IMPORTING = b"\nstopping when the libraries are loaded; once more stops at once\n"
PROMISE = b"\nstopping after this pair; once more stops at once. The same command goes on from there\n"


def open_standard_streams() -> None:
    """Open the null device for each of the descriptors 0, 1 and 2 that is closed.

    The next file would get that number, and what is written to a standard stream would go into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            stream = open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def quiet_from_the_start() -> None:
    """From now on Ctrl-C ends the process with a line, in the midst of its imports too, where nothing was begun."""

    def end(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):
            os.write(2, b"\ninterrupted\n")
        os._exit(INTERRUPTED)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)


@contextmanager
def stoppable() -> Iterator[None]:
    """Within it, SIGTERM and SIGHUP raise `KeyboardInterrupt`, as Ctrl-C does."""
    with _handling(_stop):
        yield


def after_this_pair() -> AbstractContextManager[Callable[[], bool]]:
    """`until_done` for the pairs of an experiment, each of which is computed to its end."""
    return until_done(PROMISE)


def after_this_clip() -> AbstractContextManager[Callable[[], bool]]:
    """`until_done` for answers to clips."""
    return until_done(PROMISE.replace(b"pair", b"clip"))


@contextmanager
def until_done(promise: bytes) -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether a signal has come meanwhile; the first one is answered with `promise`.

    Where one has, the end raises `KeyboardInterrupt`; a second signal raises it at once.
    """
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if came:
            _stop(number, frame)
        came.append(number)
        # Not by print, which a handler must not enter twice; and the terminal may be gone.
        with suppress(OSError):
            os.write(2, promise)

    with _handling(remember):
        yield lambda: bool(came)
        if came:
            raise KeyboardInterrupt


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # signals reach no other one
        numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        before = {n: old for n in numbers if (old := signal.getsignal(n)) not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
