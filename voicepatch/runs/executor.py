"""Where the pairs of an experiment are computed.

    executor = LocalExecutor(load_subject("demo/opens2s-demo"))
    executor.expect(dataset.hashes)                             # a clip file that has changed ends the run
    prepared = executor.prepare(load_intervention("patch"), settings, dataset, pairs)
    prepared.check(pairs, "prosody", run, print)                # the preflight checks
    for records in prepared.records(pairs, print, on_failure, stop_requested): ...
    for row in executor.answers(dataset.clips, settings): ...   # the model's own answers

`LocalExecutor` is this process; `workers.pool` has an executor with the same interface. Neither writes the records:
the caller does.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from voicepatch.engine.failures import PairFailed
from voicepatch.engine.positions import token_texts
from voicepatch.engine.subject import Subject
from voicepatch.registry.intervention import Intervention
from voicepatch.runs.job import Job, make_job
from voicepatch.runs.log import Log
from voicepatch.runs.pair_loop import run_job
from voicepatch.runs.parts import check_parts
from voicepatch.runs.preflight import CheckFiles, check_engine, check_sounds, run_checks
from voicepatch.runs.recorded import dtype_of, layers_of, recorded_settings, settings_of_answers
from voicepatch.runs.unpatched import answer_rows
from voicepatch.store.directory import Row
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import Dataset
from voicepatch.types.pair import Pair, clips_of
from voicepatch.types.settings import Settings

OnFailure = Callable[[Pair, PairFailed], None]
StopRequested = Callable[[], bool]


class PreparedRun(Protocol):
    """One experiment, ready to run: its recorded settings, and the number of combinations of its options."""

    @property
    def recorded(self) -> Row: ...

    @property
    def n_combinations(self) -> int: ...

    def check(self, pairs: Sequence[Pair], name: str, run: CheckFiles, log: Log) -> None:
        """Run the preflight checks; `UserError`, status 3, when one fails."""

    def records(
        self, pairs: Sequence[Pair], log: Log, on_failure: OnFailure, stop_requested: StopRequested
    ) -> Iterator[list[Row]]:
        """The records of each pair in order; an empty list for a pair that failed, after a call of `on_failure`.

        When `stop_requested()` is true, ends after the pairs that are being computed.
        """


class Executor(Protocol):
    """A loaded model for the experiments of one command; `dtype` is the type of its numbers."""

    @property
    def dtype(self) -> str: ...

    def identity(self) -> dict[str, Any]:
        """`model`, `task`, `prompt` and `labels` as a run records them."""

    def expect(self, hashes: Mapping[Path, str | None]) -> None:
        """Set the sha256 that each clip's file must have, None for a bad clip; another one ends the run."""

    def prepare(
        self, experiment: Intervention, settings: Settings, dataset: Dataset, pairs: Sequence[Pair] = ()
    ) -> PreparedRun:
        """Prepare an experiment; `UserError` for layers or options that do not fit the model or one of `pairs`."""

    def settings_of_answers(self, settings: Settings) -> Row:
        """What a run records of how `answers` are computed."""

    def answers(self, clips: Sequence[Clip], settings: Settings) -> Iterator[Row | PairFailed]:
        """The unpatched answer to each clip in order (`runs.unpatched`), or why there is none."""

    def notes(self) -> Row:
        """What a run records about this executor when an experiment has finished."""


class LocalExecutor:
    """This process and the model that it has loaded."""

    def __init__(self, subject: Subject):
        self.subject, self.dtype = subject, dtype_of(subject)
        self.passed: set[Hashable] = set()  # checks that an earlier experiment of this command passed

    def identity(self) -> dict[str, Any]:
        subject, prompt = self.subject, self.subject.model.prompt
        orders = [asked.model.prompt.text for asked in subject.asked] if len(subject.asked) > 1 else None
        optional = {"span": prompt.span, "date": prompt.date, "orders": orders, "warnings": list(subject.warnings)}
        more = {key: value for key, value in optional.items() if value}
        weights = {"random_weights": subject.random_weights, "adapter": subject.adapter}
        return {
            "model": {
                "name": subject.name,
                "sha256": subject.sha256,
                "n_layers": subject.engine.n_layers,
                "hidden_size": subject.model.llm.config.hidden_size,
                "family": subject.family.name,
                "frames_per_second": subject.family.frames_per_second,
            }
            | {key: value for key, value in weights.items() if value is not None},
            "task": subject.task.identity(),
            "prompt": {
                "system": prompt.system,
                "user": subject.task.asked(),
                "text": prompt.text,
                "tokens_after": token_texts(subject.model.tokenizer, prompt.after),
            }
            | more,
            "labels": {"order": list(subject.task.labels), "token_ids": subject.labels.token_ids},
        }

    def expect(self, hashes: Mapping[Path, str | None]) -> None:
        self.subject.clips.sounds.hashes = hashes

    def prepare(
        self, experiment: Intervention, settings: Settings, dataset: Dataset, pairs: Sequence[Pair] = ()
    ) -> "LocalRun":
        self.subject.clips.sounds.max_seconds = settings.max_seconds
        n_layers, chosen = self.subject.engine.n_layers, settings.layers
        layers = None if chosen is None else layers_of(n_layers, chosen)
        how = {"align_how": settings.align, "seed": settings.seed, "clips": dataset.clips}
        job = make_job(self.subject, experiment, layers, settings.options, **how)
        check_parts(job, pairs)
        return LocalRun(job, settings, dataset, recorded_settings(job, settings), len(job.combinations), self.passed)

    def settings_of_answers(self, settings: Settings) -> Row:
        return settings_of_answers(self.subject, settings)

    def answers(self, clips: Sequence[Clip], settings: Settings) -> Iterator[Row | PairFailed]:
        self.subject.clips.sounds.max_seconds = settings.max_seconds
        return answer_rows(self.subject, clips)

    def notes(self) -> Row:
        return {}


@dataclass(frozen=True)
class LocalRun:
    """A prepared run in this process."""

    job: Job
    settings: Settings
    dataset: Dataset
    recorded: Row
    n_combinations: int
    passed: set[Hashable]

    def check(self, pairs: Sequence[Pair], name: str, run: CheckFiles, log: Log) -> None:
        subject, settings, skip = self.job.subject, self.settings, self.settings.skip_bad_clips
        if self.job.warning:
            log(f"warning: {self.job.warning}")
        check_sounds(subject, clips_of(pairs), name, run, settings, log)
        layers = self.job.layers if self.job.experiment.by_layer else range(subject.engine.n_layers)
        checked = (run.path, self.dataset.source, settings.seed, tuple(layers), skip)
        if checked not in self.passed:
            run_checks(subject, self.dataset, run, settings.seed, layers, log, skip)
            self.passed.add(checked)
        check_engine(self.job, pairs, name, run, log)

    def records(
        self, pairs: Sequence[Pair], log: Log, on_failure: OnFailure, stop_requested: StopRequested
    ) -> Iterator[list[Row]]:
        for records in run_job(self.job, pairs, log, on_failure):
            yield records
            if stop_requested():
                return
