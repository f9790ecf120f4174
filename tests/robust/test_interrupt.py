"""A run that is stopped, however it is, goes on with the same command and ends as if nothing had been."""

import os
import signal
import subprocess
import sys

import pytest

from tests.commands import NO_FIGURES
from tests.robust.victim import (
    COMMAND,
    PATIENCE,
    RECORDS,
    ROOT,
    WITH_FIGURES,
    assert_same,
    files,
    finished,
    has_records,
    until,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the program is stopped in forked processes")

MOST_PAIRS = 40
LONG = ("patch", "--no-need", "--kind", "prosody", "--max-pairs", str(MOST_PAIRS), "--layers", "0-2", NO_FIGURES)


def whole_pairs(run):
    """How many pairs are there, none of them in part."""
    lines = (run / RECORDS).read_bytes().split(b"\n")
    assert lines.pop() == b"" and len(lines) % 3 == 0
    return len(lines) // 3


def test_asked_to_stop_among_the_imports_it_ends_in_a_line():
    code = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs these tests may ignore it
class Interrupting:
    def find_spec(name, *_):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting)
runpy.run_path("cli.py", run_name="__main__")
"""
    ended = subprocess.run([sys.executable, "-c", code, "list"], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "\ninterrupted\n")


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "2>&-", ">&-", "<&-"])
def test_with_its_standard_streams_closed_nothing_of_what_is_said_goes_into_a_file(tmp_path, closed):
    """The first file that is opened would have the number of a closed stream."""
    code = """
import os, runpy, sys
class Saying:
    def find_spec(name, *_):
        if name == "click":
            file = os.open(sys.argv[-1], os.O_WRONLY | os.O_CREAT)
            os.write(1, b"said")
            os.write(2, b"said")
            print("said", flush=True)
            print("said", file=sys.stderr, flush=True)
            assert sys.stdin is not None
            os._exit(file)
sys.meta_path.insert(0, Saying)
runpy.run_path("cli.py", run_name="__main__")
"""
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    ended = subprocess.run([*shell, sys.executable, "-c", code, "list", tmp_path / "records"], cwd=ROOT)
    assert ended.returncode > 2
    assert (tmp_path / "records").read_bytes() == b""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_asked_to_stop_it_ends_the_pair_and_says_how_to_go_on(victims, tmp_path, name):
    out, said = tmp_path / "run", tmp_path / "said"
    pid = victims.start(*LONG, out=out, output=said)
    until(has_records(out))
    os.kill(pid, getattr(signal, name))
    assert victims.wait(pid) == 130
    text = said.read_text(encoding="utf-8")
    assert "stopping after this pair" in text and "interrupted: the same command goes on" in text.splitlines()[-1]
    assert 0 < whole_pairs(out) < MOST_PAIRS and not finished(out)
    assert not list(out.glob("*.partial")) and not (out / "in_use.json").exists()


def test_after_a_stop_the_same_command_goes_on_where_it_was(victims, calm, tmp_path):
    out = tmp_path / "run"
    pid = victims.start(*COMMAND, out=out)
    until(has_records(out, 6))  # two pairs, of which the first is known to be whole
    os.kill(pid, signal.SIGINT)
    assert victims.wait(pid) == 130
    before = (out / RECORDS).stat()
    assert victims.run(*COMMAND, out=out) == 0
    assert before.st_ino == (out / RECORDS).stat().st_ino  # what was there was kept, not written again
    assert_same(out, calm)


def test_asked_to_stop_among_the_imports_of_a_command_it_ends_when_they_are_done(tmp_path):
    """Torch goes on without NumPy where a signal ends NumPy's import, which then cannot be imported any more."""
    code = """
import os, signal, sys
import cli
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupting:
    def find_spec(name, *_):
        if name == sys.argv[-1] and not sent:
            sent.append(name)
            os.kill(os.getpid(), signal.SIGINT)
sent = []
sys.meta_path.insert(0, Interrupting)
cli.cli(["patch", "--no-need", "--kind", "prosody", "--out", sys.argv[1]])
"""
    for module in ("numpy.linalg", "torch.nn"):
        command = [sys.executable, "-c", code, str(tmp_path / module), module]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 130, ended.stderr
        said = [
            "stopping when the libraries are loaded; once more stops at once",
            "interrupted: the same command goes on",
        ]
        assert all(line in ended.stderr for line in said) and "cannot be imported" not in ended.stderr


PAIR = """
import signal, sys, time
from voicepatch.runs.interrupt import after_this_pair, stoppable
signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv[1] == "ignored" else signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run under nohup
try:
    with stoppable(), after_this_pair():
        print("in a pair", flush=True)
        time.sleep(float(sys.argv[2]))
except KeyboardInterrupt:
    sys.exit("at once")
print("pair done")
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_pair_outlives_one_signal_and_not_a_second(name):
    process = subprocess.Popen(
        [sys.executable, "-c", PAIR, "heeded", "60"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == "in a pair\n"
    process.send_signal(getattr(signal, name))
    assert "stopping after this pair" in [process.stderr.readline(), process.stderr.readline()][1]
    assert process.poll() is None
    process.send_signal(getattr(signal, name))
    assert process.communicate(timeout=PATIENCE) == ("", "at once\n")


def test_a_signal_that_is_ignored_on_purpose_stays_ignored():
    command = [sys.executable, "-c", PAIR, "ignored", "0.3"]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == "in a pair\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE) == ("pair done\n", "")


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_an_output_that_closes_loses_nothing(victims, tmp_path, kind):
    """A pipe without a reader (EPIPE) stops the run; without its terminal (EIO) all pairs are measured first."""
    out = tmp_path / "run"
    if kind == "pipe":
        output = tmp_path / "fifo"
        os.mkfifo(output)
        reader = os.open(output, os.O_RDONLY | os.O_NONBLOCK)
    else:
        reader, terminal = os.openpty()
        output = os.ttyname(terminal)
    pid = victims.start(*LONG, out=out, output=output)
    until(has_records(out))
    if kind == "terminal":
        os.close(terminal)
    os.close(reader)
    assert victims.wait(pid) == 130
    assert finished(out) == (kind == "terminal")
    assert 0 < whole_pairs(out) <= MOST_PAIRS
    assert victims.run(*LONG, out=out) == 0
    assert whole_pairs(out) == MOST_PAIRS and finished(out)


@pytest.mark.parametrize(("limit", "command"), [(9_000, COMMAND), (100_000, WITH_FIGURES)], ids=["records", "figures"])
def test_a_full_disk_is_one_line_and_nothing_looks_finished_that_is_not(victims, calm, tmp_path, limit, command):
    out, said = tmp_path / "run", tmp_path / "said"
    assert victims.run(*command, out=out, output=said, limit=limit) == 1
    lines = said.read_text(encoding="utf-8").splitlines()
    assert "cannot be written (File too large)" in lines[-1] and "Traceback" not in "\n".join(lines)
    assert not list(out.glob("*.partial")) and not list(out.glob("*.png"))
    assert finished(out) == (command == WITH_FIGURES)  # all records are there when figures are drawn
    assert victims.run(*COMMAND, out=out) == 0
    left = {name: content for name, content in files(out).items() if name in files(calm)}
    assert left == files(calm)
