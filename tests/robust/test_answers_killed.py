"""Answers, for the command `answers` or for `--only answered`: killed at whatever moment, it ends the same."""

import os
import random
import signal

import pytest

from tests.few_clips import few_clips
from tests.robust.victim import COMMAND, assert_same, files

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the program is killed in forked processes")

KILLS = 6


def test_a_run_of_answered_pairs_that_is_killed_ends_the_same(victims, tmp_path):
    command = (*COMMAND, "--only", "answered", "--max-pairs", "2")
    calm, out, draw, kills = tmp_path / "calm", tmp_path / "run", random.Random(3), 0
    assert victims.run(*command, out=calm) == 0
    changes = int(calm.with_name("calm.changes").read_text(encoding="utf-8"))
    while kills < 4:
        while (status := victims.run(*command, out=out, crash_at=draw.randint(1, changes))) != 0:
            assert status == -signal.SIGKILL
            kills += 1
        assert_same(out, calm)
        out = tmp_path / f"run{kills}"


def test_killed_at_any_moment_it_computes_the_rest_and_ends_the_same(victims, tmp_path):
    command = ("answers", "--data", few_clips(tmp_path, n_texts=2))
    calm, out, draw, kills = tmp_path / "calm", tmp_path / "run", random.Random(5), 0
    assert victims.run(*command, out=calm) == 0
    changes = int(calm.with_name("calm.changes").read_text(encoding="utf-8"))
    while kills < KILLS:
        known = 0
        while (status := victims.run(*command, out=out, crash_at=draw.randint(1, changes))) != 0:
            assert status == -signal.SIGKILL
            kills += 1
            stored = out / "answers.jsonl"
            now = stored.read_bytes().count(b"\n") if stored.exists() else 0
            assert now >= known  # what was computed is not lost
            known = now
        assert files(out) == files(calm)
        out = tmp_path / f"run{kills}"
