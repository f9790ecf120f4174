"""What a worker computes is what this process computes, and what is wrong is named with its machine."""

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
from msgspec import structs

from interventions import load_intervention
from pairs import build_pairs
from voicepatch.engine.failures import BadClip
from voicepatch.errors import UserError
from voicepatch.paths import DEMO_MODEL
from voicepatch.runs.executor import LocalExecutor
from voicepatch.store.directory import RunDir
from voicepatch.types.settings import Settings
from voicepatch.workers import cluster, worker
from voicepatch.workers.pool import WorkerPool
from voicepatch.workers.resources import Resources
from voicepatch.workers.worker import EventLog, Job, Worker, WorkerInfo, sources_of

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


def test_a_job_with_another_code_or_another_file_than_the_drivers_is_an_error(demo_data, at_work, tmp_path):
    job = job_of("patch", demo_data)
    at_work.prepare(job, ())
    for sources in (job.sources | {"code": "0" * 64}, job.sources | {"files": {"directions.txt": "0" * 64}}):
        with pytest.raises(UserError, match="the code or a file of patch is not the one of the machine") as caught:
            at_work.prepare(replace(job, sources=sources), ())
        assert str(caught.value).endswith(f"(on {platform.node()})")


def test_pairs_that_an_option_does_not_fit_are_an_error_before_anything_is_written(demo_data, sample, at_work):
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
def test_a_machine_with_another_version_or_model_is_an_error_that_names_it(versions, identity, what):
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
