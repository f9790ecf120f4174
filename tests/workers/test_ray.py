"""Two real workers: the records of a run without them, and nothing lost or left behind whatever goes wrong."""

import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import psutil
import pytest
from msgspec import structs

from interventions import load_intervention
from pairs import build_pairs
from voicepatch.engine.subject import load_subject
from voicepatch.errors import UserError
from voicepatch.paths import DEMO_MODEL, ROOT
from voicepatch.registry import catalogue
from voicepatch.runs.executor import LocalExecutor
from voicepatch.runs.experiment import run_experiment
from voicepatch.runs.interrupt import stoppable
from voicepatch.store.directory import RunDir
from voicepatch.types.settings import Settings

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (requirements-ray.txt)"),
]

PLUGIN = Path(__file__).with_name("plugin.py")
HOW = {"device": "cpu", "dtype": None, "engine": "auto", "max_rows": None, "store_mb": None}
N, LONG = 12, 40  # pairs; of the long list, some are not begun when the first are done, slowly
LONG_RUN = {"max_pairs": LONG, "layers": (0,)}
PAUSE = {"TEST_PAUSE": "0.15"}  # seconds a pair of the experiment `slow`, in workers
PATIENCE = 180  # seconds, on a busy machine
# A command without what follows the records; what runs these tests may ignore SIGINT.
COMMAND = """
import signal, cli
from voicepatch.commandline import showing
signal.signal(signal.SIGINT, signal.default_int_handler)
showing.summary = showing.report = lambda *_: None
cli.cli()
"""
ONE_LAYER = ("--plugin", PLUGIN, "--layers", "0", "--device", "cpu")
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tmp_path_factory.getbasetemp()  # made before, so that it is not in there
    with short_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield folder


@pytest.fixture(scope="module")
def plugin():
    catalogue.add_plugin(PLUGIN)
    yield
    catalogue.reset_plugins()


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def stack(folder, plugin):
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def pool(stack, said):
    from voicepatch.workers.pool import worker_pool

    with mock.patch.dict(os.environ, PAUSE):
        return stack.enter_context(worker_pool(str(DEMO_MODEL), HOW, 2, log=said.append))


@pytest.fixture(scope="module")
def here():
    return LocalExecutor(load_subject(DEMO_MODEL, device="cpu"))


@pytest.fixture
def ran(demo_data, tmp_path):
    """Runs experiments one after the other on an executor, into a directory; gives that and the messages."""

    def run(where, out, *names, data=demo_data, kind="prosody", run_dir=RunDir, **settings):
        chosen, said = structs.replace(Settings(kind, max_pairs=N, layers=(0, 5)), **settings), []
        sample = build_pairs(data.clips, kind, chosen.max_pairs)
        run = run_dir(tmp_path / out)
        with run.in_use():
            for name in names:
                run_experiment(where, data, run, load_intervention(name), sample, chosen, said.append)
        return tmp_path / out, said

    return run


@pytest.fixture(scope="module")
def calm(here, plugin, demo_data, tmp_path_factory):
    """A long run that nothing disturbed, without workers."""
    out, sample = tmp_path_factory.mktemp("calm"), build_pairs(demo_data.clips, "prosody", LONG)
    run_experiment(here, demo_data, RunDir(out), load_intervention("slow"), sample, Settings("prosody", **LONG_RUN))
    return out


@pytest.fixture
def both(pool, here, ran):
    """Runs experiments on workers and here, and gives both directories and what was said of the first."""

    def run(*names, run_dir=RunDir, **how):
        mine, said = ran(pool, "workers", *names, run_dir=run_dir, **how)
        return mine, ran(here, "here", *names, **how)[0], said

    return run


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


def test_what_is_wrong_with_an_option_is_said_as_without_workers(both):
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


@pytest.fixture
def command(tmp_path):
    """Starts a command, which is killed if the test ends before it."""
    with ExitStack() as stack:

        def start(*words, **environment):
            folder = stack.enter_context(short_folder())
            made = Command(*words, folder=folder, out=tmp_path / "run", said=tmp_path / "said", **environment)
            stack.callback(made.process.kill)
            return made

        yield start


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


@pytest.fixture
def two_nodes():
    """The address of a cluster of two nodes on this machine, of one core each, and the folder of their files.

    Where the code is they are not told.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if 10002 <= port <= 19999:  # Ray's own
        port -= 8000
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "TEST_SHIPPED": "1", **PAUSE}
    environment.pop("PYTHONPATH", None)
    more = ("--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats")
    head = ("--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false")
    with short_folder() as folder:
        for node in ((*head, f"--temp-dir={folder}"), (f"--address=127.0.0.1:{port}", "--node-ip-address=127.0.0.2")):
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", *node, *more]
            done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=PATIENCE)
            assert done.returncode == 0, done.stdout + done.stderr
        yield f"127.0.0.1:{port}", folder


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
