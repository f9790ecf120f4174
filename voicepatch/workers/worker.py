"""One worker: a process with the model that computes what the driver sends. `workers.pool` makes a Ray actor of it.

Ray may start a worker again at any time, so each call carries all that it needs.
"""

import importlib
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from voicepatch.engine.failures import PairFailed
from voicepatch.errors import UserError
from voicepatch.registry.catalogue import add_plugin, load_intervention
from voicepatch.registry.intervention import Intervention
from voicepatch.runs.executor import LocalExecutor, PreparedRun
from voicepatch.runs.recorded import LIBRARIES, files_of_experiment
from voicepatch.store.directory import Row
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import Dataset
from voicepatch.types.pair import Pair
from voicepatch.types.settings import Settings


@dataclass(frozen=True)
class WorkerInfo:
    """Where a worker runs, and what all workers must have in common: the model's identity, and the versions."""

    host: str
    pid: int
    device: str
    dtype: str
    identity: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True)
class Job:
    """One experiment of a command; `number` tells the jobs of a command apart.

    `sources` are the driver's hashes of the experiment's code and files, and `hashes` those of the clips.
    """

    number: int
    name: str
    sources: Mapping[str, Any]
    settings: Settings
    dataset: Dataset
    hashes: Mapping[Path, str | None]


@dataclass(frozen=True)
class PairResult:
    """The records of one pair, or why it has none; the messages of its computation, and the process that did it."""

    records: list[Row]
    failure: PairFailed | None
    messages: list[str]
    host: str
    pid: int


@dataclass
class EventLog:
    """Takes the place of the run directory during the preflight checks, and lists the calls for the driver to make."""

    path: Path
    events: list[tuple[str, tuple]] = field(default_factory=list)

    def write_json(self, *arguments: Any) -> None:
        self.events.append(("write_json", arguments))

    def update_json(self, *arguments: Any) -> None:
        self.events.append(("update_json", arguments))

    def log(self, message: str) -> None:
        self.events.append(("log", (message,)))


class Worker:
    """One model in a process of its own. A `UserError` of any method names the machine."""

    def __init__(
        self,
        model: str,
        arguments: Mapping[str, Any],
        threads: int,
        packages: Sequence[str] = (),
        plugins: Sequence[str] = (),
    ):
        self._model, self._arguments, self._threads = model, arguments, threads
        self._packages, self._plugins = packages, plugins  # both have experiments
        self._prepared: tuple[int, PreparedRun] | None = None

    @cached_property
    def _executor(self) -> LocalExecutor:
        import torch

        from voicepatch.engine.subject import load_subject

        os.environ["OMP_NUM_THREADS"] = str(self._threads)  # or each worker would look for a number of its own
        torch.set_num_threads(self._threads)
        for package in self._packages:
            importlib.import_module(package)
        for path in self._plugins:
            add_plugin(path)
        return LocalExecutor(load_subject(self._model, **self._arguments))

    def load(self) -> WorkerInfo:
        """Load the model."""
        import torch

        with naming(platform.node()):
            executor = self._executor
        device = executor.subject.model.llm.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        versions = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
        return WorkerInfo(platform.node(), os.getpid(), name, executor.dtype, executor.identity(), versions)

    def prepare(self, job: Job, pairs: Sequence[Pair]) -> tuple[Row, int]:
        """Prepare an experiment that must fit `pairs`; gives its recorded settings and the number of combinations."""
        with naming(platform.node()):
            self._executor.expect(job.hashes)
            experiment = load_intervention(job.name)  # after the executor, which adds the plugins
            if sources_of(experiment, job.settings) != job.sources:
                raise UserError(f"the code or a file of {job.name} is not the one of the machine with the command")
            prepared = self._executor.prepare(experiment, job.settings, job.dataset, pairs)
        self._prepared = job.number, prepared
        return prepared.recorded, prepared.n_combinations

    def check(self, job: Job, pairs: Sequence[Pair], name: str, path: Path) -> tuple[list[tuple], UserError | None]:
        """Run the preflight checks; gives their events and the error that they end with."""
        log = EventLog(path)
        try:
            with naming(platform.node()):
                self._run_of(job).check(pairs, name, log, log.log)
        except UserError as error:
            return log.events, error
        return log.events, None

    def run(self, job: Job, pairs: Sequence[Pair]) -> Iterator[PairResult]:
        """The result of each pair, in order. Ends early when the driver has cancelled the call."""
        messages: list[str] = []
        failures: list[PairFailed] = []
        with naming(platform.node()):
            run = self._run_of(job)
            for records in run.records(pairs, messages.append, lambda _, error: failures.append(error), _cancelled):
                failure = failures.pop() if failures else None
                yield PairResult(records, failure, list(messages), platform.node(), os.getpid())
                messages.clear()

    def settings_of_answers(self, settings: Settings) -> Row:
        """What the answers of this worker are computed with."""
        return self._executor.settings_of_answers(settings)

    def answers(
        self, clips: Sequence[Clip], settings: Settings, hashes: Mapping[Path, str | None]
    ) -> list[Row | PairFailed]:
        """The answer to each clip, whose file must have its hash, or why there is none."""
        with naming(platform.node()):
            self._executor.expect(hashes)
            return list(self._executor.answers(clips, settings))

    def _run_of(self, job: Job) -> PreparedRun:
        if self._prepared is None or self._prepared[0] != job.number:
            self.prepare(job, ())
        assert self._prepared is not None  # set by `prepare`
        return self._prepared[1]


@contextmanager
def naming(host: str) -> Iterator[None]:
    """Add the name of a machine to a `UserError`."""
    try:
        yield
    except UserError as error:
        there = f" (on {host})"
        raise UserError(f"{str(error).removesuffix(there)}{there}", error.status) from None


def sources_of(experiment: Intervention, settings: Settings) -> dict[str, Any]:
    """Hashes of the experiment's code and of the files that its options name: the same on every machine."""
    files = files_of_experiment(experiment, settings.options).get("option_files", {})
    return {"code": experiment.code_hash(), "files": files}


def _cancelled() -> bool:
    import ray

    return ray.get_runtime_context().is_canceled()
