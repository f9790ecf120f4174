"""A worker without Ray, the chunks of pairs, and the resources of a pool."""

import importlib.util
import json
import os
import pickle
import platform
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cli import cli
from interventions import load_intervention
from pairs import Clip, Pair, build_pairs
from voicepatch.engine.failures import BadClip
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.paths import DEMO_MODEL
from voicepatch.runs.executor import LocalExecutor
from voicepatch.store.directory import RunDir
from voicepatch.types.settings import Settings
from voicepatch.workers import cluster, worker
from voicepatch.workers import resources as resources_module
from voicepatch.workers.pool import CHUNKS_AHEAD, MAX_CHUNK, PoolRun, WorkerPool, cut
from voicepatch.workers.resources import Resources, resources
from voicepatch.workers.worker import EventLog, Job, PairResult, Worker, WorkerInfo, sources_of

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


def job_of(name, data, settings=SETTINGS, number=1, hashes=None):
    return Job(number, name, sources_of(load_intervention(name), settings), settings, data, hashes or {})


@pytest.fixture
def at_work(demo, monkeypatch):
    """A worker that has the demo."""
    monkeypatch.setattr(worker, "_cancelled", lambda: False)
    made = Worker(str(DEMO_MODEL), {}, 1)
    made._executor = LocalExecutor(demo)
    return made


def expected(demo, data, name, pairs, settings=SETTINGS):
    prepared = LocalExecutor(demo).prepare(load_intervention(name), settings, data)
    return list(prepared.records(pairs, print, None, lambda: False))


def test_the_records_are_those_of_this_process_whether_or_not_the_job_is_prepared_first(
    demo, demo_data, sample, at_work
):
    """Ray may start a worker again in the middle of an experiment."""
    first, second = job_of("patch", demo_data), job_of("random", demo_data, number=2)
    results = list(at_work.run(first, sample.pairs))
    assert [result.records for result in results] == expected(demo, demo_data, "patch", sample.pairs)
    assert {(result.host, result.pid) for result in results} == {(platform.node(), os.getpid())}
    at_work.prepare(second, sample.pairs)
    results = list(at_work.run(second, sample.pairs[:2]))
    assert [result.records for result in results] == expected(demo, demo_data, "random", sample.pairs[:2])


def test_a_cancelled_call_ends_after_the_current_pair(monkeypatch, demo_data, sample, at_work):
    monkeypatch.setattr(worker, "_cancelled", lambda: True)
    assert len(list(at_work.run(job_of("patch", demo_data), sample.pairs))) == 1


def test_a_job_with_another_code_or_another_file_than_the_drivers_is_refused(demo_data, at_work, tmp_path):
    job = job_of("patch", demo_data)
    at_work.prepare(job, ())
    for sources in (job.sources | {"code": "0" * 64}, job.sources | {"files": {"directions.txt": "0" * 64}}):
        with pytest.raises(UserError, match="the code or a file of patch is not the one of the machine") as caught:
            at_work.prepare(replace(job, sources=sources), ())
        assert str(caught.value).endswith(f"(on {platform.node()})")


def test_pairs_that_an_option_does_not_fit_are_refused_before_anything_is_written(demo_data, sample, at_work):
    job = job_of("timeline", demo_data, structs.replace(SETTINGS, options={"slices": 500}))
    at_work.prepare(job, ())
    with pytest.raises(UserError, match="--slices 500: the span of pair"):
        at_work.prepare(job, sample.pairs)


def test_a_model_that_a_machine_does_not_have_is_named_with_the_machine(tmp_path):
    with pytest.raises(UserError, match=re.escape(f"(on {platform.node()})")) as caught:
        Worker(str(tmp_path / "none"), {"device": "cpu"}, 1).load()
    assert str(tmp_path / "none") in str(caught.value)


class FakeHandle:
    """Ray's handle of a worker whose `load` gives `info`."""

    def __init__(self, info):
        self.load = SimpleNamespace(remote=lambda: info)


FAKE_RAY = SimpleNamespace(
    get=lambda reference: reference,
    wait=lambda references, **_: (references, []),
    exceptions=SimpleNamespace(RayError=KeyError, RayTaskError=KeyError),
)


@pytest.mark.parametrize(
    ("versions", "identity", "what"),
    [({"torch": "0.0"}, {}, "torch"), ({}, {"model": "another"}, "model"), ({}, {}, None)],
)
def test_a_machine_with_another_version_or_model_is_refused_by_name(versions, identity, what):
    here = WorkerInfo("here", 1, "cpu", "float32", {"model": "one"}, {"python": "3", "torch": "2"})
    there = replace(here, host="there", versions=here.versions | versions, identity=here.identity | identity)
    messages = []
    pool = WorkerPool(FAKE_RAY, [FakeHandle(here), FakeHandle(there)], Resources(2, "cpu", 1, 1, 0), messages.append)
    if what is None:
        pool.load()
        assert messages == ["workers: 1 on here, 1 on there; cpu, 1 thread each; the checks run on the first one"]
    else:
        with pytest.raises(UserError, match=f"there has another {what} than here"):
            pool.load()


def test_a_plugin_travels_with_the_files_that_it_imports(tmp_path, monkeypatch):
    """Each of several, into a folder of its own."""
    monkeypatch.setattr(cluster, "_connected", lambda option, runtime_env, **_: iter([runtime_env["working_dir"]]))
    plugins = [tmp_path / folder / "mine.py" for folder in ("one", "two")]
    for plugin in plugins:
        (plugin.parent / "parts").mkdir(parents=True)
        plugin.write_bytes("# coding: latin-1\nfrom parts.one import x  # ü\n".encode("latin-1"))
        (plugin.parent / "parts" / "one.py").write_text(f"x = '{plugin.parent.name}'\n")
        (plugin.parent / "other.py").write_text("x = 3\n")
    monkeypatch.setattr(cluster, "plugins", lambda: plugins)
    with cluster.joined_ray("auto", [].append) as code:
        shipped = [Path(code, path) for path in cluster.shipped_plugins()]
        assert [path.read_bytes() for path in shipped] == [path.read_bytes() for path in plugins]
        assert [(path.parent / "parts" / "one.py").read_text() for path in shipped] == ["x = 'one'\n", "x = 'two'\n"]
        assert not (shipped[0].parent / "other.py").exists()
        there = {path.name for path in Path(code).iterdir()}
        assert there == {"voicepatch", "pairs", "interventions", "tasks", "plugins_0", "plugins_1"}
        assert not list(Path(code).rglob("__pycache__"))
    assert not Path(code).exists()


def test_errors_are_the_same_after_a_journey(demo_data):
    for error in (UserError("line " + "x" * 3000, 3), BadClip(demo_data.clips[0], UserError("no sound"))):
        other = pickle.loads(pickle.dumps(error))
        assert (type(other), str(other), other.status) == (type(error), str(error), error.status)


def test_what_the_preflight_checks_write_and_log_comes_in_order(tmp_path):
    log = EventLog(tmp_path)
    found = {"passed": True, "checks": [], "n_clips": 2, "unreadable": [], "silent": []}
    log.log("first")
    log.write_json("sanity_check_sounds.json", {"prosody": found})
    log.update_json("sanity_check_sounds.json", "semantic", found)
    run = RunDir(tmp_path)
    for method, args in log.events[1:]:
        getattr(run, method)(*args)
    written = json.loads((tmp_path / "sanity_check_sounds.json").read_text(encoding="utf-8"))
    assert log.events[0] == ("log", ("first",)) and written == {"prosody": found, "semantic": found}


def test_a_clip_that_has_changed_since_the_run_began_ends_it_in_a_worker(demo_data, sample, at_work):
    made = Worker(str(DEMO_MODEL), {"device": "cpu"}, 1)
    hashes = {**demo_data.hashes} | {sample.pairs[0].a.path: "0" * 64}
    with pytest.raises(UserError, match="has changed since the run began"):
        next(made.run(job_of("patch", demo_data, hashes=hashes), sample.pairs))


CLIP = Clip("c", "c.wav", "t", "text", "happy", "sad")


def make_pairs(numbers):
    """A pair for each (a, b), of clips that are called so."""
    clips = {n: replace(CLIP, clip_id=str(n)) for pair in numbers for n in pair}
    return [Pair(f"{i}:{a}-{b}", "semantic", clips[a], clips[b], "sad") for i, (a, b) in enumerate(numbers)]


def n_clips(pairs):
    return len({clip.clip_id for pair in pairs for clip in (pair.a, pair.b)})


class TestChunks:
    @given(numbers=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=300), n=st.integers(1, 40))
    def test_they_are_the_pairs_in_order_and_none_is_too_long(self, numbers, n):
        pairs = make_pairs(numbers)
        chunks = cut(pairs, n)
        assert [pair for chunk in chunks for pair in chunk] == pairs
        assert all(0 < len(chunk) <= 2 * MAX_CHUNK for chunk in chunks)

    def test_they_are_cut_where_no_clip_is_needed_on_both_sides(self):
        groups = [7, 8, 7, 7, 8, 8, 7, 8, 7]
        pairs = make_pairs([(group, 100 + 100 * group + i) for group, n in enumerate(groups) for i in range(n)])
        assert [len(chunk) for chunk in cut(pairs, 3)] == groups

    def test_every_worker_has_some_of_a_few_pairs(self):
        assert len(cut(make_pairs([(i, 100 + i) for i in range(16)]), 8)) >= 4

    @pytest.mark.parametrize(("kind", "n", "extra"), [("prosody", 2, 0), ("prosody", 8, 0), ("semantic", 2, 0)])
    def test_the_demos_pairs_cost_no_recording_more(self, demo_data, kind, n, extra):
        pairs = build_pairs(demo_data.clips, kind, 100).pairs
        assert len(cut(pairs, n)) >= n and sum(map(n_clips, cut(pairs, n))) == n_clips(pairs)


class FakeDeath(Exception):
    pass


class FakeStream:
    """What the call of a worker gives: a result for each pair, then the death of the worker if it is `deadly`."""

    def __init__(self, pairs, worker, deadly):
        self.pairs, self.begun, self.cancelled = pairs, 0, False
        self.results = iter([PairResult([{"pair_id": pair.pair_id}], None, [], "host", worker) for pair in pairs])
        if deadly:
            self.results = iter([next(self.results), next(self.results), FakeDeath("killed")])

    def __next__(self):
        self.begun += 1
        return next(self.results)


def fake_pool(n, deadly=None):
    """A pool of `n` workers without Ray, and the streams of its calls; the call with number `deadly` dies."""
    streams = []

    def handle(worker):
        def remote(job, pairs):
            streams.append(FakeStream(pairs, worker, deadly == len(streams)))
            return streams[-1]

        return SimpleNamespace(run=SimpleNamespace(options=lambda num_returns: SimpleNamespace(remote=remote)))

    def get(result):
        if isinstance(result, FakeDeath):
            raise result
        return result

    ray = SimpleNamespace(
        get=get,
        wait=lambda references, **_: (references, []),
        cancel=lambda stream: setattr(stream, "cancelled", True),
        exceptions=SimpleNamespace(RayError=FakeDeath, RayTaskError=KeyError),
    )
    workers = [WorkerInfo("host", number, "cpu", "float32", {}, {}) for number in range(n)]
    handles = [handle(number) for number in range(n)]
    return WorkerPool(ray, handles, Resources(n, "cpu", 1, 1, 0), print, workers), streams


class TestRecords:
    PAIRS = make_pairs([(i, i + 1) for i in range(1000)])

    def test_they_come_in_the_order_of_the_pairs_and_few_chunks_are_begun(self):
        pool, streams = fake_pool(3)
        ids = []
        for records in PoolRun(pool, None, {}, 1).records(self.PAIRS, print, None, lambda: False):
            ids += [record["pair_id"] for record in records]
            waiting = [stream for stream in streams if stream.begun < len(stream.pairs)]
            assert len(waiting) <= CHUNKS_AHEAD * 3
        assert ids == [pair.pair_id for pair in self.PAIRS] and len(streams) > CHUNKS_AHEAD * 3

    def test_a_stop_cancels_what_is_begun_and_begins_nothing(self):
        pool, streams = fake_pool(2)
        given = []
        for records in PoolRun(pool, None, {}, 1).records(self.PAIRS, print, None, lambda: len(given) == 2):
            given.append(records)
        assert len(given) == 2 and len(streams) == CHUNKS_AHEAD * 2 and all(stream.cancelled for stream in streams)

    def test_a_worker_that_dies_for_good_ends_the_run_after_the_pairs_before_with_the_names_of_the_others(self):
        pool, streams = fake_pool(2, deadly=1)
        given, first = [], len(cut(self.PAIRS, 2)[0])
        with pytest.raises(UserError, match=rf"died 2 times while computing these \d+ pairs: {first + 2}:") as caught:
            for records in PoolRun(pool, None, {}, 1).records(self.PAIRS, print, None, lambda: False):
                given.append(records)
        assert len(given) == first + 2 and "(killed)" in str(caught.value)
        assert all(stream.cancelled for stream in streams[1:])


class TestResources:
    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch):
        """One of 16 cores without a GPU."""
        monkeypatch.setattr(resources_module, "count_cores", lambda: 16)
        monkeypatch.setattr(resources_module, "count_gpus", lambda: 0)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    @pytest.mark.parametrize(
        ("workers", "threads", "expected"), [(4, None, (4, 4)), (None, None, (16, 1)), (None, "4", (4, 4))]
    )
    def test_cores_are_shared_out(self, monkeypatch, workers, threads, expected):
        if threads:
            monkeypatch.setenv("OMP_NUM_THREADS", threads)
        need = resources(workers, None)
        assert (need.n_workers, need.threads) == expected and need.device == "cpu" and need.gpus == 0

    def test_a_worker_has_a_gpu_where_there_are_some(self, monkeypatch):
        monkeypatch.setattr(resources_module, "count_gpus", lambda: 8)
        need = resources(None, None)
        assert (need.n_workers, need.device, need.gpus) == (8, "cuda", 1)
        assert resources(3, "cuda").n_workers == 3 and resources(2, "cpu").device == "cpu"
        assert resources(None, None, {"GPU": 16.0, "CPU": 128.0}).n_workers == 16

    @pytest.mark.parametrize(
        ("workers", "device", "there", "words"),
        [
            (20, None, None, ["--workers 20", "this machine has 16 cores", "the maximum is 16"]),
            (None, "cuda", None, ["--device cuda", "this machine has no GPU"]),
            (2, "cuda:1", None, ["--device cuda:1", "a GPU of its own"]),
            (
                3,
                None,
                {"GPU": 2.0, "CPU": 8.0},
                ["--workers 3", "the cluster has 2 GPUs", "the maximum is 2"],
            ),
            (None, "cuda", {"CPU": 8.0}, ["--device cuda", "the cluster has no GPU"]),
        ],
    )
    def test_more_than_there_is_is_refused(self, workers, device, there, words):
        with pytest.raises(UserError) as caught:
            resources(workers, device, there)
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
        assert "is not a whole number (0<=x<=1000) or auto" in self.fails("--workers", workers)

    def test_a_cluster_without_workers_is_refused(self):
        assert "--workers 0" in self.fails("--workers", "0", "--ray", "auto")

    def test_they_can_stand_in_the_settings_file(self, tmp_path):
        file = tmp_path / "settings.yaml"
        file.write_text("workers: 99999\nray: auto\n", encoding="utf-8")
        assert "is not a whole number (0<=x<=1000) or auto" in self.fails("--config", str(file))
        file.write_text("workers: true\n", encoding="utf-8")
        assert "True is not a whole number" in self.fails("--config", str(file))

    def test_a_run_does_not_store_the_number_of_workers_among_the_settings(self):
        assert not {"workers", "ray"} & set(Settings(workers=2, ray="auto").recorded())


@pytest.mark.parametrize("address", ["here", "host:", ":6379", "host:99999", "host:port"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UserError, match="write auto, or HOST:PORT"):
        cluster.check_reachable(address)


def test_a_token_is_used_where_there_is_one_and_nothing_else_was_asked_for(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cluster.token_mode() == "disabled"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret", encoding="utf-8")
    assert cluster.token_mode() == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert cluster.token_mode() == "disabled"


def test_an_address_where_nothing_answers_is_one_line_at_once():
    with pytest.raises(UserError, match="nothing answers there"):
        cluster.check_reachable("127.0.0.1:9")
