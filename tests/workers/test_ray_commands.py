"""A command with real workers that is interrupted, killed or loses a machine leaves nothing and can be continued."""

import importlib.util
import platform
import re
import signal

import pytest

from tests.workers.ray_runs import (
    LONG,
    LONG_RUN,
    PAUSE,
    SLOW,
    SLOW_RECORDS,
    assert_nothing_left,
    assert_same,
    living_in,
    rows,
    until,
    workers_in,
)

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (requirements-ray.txt)"),
]


def test_ctrl_c_ends_what_is_in_flight_and_leaves_nothing(command, tmp_path):
    records = tmp_path / "run" / SLOW_RECORDS
    running = command(*SLOW, "--workers", 2, **PAUSE)
    until(lambda: len(rows(records)), "a record")
    running.process.send_signal(signal.SIGINT)
    status, lines = running.wait()
    assert status == 130 and "interrupted: the same command goes on" in lines[-1], lines
    assert "Traceback" not in "\n".join(lines) and 0 < len(rows(records)) < LONG
    assert not (tmp_path / "run" / "in_use.json").exists()
    assert_nothing_left(running.folder)


@pytest.mark.parametrize(
    ("name", "moment"),
    [("SIGINT", "begins"), ("SIGINT", "starts its processes"), ("SIGINT", "loads the model")]
    + [("SIGTERM", "begins"), ("SIGTERM", "loads the model")],  # between the two, Ray's own handler can lose it
)
def test_a_signal_while_ray_starts_ends_with_130_and_leaves_nothing(command, name, moment):
    """Else Ray would end the process with signal 6."""
    running = command(*SLOW, "--workers", 2, **PAUSE)
    reached = {
        "begins": lambda: list(running.folder.glob("ray-*")),
        "starts its processes": lambda: living_in(running.folder)[1:],
        "loads the model": lambda: [each for each in living_in(running.folder) if each.name().startswith("ray::")],
    }
    until(reached[moment], moment)
    running.process.send_signal(getattr(signal, name))
    status, lines = running.wait()
    assert status == 130 and "interrupted: the same command goes on" in lines[-1], lines
    assert "Traceback" not in "\n".join(lines)
    assert_nothing_left(running.folder)


def test_a_killed_command_leaves_no_worker_and_its_run_goes_on_without_them(command, here, ran, calm, tmp_path):
    records = tmp_path / "run" / SLOW_RECORDS
    running = command(*SLOW, "--workers", 2, **PAUSE)
    until(lambda: len(rows(records)), "a record")
    running.process.kill()
    running.process.wait()
    assert 0 < len(rows(records)) < LONG
    assert_same(ran(here, "run", "slow", **LONG_RUN)[0], calm)
    until(lambda: not workers_in(running.folder), "the end of the workers")


def test_two_nodes_of_a_cluster_run_the_code_that_is_sent_and_one_loses_its_worker(two_nodes, command, calm, tmp_path):
    address, folder = two_nodes
    running = command(*SLOW, "--ray", address, RAY_AUTH_MODE="disabled")
    until(lambda: rows(tmp_path / "run" / SLOW_RECORDS), "a record")
    victim = workers_in(folder)[-1]
    victim.kill()
    status, lines = running.wait()
    assert status == 0, lines
    assert any("warning: this Ray cluster asks for no token" in line for line in lines)
    gone = rf"warning: the worker in process {victim.pid} on {re.escape(platform.node())} has died"
    assert [line for line in lines if re.search(gone, line)], lines
    assert_same(tmp_path / "run", calm)
    assert not workers_in(folder) and not list(running.folder.glob("code-*"))


def test_a_machine_that_is_lost_ends_the_run_with_one_line_and_it_goes_on_without_it(
    two_nodes, command, here, ran, calm, tmp_path
):
    address, folder = two_nodes
    running = command(*SLOW, "--ray", address, RAY_AUTH_MODE="disabled")
    until(lambda: rows(tmp_path / "run" / SLOW_RECORDS), "a record")
    raylets = [process for process in living_in(folder) if process.name() == "raylet"]
    next(raylet for raylet in raylets if any("127.0.0.2" in word for word in raylet.cmdline())).kill()
    status, lines = running.wait()
    assert status == 1 and "the same command goes on from there" in lines[-1], lines
    assert "Traceback" not in "\n".join(lines) and 0 < len(rows(tmp_path / "run" / SLOW_RECORDS)) < LONG
    assert_same(ran(here, "run", "slow", **LONG_RUN)[0], calm)
