"""Two real workers: the records of a run without them, and nothing lost or left behind whatever goes wrong."""

import importlib.util
import json
import os
import platform
import signal
from dataclasses import replace

import psutil
import pytest

from pairs import build_pairs
from tests.workers.ray_runs import (
    HOW,
    LONG,
    LONG_RUN,
    PLUGIN,
    SLOW_RECORDS,
    N,
    assert_nothing_left,
    assert_same,
    living_in,
    rows,
)
from voicepatch.errors import UserError
from voicepatch.runs.interrupt import stoppable
from voicepatch.store.directory import RunDir

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (requirements-ray.txt)"),
]


class TestTheSame:
    """A worker has one thread, as this process has."""

    def test_an_experiment_and_its_control(self, both, pool):
        run, calm, _ = both("patch", "random", kind="semantic")
        assert_same(run, calm)
        noted = json.loads((run / "patching_config.json").read_text(encoding="utf-8"))["experiments"]["semantic"]
        assert noted["workers"]["n"] == 2 and list(noted["workers"]["hosts"].values()) == [2]
        assert noted["workers"]["ray"] == pool.ray.__version__ and noted["threads"] == 1

    def test_a_plugin_with_a_swept_option(self, both):
        run, calm, _ = both("scaled", options={"factor": (0.25, 0.5)})
        assert_same(run, calm)

    def test_a_clip_that_cannot_be_read(self, both, demo_data, tmp_path):
        pairs = build_pairs(demo_data.clips, "prosody", N).pairs
        (tmp_path / "empty.wav").write_bytes(b"")
        clips = [
            replace(clip, path=tmp_path / "empty.wav") if clip.clip_id == pairs[6].a.clip_id else clip
            for clip in demo_data.clips
        ]
        data = replace(demo_data, clips=tuple(clips))
        run, calm, said = both("patch", data=data, on_bad_clip="skip")
        assert_same(run, calm)
        assert rows(run / "failed_pairs_prosody.jsonl") and any("clips cannot be read" in line for line in said)


def test_only_this_machine_can_connect(pool, folder):
    listening = {
        connection.laddr.ip
        for process in [*living_in(folder), psutil.Process()]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {ip.removeprefix("::ffff:") for ip in listening} <= {"127.0.0.1", "::1"}, listening


def test_the_log_names_the_machines_and_the_handler_of_signals_stays(pool, said):
    assert f"2 on {pool.workers[0].host}" in said[-1]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_an_experiment_that_goes_wrong_is_one_line_with_the_machines_name(both, pool, demo_data, tmp_path):
    pairs = build_pairs(demo_data.clips, "prosody", N).pairs
    with pytest.raises(UserError, match="out of order") as caught:
        both("wrong", options={"at": pairs[9].pair_id}, layers=(0,))
    assert str(caught.value).endswith(f"(on {pool.workers[0].host})") and PLUGIN.name in str(caught.value)
    records = rows(tmp_path / "workers" / "patching_records_wrong-prosody.jsonl")
    assert [row["pair_id"] for row in records] == [pair.pair_id for pair in pairs[:9]]


def test_a_mistake_in_an_option_is_the_same_line_as_without_workers(both):
    with pytest.raises(UserError, match="the model has 0-"):
        both("heads", options={"head": (99,)})


def test_sigterm_ends_after_the_current_pairs_and_the_run_goes_on_without_workers(pool, here, ran, calm, tmp_path):
    class Stopped(RunDir):
        def append(self, experiment, records):
            super().append(experiment, records)
            if len(rows(self.records_file(experiment))) == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    with stoppable(), pytest.raises(KeyboardInterrupt):
        ran(pool, "run", "slow", run_dir=Stopped, **LONG_RUN)
    assert 2 <= len(rows(tmp_path / "run" / SLOW_RECORDS)) < LONG
    assert_same(ran(here, "run", "slow", **LONG_RUN)[0], calm)


def test_a_worker_that_is_killed_is_replaced_and_the_records_are_the_same(pool, ran, calm, said):
    class Killing(RunDir):
        def append(self, experiment, records):
            super().append(experiment, records)
            if len(rows(self.records_file(experiment))) == 2:
                victims.append(pool.workers[0].pid)
                os.kill(victims[0], signal.SIGKILL)

    victims = []
    assert_same(ran(pool, "run", "slow", run_dir=Killing, **LONG_RUN)[0], calm)
    assert f"process {victims[0]} " in said[-1] and "computes its pairs again" in said[-1]
    assert pool.workers[0].pid != victims[0]


def test_pairs_that_kill_their_worker_twice_end_the_run_with_their_names(pool, ran, demo_data, tmp_path):
    pairs = build_pairs(demo_data.clips, "prosody", N).pairs
    with pytest.raises(UserError, match=r"a worker died 2 times while computing these \d+ pairs") as caught:
        ran(pool, "run", "deadly", options={"at": pairs[9].pair_id}, layers=(0,))
    assert caught.value.status == 1 and pairs[9].pair_id in str(caught.value)
    done = [row["pair_id"] for row in rows(tmp_path / "run" / "patching_records_deadly-prosody.jsonl")]
    assert done == [pair.pair_id for pair in pairs[:9]]


def test_when_they_are_no_longer_needed_nothing_is_left(stack, pool, folder):
    assert len(living_in(folder)) >= 4
    stack.close()
    assert_nothing_left(folder)


def test_where_the_model_cannot_be_loaded_nothing_is_left(folder):
    from voicepatch.workers.pool import worker_pool

    with (
        pytest.raises(UserError, match=f"no-model.*{platform.node()}"),
        worker_pool(str(folder / "no-model"), HOW, 1),
    ):
        pass
    assert_nothing_left(folder)
