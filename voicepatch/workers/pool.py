"""Workers that compute the pairs of the experiments of one command.

    with worker_pool("demo/opens2s-demo", {"device": "cpu"}, workers=2) as executor:
        run_experiment(executor, dataset, run, experiment, sample, settings)

An executor like `runs.executor.LocalExecutor`. Each call gives a worker a chunk of neighbouring pairs, and the results
are taken in the order of the pairs. Ray starts a worker that has died again and repeats its call.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from voicepatch.engine.failures import PairFailed
from voicepatch.errors import UserError
from voicepatch.registry.intervention import Intervention
from voicepatch.registry.plugins import plugins
from voicepatch.registry.sources import folders
from voicepatch.runs.executor import OnFailure, StopRequested
from voicepatch.runs.interrupt import until_done
from voicepatch.runs.log import Log
from voicepatch.runs.preflight import CheckFiles
from voicepatch.store.directory import Row
from voicepatch.text import listing
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import Dataset
from voicepatch.types.pair import Pair
from voicepatch.types.settings import Settings
from voicepatch.workers.cluster import STARTING, joined_ray, own_ray, shipped_plugins
from voicepatch.workers.resources import Resources, resources
from voicepatch.workers.worker import Job, PairResult, Worker, WorkerInfo, naming, sources_of

RESTARTS = 3  # of each worker
REPEATS = 1  # of each call whose worker has died
CHUNKS_AHEAD = 2  # for each worker: chunks that are computed, or that wait for an earlier one
ANSWERS_AT_ONCE = 8  # clips of one worker, which are computed again if the command is killed
MAX_CHUNK = 64  # pairs; chunks and their results are held in memory
POLL_SECONDS = 0.2  # between two looks for a signal
PATIENCE_SECONDS = 10  # without an answer, before the state of the cluster is looked at


@contextmanager
def worker_pool(
    model: str,
    arguments: Mapping[str, Any],
    workers: int | None = None,
    address: str | None = None,
    log: Log = print,
) -> Iterator["WorkerPool"]:
    """Workers that have loaded the model, until the block ends.

    `arguments` are those of `load_subject`. `workers` is None for as many as possible, `address` that of a cluster.
    """
    device = arguments.get("device")
    if address is None:
        needed = resources(workers, device)
        connection = own_ray(needed.n_workers * needed.cpus, needed.n_workers * needed.gpus)
    else:
        connection = joined_ray(address, log)
    with connection as ray:
        if address is not None:
            needed = resources(workers, device, ray.cluster_resources())
        actor = ray.remote(Worker).options(
            num_cpus=needed.cpus,
            num_gpus=needed.gpus,
            max_restarts=RESTARTS,
            max_task_retries=REPEATS,
            scheduling_strategy="SPREAD",
        )
        source = os.path.abspath(model) if os.path.isdir(model) else model  # a worker has another working directory
        paths = [str(path) for path in plugins()] if address is None else shipped_plugins()
        loaded = source, {**arguments, "device": needed.device}, needed.threads, list(folders().values()), paths
        with until_done(STARTING):
            pool = WorkerPool(ray, [actor.remote(*loaded) for _ in range(needed.n_workers)], needed, log)
            pool.load()
        yield pool


def cut(pairs: Sequence[Pair], n_workers: int) -> list[list[Pair]]:
    """The pairs in chunks, cut where no clip is needed on both sides if there is such a place.

    A clip is encoded once for each chunk that needs it.
    """
    size = max(4, min(MAX_CHUNK, -(-len(pairs) // (4 * n_workers))))
    last = {clip.clip_id: number for number, pair in enumerate(pairs) for clip in (pair.a, pair.b)}
    chunks: list[list[Pair]] = [[]]
    needed_later: set[str] = set()
    for number, pair in enumerate(pairs):
        if len(chunks[-1]) >= (size if not needed_later else 2 * size):
            chunks.append([])
        chunks[-1].append(pair)
        clip_ids = {pair.a.clip_id, pair.b.clip_id}
        needed_later = {clip_id for clip_id in needed_later | clip_ids if last[clip_id] > number}
    return chunks if pairs else []


@dataclass
class WorkerPool:
    """The executor; `handles` are Ray's of the workers."""

    ray: Any
    handles: list[Any]
    resources: Resources
    log: Log
    workers: list[WorkerInfo] = field(default_factory=list)
    hashes: Mapping[Path, str | None] = field(default_factory=dict)
    n_jobs: int = 0

    @property
    def dtype(self) -> str:
        return self.workers[0].dtype

    @property
    def hosts(self) -> dict[str, int]:
        """The number of workers on each machine."""
        return dict(Counter(worker.host for worker in self.workers))

    def load(self) -> None:
        """Load the model in every worker; `UserError` where one cannot, or has another model."""
        calls = [handle.load.remote() for handle in self.handles]
        waiting = self.ray.wait(calls, num_returns=len(calls), timeout=PATIENCE_SECONDS, fetch_local=False)[1]
        if waiting:
            self.log(f"{len(waiting)} of {len(calls)} workers still load the model, or wait for a place in the cluster")
        self.workers = [self.result(call, "loading the model") for call in calls]
        first = self.workers[0]
        for other in self.workers:
            for what, value in (other.versions | other.identity).items():
                if value != (first.versions | first.identity)[what]:
                    raise UserError(f"{other.host} has another {what} than {first.host}; install the same on both")
        hosts = ", ".join(f"{n} on {host}" for host, n in self.hosts.items())
        n = self.resources.threads
        self.log(f"workers: {hosts}; {first.device}, {n} thread{'s' * (n > 1)} each; the checks run on the first one")

    def identity(self) -> dict[str, Any]:
        return dict(self.workers[0].identity)

    def expect(self, hashes: Mapping[Path, str | None]) -> None:
        self.hashes = hashes

    def notes(self) -> Row:
        n, devices = len(self.workers), sorted({worker.device for worker in self.workers})
        return {"workers": {"n": n, "hosts": self.hosts, "devices": devices, "ray": self.ray.__version__}}

    def prepare(
        self, experiment: Intervention, settings: Settings, dataset: Dataset, pairs: Sequence[Pair] = ()
    ) -> "PoolRun":
        self.n_jobs += 1
        sources = sources_of(experiment, settings)
        job = self.ray.put(Job(self.n_jobs, experiment.name, sources, settings, dataset, self.hashes))
        answer = self.result(self.handles[0].prepare.remote(job, list(pairs)), f"preparing {experiment.name}")
        return PoolRun(self, job, *answer)

    def settings_of_answers(self, settings: Settings) -> Row:
        row: Row = self.result(self.handles[0].settings_of_answers.remote(settings), "preparing the answers")
        return row

    def answers(self, clips: Sequence[Clip], settings: Settings) -> Iterator[Row | PairFailed]:
        """Each worker answers to a part of the next clips; they are given in order."""
        at_once = ANSWERS_AT_ONCE * len(self.handles)
        for start in range(0, len(clips), at_once):
            next_clips = clips[start : start + at_once]
            size = -(-len(next_clips) // len(self.handles))
            parts = [next_clips[first : first + size] for first in range(0, len(next_clips), size)]
            calls = [
                handle.answers.remote(part, settings, {clip.path: self.hashes[clip.path] for clip in part})
                for handle, part in zip(self.handles, parts, strict=False)
            ]
            for call in calls:
                yield from self.result(call, "answering to clips")

    def result(self, reference: Any, doing: str) -> Any:
        """What a call gives; `UserError` when its worker has died for good."""
        self.wait(reference)
        errors = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except errors.RayTaskError as error:
            raise error.cause or error from (None if isinstance(error.cause, UserError) else error)
        except errors.RayError as error:
            line = next(iter(str(error).splitlines()), "")
            raise UserError(
                f"a worker died {REPEATS + 1} times while {doing} ({line}); is there memory for it (--max-rows, "
                "--store-mb)? What was computed before is stored, and the same command goes on from there"
            ) from None

    def wait(self, reference: Any) -> None:
        """Wait for an answer; `UserError` when the cluster has lost a machine that the workers need."""
        since = time.monotonic()
        while not self.ray.wait([reference], timeout=POLL_SECONDS, fetch_local=False)[0]:
            if time.monotonic() - since < PATIENCE_SECONDS:
                continue
            there, n = self.ray.cluster_resources(), self.resources.n_workers
            if there.get("CPU", 0) < n * self.resources.cpus or there.get("GPU", 0) < n * self.resources.gpus:
                raise UserError(
                    f"the cluster has lost a machine and has no place for {n} workers any more; what was computed "
                    "is stored, and the same command goes on from there with the workers that there is a place for"
                )
            since = time.monotonic()


class Chunk(NamedTuple):
    """Pairs that a worker computes; `results` are references in the pairs' order."""

    pairs: list[Pair]
    worker: int
    results: Any  # Ray's generator of references


@dataclass(frozen=True)
class PoolRun:
    """A prepared run on the workers of a pool; `job` is a reference to it."""

    pool: WorkerPool
    job: Any
    recorded: Row
    n_combinations: int

    def check(self, pairs: Sequence[Pair], name: str, run: CheckFiles, log: Log) -> None:
        """On the first worker; what it finds is written and logged here."""
        call = self.pool.handles[0].check.remote(self.job, list(pairs), name, run.path)
        events, error = self.pool.result(call, "checking the model and the clips")
        for method, arguments in events:
            log(*arguments) if method == "log" else getattr(run, method)(*arguments)
        if error:
            raise error

    def records(
        self, pairs: Sequence[Pair], log: Log, on_failure: OnFailure, stop_requested: StopRequested
    ) -> Iterator[list[Row]]:
        pool, begun = self.pool, deque[Chunk]()
        chunks = enumerate(cut(pairs, len(pool.handles)))
        try:
            while True:
                for number, chunk in islice(chunks, CHUNKS_AHEAD * len(pool.handles) - len(begun)):
                    worker = number % len(pool.handles)
                    call = pool.handles[worker].run.options(num_returns="streaming")
                    begun.append(Chunk(chunk, worker, call.remote(self.job, chunk)))
                if not begun:
                    return
                for pair, result in self._results(begun[0]):
                    for message in result.messages:
                        log(message)
                    if result.failure:
                        with naming(result.host):
                            on_failure(pair, result.failure)
                    yield result.records
                    if stop_requested():
                        return
                begun.popleft()
        finally:
            for unfinished in begun:  # its worker ends after the current pair
                pool.ray.cancel(unfinished.results)

    def _results(self, chunk: Chunk) -> Iterator[tuple[Pair, PairResult]]:
        pool, info = self.pool, self.pool.workers[chunk.worker]
        for number, pair in enumerate(chunk.pairs):
            pool.wait(chunk.results)
            left = [pair.pair_id for pair in chunk.pairs[number:]]
            # A call that is repeated and fails before its first new result has only its end left.
            reference = next(chunk.results, None) or chunk.results.completed()
            result: PairResult = pool.result(reference, f"computing these {len(left)} pairs: {listing(left)}")
            if (result.host, result.pid) != (info.host, info.pid):
                died, new = (f"process {worker.pid} on {worker.host}" for worker in (info, result))
                pool.log(f"warning: the worker in {died} has died; {new} computes its pairs again")
                info = pool.workers[chunk.worker] = replace(info, host=result.host, pid=result.pid)
            yield pair, result
