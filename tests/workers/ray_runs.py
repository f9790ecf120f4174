"""Runs on workers that Ray starts: their settings, their processes, and the comparison of their files."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psutil

from voicepatch.paths import ROOT

PLUGIN = Path(__file__).with_name("plugin.py")
HOW = {"device": "cpu", "dtype": None, "engine": "auto", "max_rows": None, "store_mb": None}
N, LONG = 12, 40  # pairs; of the long list, some are not begun when the first are done, slowly
LONG_RUN = {"max_pairs": LONG, "layers": (0,)}
PAUSE = {"TEST_PAUSE": "0.15"}  # seconds a pair of the experiment `slow`, in workers
PATIENCE = 180  # seconds, on a busy machine
# What runs these tests may ignore SIGINT.
COMMAND = """
import signal, cli
signal.signal(signal.SIGINT, signal.default_int_handler)
cli.cli()
"""
ONE_LAYER = ("--plugin", PLUGIN, "--layers", "0", "--device", "cpu", "--no-figures")
SLOW = ("slow", "--max-pairs", LONG, *ONE_LAYER)
SLOW_RECORDS = "patching_records_slow-prosody.jsonl"


def living_in(folder):
    """The processes that have a file of this folder open, or in their command: those of a Ray with its files there.

    Their titles are written over their environments, by which they could be told otherwise.
    """
    found = []
    for process in psutil.process_iter():
        try:
            files = [os.readlink(fd) for fd in Path(f"/proc/{process.pid}/fd").iterdir()]
            if any(str(folder) in text for text in (*files, *process.cmdline())) and process.pid != os.getpid():
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def workers_in(folder):
    return [process for process in living_in(folder) if "Worker" in process.name()]


def until(true, what="it", seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.05)
    return found


def assert_nothing_left(folder, seconds=30):
    until(lambda: not living_in(folder), f"the end of {living_in(folder)}", seconds)
    assert not list(folder.glob("ray-*")) and not list(folder.glob("code-*"))


def rows(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def assert_same(run, calm):
    """Every file byte by byte, but for the note of who computed it."""
    assert {path.name for path in run.iterdir()} == {path.name for path in calm.iterdir()}
    for path in calm.iterdir():
        mine, other = (run / path.name).read_bytes(), path.read_bytes()
        if path.name == "patching_config.json":
            mine, other = json.loads(mine), json.loads(other)
            for settings in mine["experiments"].values():
                settings.pop("workers", None)
        assert mine == other, path.name


# Some workers for all tests of one process.


@contextmanager
def short_folder():
    """A folder for temporary files: the paths of sockets may not be longer."""
    folder = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))
    yield folder
    for process in living_in(folder):
        process.kill()
    shutil.rmtree(folder)


# Commands in processes of their own.


class Command:
    """One that has its temporary files in `folder`."""

    def __init__(self, *words, folder, out, said, **environment):
        self.folder, self.said = folder, said
        environment = {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder), "PYTHONPATH": str(ROOT), **environment}
        environment = os.environ | environment
        words = [sys.executable, "-c", COMMAND, *map(str, words), "--out", str(out)]
        with said.open("w", encoding="utf-8") as file:
            self.process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=file, stderr=file)

    def wait(self):
        status = self.process.wait(PATIENCE)
        return status, self.said.read_text(encoding="utf-8").strip().splitlines()
