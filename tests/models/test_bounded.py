"""What a foreign file makes a process do ends in one line: without end, without memory, or without a process."""

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.models.bounded import bounded

FOLDER = Path("checkpoint")


def give(folder, value):
    return value, os.getpid()


def refuse(folder):
    raise UserError("b.json: is wrong; mend it", BAD_USAGE)


def fail(folder):
    raise LookupError("a bug")


def spin(folder):
    while True:
        pass


def sleep(folder):
    time.sleep(1000)


def fill(folder):
    return len([bytearray(2**28) for _ in range(16)])


def fall(folder, number):
    os.write(2, b"a panic's own report\n")
    os.kill(os.getpid(), number)


def overrun(folder):
    ctypes.string_at(0)


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    yield
    assert multiprocessing.active_children() == []


def test_the_value_comes_from_another_process():
    value, process = bounded(give, FOLDER, {"a": [1, None]})
    assert value == {"a": [1, None]} and process != os.getpid()


def test_an_error_of_the_user_keeps_its_line_and_status(refused):
    with refused("b.json: is wrong; mend it", status=BAD_USAGE):
        bounded(refuse, FOLDER)


def test_any_other_error_is_a_bug_and_named():
    with pytest.raises(RuntimeError, match="LookupError: a bug"):
        bounded(fail, FOLDER)


@pytest.mark.parametrize("hang", [spin, sleep])
def test_what_does_not_end_is_ended(monkeypatch, refused, hang):
    monkeypatch.setattr("voicepatch.models.bounded.SECONDS", 1)
    with refused("checkpoint", "takes more than 1 s"):
        bounded(hang, FOLDER)


def test_what_fills_the_memory_is_ended(refused):
    with refused("checkpoint", "takes more than 2 GiB of memory"):
        bounded(fill, FOLDER)


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGKILL])
def test_a_process_that_is_killed_is_named_with_the_file(refused, capfd, number):
    with refused("checkpoint", "crashes"):
        bounded(fall, FOLDER, number)
    assert capfd.readouterr().err == ""


def test_a_crash_is_named_with_the_file(refused):
    with refused("checkpoint", "crashes"):
        bounded(overrun, FOLDER)


@pytest.fixture
def interrupts():
    """Ctrl-C is a `KeyboardInterrupt`, which what runs these tests may ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_stop_meanwhile_ends_it_too(interrupts):
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        bounded(sleep, FOLDER)
    assert time.monotonic() - start < 10


def test_where_there_is_no_fork_a_new_process_gives_the_same(monkeypatch):
    monkeypatch.setattr("voicepatch.models.bounded.sys.platform", "darwin")
    value, process = bounded(give, FOLDER, (1, 2))
    assert value == (1, 2) and process != os.getpid()
