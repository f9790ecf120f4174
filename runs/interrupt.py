"""What ends a run from outside: Ctrl-C, a kill, a terminal that closes.

    with stoppable():                       # each of them is a KeyboardInterrupt
        with after_this_pair() as pause:    # the first waits for the pair that is being computed
            for records in rows:
                run.append(name, records)
                pause()

A signal that is ignored on purpose, as under nohup, stays ignored. While Python still imports the program,
`quiet_from_the_start` stands in for these.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

INTERRUPTED = 130
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows knows no SIGHUP
PROMISE = b"\nstopping after this pair; once more stops at once. The same command goes on from there\n"


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


@contextmanager
def after_this_pair() -> Iterator[Callable[[], None]]:
    """Gives a function to call after each pair: it raises `KeyboardInterrupt` where a signal has come meanwhile.

    A second signal raises it at once.
    """
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if came:
            _stop(number, frame)
        came.append(number)
        # Not by print, which a handler must not enter twice; and the terminal may be gone.
        with suppress(OSError):
            os.write(2, PROMISE)

    def pause() -> None:
        if came:
            raise KeyboardInterrupt

    with _handling(remember):
        yield pause


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
