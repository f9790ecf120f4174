"""Commands of the program in processes that may be killed, which are forked so that each starts at once: what they
import is there already. They run on the small model.

with Victims() as victims:
    pid = victims.start("patch", "--no-need", "--kind", "prosody", "--out", out)
    os.kill(pid, signal.SIGINT)
    assert victims.wait(pid) == 130
"""

import importlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from tests.commands import MODEL, NO_FIGURES

ROOT = Path(__file__).resolve().parents[2]
WITH_FIGURES = ("patch", "--no-need", "--kind", "prosody", "--max-pairs", "6", "--layers", "0-2")
COMMAND = (*WITH_FIGURES, NO_FIGURES)
RECORDS = "patching_records_prosody.jsonl"
PATIENCE = 60  # seconds, on a busy machine
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


class Victims:
    """The process that forks them. `start` takes the words of a command, and:

    output: path of a file, a FIFO or a terminal for what it says; crash_at: it is killed at its so manieth change of
    the disk, in the midst of it; limit: bytes that a file may have, as if the disk were full.
    """

    def __enter__(self):
        command = [sys.executable, "-m", "tests.robust.victim"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *error):
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def start(self, *words, out, output=os.devnull, crash_at=None, limit=None):
        words = [*map(str, words), *MODEL, "--out", str(out)]
        job = {"words": words, "out": str(out), "output": str(output)}
        return self._ask(job | {"crash_at": crash_at, "limit": limit})

    def wait(self, pid):
        """The exit status, or minus the signal that ended it."""
        return self._ask({"wait": pid})

    def run(self, *words, **how):
        return self.wait(self.start(*words, **how))

    def _ask(self, job):
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def files(run):
    return {path.name: path.read_bytes() for path in run.iterdir()}


def assert_same(run, calm):
    """Field by field where there is a difference to show, and byte by byte."""
    mine, other = (
        [json.loads(line) for line in (path / RECORDS).read_text(encoding="utf-8").splitlines()] for path in (run, calm)
    )
    assert mine == other
    assert files(run) == files(calm)


def until(true, pid=None):
    for _ in range(PATIENCE * 200):
        if true():
            return
        time.sleep(0.005)
    raise AssertionError("it did not come")


def has_records(out, n=1):
    return lambda: (out / RECORDS).exists() and (out / RECORDS).read_bytes().count(b"\n") >= n


def finished(out):
    config = json.loads((out / "patching_config.json").read_text(encoding="utf-8"))
    return config["experiments"]["prosody"]["finished"]


def serve():
    from tqdm import tqdm

    import cli
    import voicepatch.report.summary  # noqa: F401

    tqdm.set_lock(threading.RLock())  # its own is shared by all forked processes: a killed one may hold it for ever
    for name in imported_by_a_run(cli):
        with suppress(ImportError):  # of modules that are made by others, and of none that a run needs
            importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            answer = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                child(cli, job)
        print(answer, flush=True)


def imported_by_a_run(cli):
    """The names of all modules that a run has imported, by a process of its own: torch's threads outlive no fork."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr), redirect_stderr(io.StringIO()):
            cli.cli.main([*COMMAND, *MODEL, "--out", f"{folder}/run"], standalone_mode=False)
        os.write(writer, "\n".join(sys.modules).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as names:
        return names.read().splitlines()


def child(cli, job):
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs these tests may ignore it
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_NOCTTY, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if job["limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
    crash = Crash(job["out"], job["crash_at"])
    try:
        cli.cli.main(job["words"])
    except SystemExit as ended:
        sys.stdout.flush()
        crash.tell()
        os._exit(ended.code or 0)
    finally:
        os._exit(70)


class Crash:
    """Counts the changes that a process makes in `out`, and kills it at one of them."""

    def __init__(self, out, at):
        self.out, self.at, self.count, self.sizes = os.path.realpath(out), at, 0, {}
        self.draw, self.fsync = random.Random(at), os.fsync
        os.fsync = self.synchronise
        sys.addaudithook(self.audit)

    def tell(self):
        if os.path.isdir(os.path.dirname(self.out)):
            Path(f"{self.out}.changes").write_text(str(self.count), encoding="utf-8", newline="\n")

    def audit(self, event, args):
        """Before a file is made, renamed or removed; one that would be written anew is emptied before the kill."""
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if isinstance(args[0], (str, os.PathLike)) and os.path.realpath(args[0]).startswith(self.out):
            if event == "open" and args[2] & os.O_TRUNC and self.count + 1 == self.at and os.path.exists(args[0]):
                os.truncate(args[0], 0)
            self.tick()

    def synchronise(self, file):
        """A write that was torn: the disk has some of what came since the last time, and no more."""
        size = os.fstat(file).st_size
        before = self.sizes.get(os.fstat(file).st_ino, 0)
        self.sizes[os.fstat(file).st_ino] = size
        if self.count + 1 == self.at:
            os.ftruncate(file, self.draw.randint(min(before, size), size))
        self.tick()
        self.fsync(file)

    def tick(self):
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serve()
