"""A worker as Ray runs it, here without Ray, and what is asked of a machine."""

import errno
import hashlib
import importlib.util
import json
import os
import pickle
import platform
import re
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from cli import cli
from commandline.options import DEMO_MODEL
from engine.failures import BadClip
from errors import BAD_USAGE, UserError
from interventions import load_intervention
from pairs import build_pairs
from runs.directory import RunDir
from runs.place import Local
from runs.settings import Settings
from workers import cluster, places, worker
from workers.crew import Crew
from workers.member import Member
from workers.places import Request, needs
from workers.worker import About, Load, Notebook, Order, Worker

SETTINGS = Settings("prosody", max_pairs=6, layers=(0,))


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """A worker sets those of its process, which here has other tests."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sample(demo_data):
    return build_pairs(demo_data.clips, "prosody", 6)


@pytest.fixture
def at_work(demo, demo_data):
    """A worker that has the demo and began `patch`."""
    made = Worker(Load(str(DEMO_MODEL), {}, threads=1))
    made._place = Local(demo)
    made.begin(Order("patch", load_intervention("patch").code_hash(), SETTINGS, demo_data, {}, threads=1))
    return made


def test_in_parts_or_whole_the_records_are_the_same(demo, demo_data, sample, at_work):
    task = Local(demo).task(load_intervention("patch"), SETTINGS, demo_data)
    expected = list(task.records(sample.pairs, print, None, lambda: False))
    whole = at_work.run(sample.pairs, seconds=60)
    parts = [at_work.run(sample.pairs, seconds=0), *(at_work.run(seconds=0) for _ in range(5))]
    assert [rows for rows, _ in whole.rows] == expected
    assert [len(part.rows) for part in parts] == [1] * 6
    assert [rows for part in parts for rows, _ in part.rows] == expected


def test_the_code_of_an_experiment_must_be_the_drivers(demo_data, at_work):
    with pytest.raises(UserError, match="holds another patch than where the command was started"):
        at_work.begin(Order("patch", "0" * 64, SETTINGS, demo_data, {}, threads=1))


def test_pairs_that_an_option_does_not_fit_are_refused_before_anything_is_written(demo_data, sample, at_work):
    timeline = load_intervention("timeline")
    settings = replace(SETTINGS, options={"slices": 500})
    order = Order("timeline", timeline.code_hash(), settings, demo_data, {}, threads=1)
    at_work.begin(order)  # of no pairs yet
    with pytest.raises(UserError, match="--slices 500: the span of pair"):
        at_work.begin(order, sample.pairs)


def test_a_model_that_a_machine_does_not_see_is_named_with_it(tmp_path):
    with pytest.raises(UserError, match=re.escape(f"(on {platform.node()})")) as caught:
        Worker(Load(str(tmp_path / "none"), {"device": "cpu"}, threads=1, settled=True)).load()
    assert str(tmp_path / "none") in str(caught.value)


@pytest.mark.parametrize(
    ("versions", "identity", "words"),
    [
        ({"torch": "0.0"}, {}, ["there has torch 0.0, and this machine 2"]),
        ({"code": "0" * 64}, {}, ["there has code 0000"]),
        ({}, {"model": "another"}, ["there has another model than here"]),
    ],
)
def test_a_machine_that_differs_is_refused_by_name(monkeypatch, versions, identity, words):
    own = {"python": "3", "torch": "2", "code": "1" * 64}
    monkeypatch.setattr("workers.crew.versions", lambda: own)
    here = About("here", 1, "cpu", 1, "float32", {"model": "one"}, own)
    there = replace(here, host="there", versions=own | versions, identity=here.identity | identity)
    Crew(None, [Member(None, None, here)] * 2, print).compare()
    with pytest.raises(UserError) as caught:
        Crew(None, [Member(None, None, here), Member(None, None, there)], print).compare()
    assert not [word for word in words if word not in str(caught.value)]


def test_a_plugin_that_is_not_there_is_written_with_what_it_imports_from_the_drivers_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    here, there = tmp_path / "here" / "mine.py", tmp_path / "there" / "mine.py"
    (here.parent / "parts").mkdir(parents=True)
    here.write_bytes("# coding: latin-1\nfrom parts.one import x  # ü\n".encode("latin-1"))
    (here.parent / "parts" / "one.py").write_text("x = 1\n")
    (here.parent / "other.py").write_text("x = 3\n")
    files = worker.plugin_files(here)
    assert set(files) == {"mine.py", "parts/one.py"}
    assert worker._plugin(here, files) == here
    copy = worker._plugin(there, files)
    assert copy != there and copy.name == "mine.py" and copy.read_bytes() == here.read_bytes()
    assert (copy.parent / "parts" / "one.py").read_text() == "x = 1\n"
    (here.parent / "parts" / "one.py").write_text("x = 2\n")
    assert worker._plugin(here, files) != here


def test_a_file_that_an_option_names_must_be_the_drivers(at_work, demo_data, tmp_path):
    path = tmp_path / "directions.txt"
    path.write_text("1")
    sha256 = hashlib.sha256(b"1").hexdigest()
    patch = load_intervention("patch").code_hash()
    at_work.begin(Order("patch", patch, SETTINGS, demo_data, {}, 1, {str(path): sha256}))
    path.write_text("2")
    with pytest.raises(UserError, match="directions.txt: is another file on "):
        at_work.begin(Order("patch", patch, SETTINGS, demo_data, {}, 1, {str(path): sha256}))


def test_the_code_that_travels_is_the_programs_and_nothing_beside_it():
    files = {path.as_posix() for path in worker.code_files()}
    assert {"cli.py", "errors.py", "engine/fused.py", "interventions/patch.py", "workers/worker.py"} <= files
    assert not [file for file in files if file.startswith(("tests/", "demo/", ".venv", "results/"))]


def test_errors_are_the_same_after_a_journey(demo_data):
    for error in (UserError("line " + "x" * 3000, 3), BadClip(demo_data.clips[0], UserError("no sound"))):
        other = pickle.loads(pickle.dumps(error))
        assert (type(other), str(other), other.status) == (type(error), str(error), error.status)


def test_what_the_gates_write_and_say_is_told_in_order(tmp_path):
    notebook = Notebook(tmp_path)
    found = {"passed": True, "n_clips": 2, "unreadable": [], "silent": []}
    notebook.say("first")
    notebook.write_json("sanity_check_sounds.json", {"prosody": found})
    notebook.update_json("sanity_check_sounds.json", "semantic", found)
    run = RunDir(tmp_path)
    for method, args in notebook.events[1:]:
        getattr(run, method)(*args)
    written = json.loads((tmp_path / "sanity_check_sounds.json").read_text(encoding="utf-8"))
    assert notebook.events[0] == ("say", ("first",)) and written == {"prosody": found, "semantic": found}


def test_a_clip_that_has_changed_since_the_run_began_ends_it_in_a_worker(demo_data, sample):
    made = Worker(Load(str(DEMO_MODEL), {"device": "cpu"}, threads=1))
    made.load()
    hashes = {**demo_data.hashes} | {sample.pairs[0].a.path: "0" * 64}
    made.begin(Order("patch", load_intervention("patch").code_hash(), SETTINGS, demo_data, hashes, threads=1))
    assert "has changed since the run began" in str(made.run(sample.pairs).error)


class TestNeeds:
    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch):
        """One of 16 cores without a GPU."""
        monkeypatch.setattr(places, "n_cores", lambda: 16)
        monkeypatch.setattr(places, "_n_gpus", lambda: 0)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    @pytest.mark.parametrize(
        ("workers", "threads", "expected"), [(4, None, (4, 4)), (None, None, (16, 1)), (None, "4", (4, 4))]
    )
    def test_cores_are_shared_out(self, monkeypatch, workers, threads, expected):
        if threads:
            monkeypatch.setenv("OMP_NUM_THREADS", threads)
        need = needs(Request(workers), None)
        assert (need.n, need.threads) == expected and need.device == "cpu" and need.gpus_each == 0

    def test_a_worker_has_a_gpu_where_there_are_some(self, monkeypatch):
        monkeypatch.setattr(places, "_n_gpus", lambda: 8)
        need = needs(Request(None), None)
        assert (need.n, need.device, need.gpus_each, need.n_gpus) == (8, "cuda", 1, 8)
        assert needs(Request(3), "cuda").n == 3 and needs(Request(2), "cpu").device == "cpu"
        assert needs(Request(None, "auto"), None, {"GPU": 16.0, "CPU": 128.0}).n == 16

    @pytest.mark.parametrize(
        ("request_", "device", "there", "words"),
        [
            (Request(20), None, None, ["--workers 20", "this machine has 16 cores", "ask for 16"]),
            (Request(None), "cuda", None, ["--device cuda", "this machine has no GPU"]),
            (Request(2), "cuda:1", None, ["--device cuda:1", "a GPU of its own"]),
            (Request(3, "auto"), None, {"GPU": 2.0, "CPU": 8.0}, ["--workers 3", "the cluster has 2 GPUs", "for 2"]),
            (Request(None, "auto"), "cuda", {"CPU": 8.0}, ["--device cuda", "the cluster has no GPU"]),
        ],
    )
    def test_more_than_there_is_is_refused(self, request_, device, there, words):
        with pytest.raises(UserError) as caught:
            needs(request_, device, there)
        assert caught.value.status == BAD_USAGE and not [word for word in words if word not in str(caught.value)]


class TestCommand:
    def fails(self, *args, status=2):
        result = CliRunner().invoke(cli, ["patch", "--kind", "prosody", *args])
        assert result.exit_code == status, result.output
        return result.output.strip().splitlines()[-1]

    @pytest.mark.parametrize("args", [("--workers", "2"), ("--workers", "auto"), ("--ray", "auto")])
    def test_without_ray_it_says_how_to_install_it(self, monkeypatch, tmp_path, args):
        find = importlib.util.find_spec
        monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == "ray" else find(name))
        line = self.fails(*args, "--out", str(tmp_path / "run"))
        assert line == f"error: {' '.join(args)} needs Ray: python -m pip install -r requirements-ray.txt"
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("workers", ["-1", "two", "1.5", "99999", ""])
    def test_a_number_of_workers_that_is_none_is_refused(self, workers):
        assert "is no number of workers" in self.fails("--workers", workers)

    def test_a_cluster_without_workers_is_refused(self):
        assert "--workers 0" in self.fails("--workers", "0", "--ray", "auto")

    def test_they_can_stand_in_the_settings_file(self, tmp_path):
        file = tmp_path / "settings.yaml"
        file.write_text("workers: 99999\nray: auto\n", encoding="utf-8")
        assert "is no number of workers" in self.fails("--config", str(file))
        file.write_text("workers: true\n", encoding="utf-8")
        assert "write a number of workers, or auto" in self.fails("--config", str(file))

    def test_the_number_of_workers_is_no_setting_of_an_experiment(self):
        assert not {"workers", "ray"} & {field.name for field in fields(Settings)}


@pytest.mark.parametrize("address", ["here", "host:", ":6379", "host:99999", "host:port"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UserError, match="write auto, or HOST:PORT"):
        cluster._check_reachable(address)


def test_a_token_is_used_where_there_is_one_and_nothing_else_was_asked_for(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cluster._mode() == {}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret", encoding="utf-8")
    assert cluster._mode() == {"RAY_AUTH_MODE": "token"}
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert cluster._mode() == {}


def test_an_address_where_nothing_answers_is_one_line_at_once():
    with pytest.raises(UserError, match="nothing answers there"):
        cluster._check_reachable("127.0.0.1:9")


class TestMachine:
    """What Ray would wait for in vain, or end by without a reason, is said before it starts."""

    def test_as_it_is_it_will_do(self, tmp_path):
        cluster._check_machine(str(tmp_path))

    def test_a_full_temporary_folder_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=3 << 20))
        with pytest.raises(UserError, match="has 3 MiB left, and Ray needs 64 for its logs.*TMPDIR") as caught:
            cluster._check_machine(str(tmp_path))
        assert str(tmp_path) in str(caught.value)

    @pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder in which nobody may write")
    def test_shared_memory_that_cannot_be_written_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cluster, "SHARED", "/proc")
        with pytest.raises(UserError, match="Ray needs /proc, which cannot be written"):
            cluster._check_machine(str(tmp_path))

    def test_a_loopback_that_is_down_is_named(self, tmp_path, monkeypatch):
        def unreachable(*_):
            raise OSError(errno.ENETUNREACH, "Network is unreachable")

        monkeypatch.setattr("socket.create_connection", unreachable)
        with pytest.raises(UserError, match="does not reach itself at 127.0.0.1 .Network is unreachable.*loopback"):
            cluster._check_machine(str(tmp_path))
