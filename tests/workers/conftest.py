"""Two workers for all tests of a module, and runs on them, in this process and in a command of its own."""

import os
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from unittest import mock

import pytest
from msgspec import structs

from interventions import load_intervention
from pairs import build_pairs
from tests.workers.ray_runs import HOW, LONG, LONG_RUN, PATIENCE, PAUSE, PLUGIN, Command, N, short_folder
from voicepatch.engine.subject import load_subject
from voicepatch.paths import DEMO_MODEL
from voicepatch.registry import catalogue
from voicepatch.runs.executor import LocalExecutor
from voicepatch.runs.experiment import run_experiment
from voicepatch.store.directory import RunDir
from voicepatch.types.settings import Settings


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
