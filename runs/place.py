"""Where the pairs of an experiment are computed.

    place = Local(load_subject("demo/opens2s-demo"))
    place.expect(dataset.hashes)                                # a clip that has changed ends the run
    task = place.task(load_intervention("patch"), settings, dataset, pairs)
    task.check(pairs, "prosody", run, print)                     # the gates
    for records in task.records(pairs, print, failed, asked): ...

`Local` is this process; `workers.crew` has another place with the same face. Neither writes the records: whoever asks
for them does.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.failures import PairFailed
from engine.subject import Subject
from models.labels import LABELS
from models.speech_lm import PROMPT
from pairs import Clip, Dataset, Pair
from registry.intervention import Intervention
from runs.directory import Row, RunDir
from runs.gates import check_engine, check_sounds, run_checks
from runs.job import Job, make_job
from runs.pair_loop import run_job
from runs.parts import check_parts
from runs.say import Say
from runs.settings import Settings, dtype_of, layers_of, recorded_settings

Failed = Callable[[Pair, PairFailed], None]
Asked = Callable[[], bool]  # whether the run should end


class Task(Protocol):
    """One experiment, ready to run: the settings that are recorded of it, and how many combinations of options."""

    recorded: Row
    n_combinations: int

    def check(self, pairs: Sequence[Pair], name: str, run: RunDir, say: Say) -> None:
        """Pass the gates that come before the first pair; `UserError`, status 3, when a check fails."""

    def records(self, pairs: Sequence[Pair], say: Say, failed: Failed, asked: Asked) -> Iterator[list[Row]]:
        """The records of each pair in order, none for one that `failed` is told of.

        Ends early, after what is being computed, where `asked` to.
        """


class Place(Protocol):
    """A model, wherever it is, for the experiments of one command; `dtype` is the type of its numbers."""

    dtype: str

    def identity(self) -> dict[str, Any]:
        """`model`, `prompt` and `labels` as they are recorded of a run."""

    def expect(self, hashes: Mapping[Path, str | None]) -> None:
        """The sha256 that each clip's file must have when decoded, None for a bad clip; another one ends the run."""

    def task(self, experiment: Intervention, settings: Settings, dataset: Dataset, pairs: Sequence[Pair] = ()) -> Task:
        """Make an experiment ready; `UserError` for layers or options that the model or one of `pairs` has not."""

    def notes(self) -> Row:
        """What is noted of an experiment that ran here."""


class Local:
    """This process and the model that it has loaded."""

    def __init__(self, subject: Subject):
        self.subject, self.dtype = subject, dtype_of(subject)
        self.passed: set[Hashable] = set()  # what the checks on clips have passed already

    def identity(self) -> dict[str, Any]:
        subject, prompt = self.subject, self.subject.model.prompt
        more = {key: value for key, value in (("span", prompt.span), ("date", prompt.date)) if value}
        return {
            "model": {
                "name": subject.name,
                "sha256": subject.sha256,
                "n_layers": subject.engine.n_layers,
                "hidden_size": subject.model.llm.config.hidden_size,
                "family": subject.family.name,
                "frames_per_second": float(subject.family.frames_per_second),
            },
            "prompt": {"system": prompt.system, "user": PROMPT, "text": prompt.text} | more,
            "labels": {"order": list(LABELS), "token_ids": subject.labels.token_ids},
        }

    def expect(self, hashes: Mapping[Path, str | None]) -> None:
        self.subject.clips.hashes = hashes

    def task(
        self, experiment: Intervention, settings: Settings, dataset: Dataset, pairs: Sequence[Pair] = ()
    ) -> "LocalTask":
        self.subject.clips.max_seconds = settings.max_seconds
        layers = layers_of(self.subject.engine.n_layers, settings.layers)
        how = {"align_how": settings.align, "seed": settings.seed, "clips": dataset.clips}
        job = make_job(self.subject, experiment, layers, settings.options, **how)
        check_parts(job, pairs)
        return LocalTask(job, settings, dataset, recorded_settings(job, settings), len(job.combinations), self.passed)

    def notes(self) -> Row:
        return {}


@dataclass(frozen=True)
class LocalTask:
    """An experiment that runs in this process."""

    job: Job
    settings: Settings
    dataset: Dataset
    recorded: Row
    n_combinations: int
    passed: set[Hashable]

    def check(self, pairs: Sequence[Pair], name: str, run: RunDir, say: Say) -> None:
        subject, settings, skip = self.job.subject, self.settings, self.settings.skip_bad_clips
        check_sounds(subject, _clips_of(pairs), name, run, settings, say)
        checked = (run.path, self.dataset.source, settings.seed, tuple(self.job.layers), skip)
        if checked not in self.passed:  # by another experiment of the same command
            run_checks(subject, self.dataset, run, settings.seed, self.job.layers, say, skip)
            self.passed.add(checked)
        check_engine(self.job, pairs, name, run, say)

    def records(self, pairs: Sequence[Pair], say: Say, failed: Failed, asked: Asked) -> Iterator[list[Row]]:
        for records in run_job(self.job, pairs, say, failed):
            yield records
            if asked():
                return


def _clips_of(pairs: Sequence[Pair]) -> list[Clip]:
    return list({clip.clip_id: clip for pair in pairs for clip in (pair.a, pair.b)}.values())
