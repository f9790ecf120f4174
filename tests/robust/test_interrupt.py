"""A run that is stopped, however it is, goes on with the same command and ends as if nothing had been."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.robust.victim import ENVIRONMENT, ROOT, Victims

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the program is stopped in forked processes")

COMMAND = ("patch", "--kind", "prosody", "--max-pairs", "6", "--layers", "0-2")
LONG = ("patch", "--kind", "prosody", "--max-pairs", "24", "--layers", "0-2")
RECORDS = "patching_records_prosody.jsonl"
KILLS = 20
PATIENCE = 60  # seconds, on a busy machine


@pytest.fixture(scope="module")
def victims():
    with Victims() as victims:
        yield victims


@pytest.fixture(scope="module")
def calm(victims, tmp_path_factory):
    """A run of COMMAND that nothing disturbed, without figures."""
    out = tmp_path_factory.mktemp("calm") / "run"
    assert victims.run(*COMMAND, out=out) == 0
    return out


def files(run):
    return {path.name: path.read_bytes() for path in run.iterdir()}


def assert_same(run, calm):
    """Field by field where there is a difference to show, and byte by byte."""
    mine, other = (
        [json.loads(line) for line in (path / RECORDS).read_text(encoding="utf-8").splitlines()] for path in (run, calm)
    )
    assert mine == other
    assert files(run) == files(calm)


def whole_pairs(run):
    """How many pairs are there, none of them in part."""
    lines = (run / RECORDS).read_bytes().split(b"\n")
    assert lines.pop() == b"" and len(lines) % 3 == 0
    return len(lines) // 3


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


def test_killed_at_any_moment_it_goes_on_and_ends_the_same(victims, calm, tmp_path):
    draw, kills, runs = random.Random(7), 0, 0
    changes = int(calm.with_name("run.changes").read_text(encoding="utf-8"))
    assert changes > 50
    while kills < KILLS:
        out, runs = tmp_path / f"run{runs}", runs + 1
        while (status := victims.run(*COMMAND, out=out, crash_at=draw.randint(1, changes))) != 0:
            assert status == -signal.SIGKILL
            kills += 1
        assert_same(out, calm)


def test_killed_with_its_figures_half_drawn_it_draws_them_again(victims, calm, tmp_path):
    drawn, out, draw = tmp_path / "calm", tmp_path / "run", random.Random(11)
    for run in (drawn, out):
        shutil.copytree(calm, run)
    assert victims.run(*COMMAND, out=drawn, figures=True) == 0
    for sign in ("patching_metrics_prosody.csv", "recovery_curve_prosody.svg"):
        pid = victims.start(*COMMAND, out=out, figures=True)
        until(lambda sign=sign: (out / sign).exists())
        time.sleep(draw.uniform(0, 0.5))
        os.kill(pid, signal.SIGKILL)
        assert victims.wait(pid) == -signal.SIGKILL
    assert victims.run(*COMMAND, out=out, figures=True) == 0
    assert files(out) == files(drawn)


def test_the_program_itself_is_killed_and_goes_on(victims, calm, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "cli.py", *COMMAND, "--out", str(out), "--device", "cpu"]
    silent = {"cwd": ROOT, "env": ENVIRONMENT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **silent)
    until(has_records(out))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not finished(out)
    assert victims.run(*COMMAND, out=out) == 0
    assert_same(out, calm)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_asked_to_stop_it_ends_the_pair_and_says_how_to_go_on(victims, tmp_path, name):
    out, said = tmp_path / "run", tmp_path / "said"
    pid = victims.start(*LONG, out=out, output=said)
    until(has_records(out))
    os.kill(pid, getattr(signal, name))
    assert victims.wait(pid) == 130
    text = said.read_text(encoding="utf-8")
    assert "stopping after this pair" in text and "interrupted: the same command goes on" in text.splitlines()[-1]
    assert 0 < whole_pairs(out) < 24 and not finished(out)
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


PAIR = """
import signal, sys, time
from runs.interrupt import after_this_pair, stoppable
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


@pytest.mark.parametrize(("kind", "status"), [("pipe", 130), ("terminal", 0)])
def test_an_output_that_closes_loses_nothing(victims, tmp_path, kind, status):
    """A pipe without a reader (EPIPE) stops the run; without its terminal (EIO) the progress bar falls silent."""
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
    assert victims.wait(pid) == status
    assert finished(out) == (status == 0)
    assert 0 < whole_pairs(out) <= 24
    assert victims.run(*LONG, out=out) == 0
    assert whole_pairs(out) == 24 and finished(out)


@pytest.mark.parametrize(("limit", "figures"), [(9_000, False), (100_000, True)], ids=["records", "figures"])
def test_a_full_disk_is_one_line_and_nothing_looks_finished_that_is_not(victims, calm, tmp_path, limit, figures):
    out, said = tmp_path / "run", tmp_path / "said"
    assert victims.run(*COMMAND, out=out, output=said, limit=limit, figures=figures) == 1
    lines = said.read_text(encoding="utf-8").splitlines()
    assert "cannot be written (File too large)" in lines[-1] and "Traceback" not in "\n".join(lines)
    assert not list(out.glob("*.partial")) and not list(out.glob("*.png"))
    assert finished(out) == figures  # all records are there when figures are drawn
    assert victims.run(*COMMAND, out=out) == 0
    left = {name: content for name, content in files(out).items() if name in files(calm)}
    assert left == files(calm)
