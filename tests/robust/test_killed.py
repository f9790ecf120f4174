"""A run that is killed, at whatever moment, goes on with the same command and ends as if nothing had been."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.commands import MODEL
from tests.robust.victim import (
    COMMAND,
    ENVIRONMENT,
    ROOT,
    WITH_FIGURES,
    assert_same,
    files,
    finished,
    has_records,
    until,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the program is killed in forked processes")

KILLS = 12


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
    assert victims.run(*WITH_FIGURES, out=drawn) == 0
    for sign in ("patching_metrics_prosody.csv", "recovery_curve_prosody.svg"):
        pid = victims.start(*WITH_FIGURES, out=out)
        until(lambda sign=sign: (out / sign).exists())
        time.sleep(draw.uniform(0, 0.5))
        os.kill(pid, signal.SIGKILL)
        assert victims.wait(pid) == -signal.SIGKILL
    assert victims.run(*WITH_FIGURES, out=out) == 0
    assert files(out) == files(drawn)


def test_the_program_itself_is_killed_and_goes_on(victims, calm, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "cli.py", *COMMAND, *MODEL, "--out", str(out)]
    silent = {"cwd": ROOT, "env": ENVIRONMENT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **silent)
    until(has_records(out))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not finished(out)
    assert victims.run(*COMMAND, out=out) == 0
    assert_same(out, calm)
