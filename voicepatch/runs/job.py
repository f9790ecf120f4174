"""What is computed for each pair, and pairs made ready for it.

job = make_job(subject, experiment, layers=[0, 5], options={"alpha": (0.5, 1.0)}, clips=dataset.clips)
inputs = job.inputs()
pair_input = inputs.of(pair)                 # the same every time that it is asked for
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.engine.clips import Answer, ClipStore
from voicepatch.engine.engine import Readouts
from voicepatch.engine.pair_input import PairInput, align
from voicepatch.engine.positions import n_shared
from voicepatch.engine.subject import Subject
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.models.speech_lm import ClipInput
from voicepatch.registry.intervention import Intervention
from voicepatch.runs.sweep import Values, combinations, option_values
from voicepatch.types.clip import Clip
from voicepatch.types.pair import Pair
from voicepatch.types.setting import option_flag
from voicepatch.types.settings import ALIGNMENTS
from voicepatch.types.task import DONOR_TASK, Task, load_task

N_TARGET_CLIPS = 20
N_CACHED = 16  # targets and speakers whose results of `pair.cached` are held
FLAG = option_flag(DONOR_TASK)


@dataclass(frozen=True)
class Inputs:
    """Makes the `PairInput` of any pair of one experiment; `clips` are the data set's, `name` enters the seeds.

    `donor` asks B another task's question; None asks it A's. `cache` holds the values of `PairInput.cached` by target
    and speaker; None turns caching off.
    """

    subject: Subject
    name: str
    clips: Sequence[Clip] = ()
    align_how: str = ALIGNMENTS[0]
    seed: int = 42
    donor: Subject | None = None
    cache: dict[tuple, dict[Any, Any]] | None = field(default_factory=dict)

    def of(self, pair: Pair, order: int = 0) -> PairInput:
        """The pair as an intervention gets it, in one of the task's prompts."""
        asked, donor = self.subject.asked[order], self.donor or self.subject
        a, b = self.subject.clips.get(pair.a, order=order), donor.clips.get(pair.b, order=order)
        return replace(
            align(a, b, self.align_how),
            a_seconds=self._seconds(pair.a),
            seed=f"{self.seed}:{self.name}:{pair.pair_id}",
            target_clips=partial(self._target_clips, pair, order),
            target=pair.target,
            label_ids=dict(zip(self.subject.task.labels, asked.labels.token_ids, strict=True)),
            question=asked.positions,
            cache=self._cache_of((pair.target, pair.a.speaker, order)),
        )

    def _seconds(self, clip: Clip) -> float:
        """Length of the sound, at most the maximum audio length of the model."""
        most = self.subject.model.max_samples
        return min(self.subject.clips.seconds(clip), math.inf if most is None else most / SAMPLE_RATE)

    def _target_clips(self, pair: Pair, order: int) -> list[ClipInput]:
        label = f"{pair.kind}_label"
        peers = [clip for clip in self.clips if getattr(clip, label) == pair.target and clip.speaker == pair.a.speaker]
        if not peers:
            raise UserError(f"pair {pair.pair_id}: no clip with the {label} {pair.target}; pass the data set's clips")
        peers = sorted(peers, key=lambda clip: clip.clip_id)
        drawn = random.Random(f"{self.seed}:{pair.target}:{pair.a.speaker}")
        drawn_clips = drawn.sample(peers, min(N_TARGET_CLIPS, len(peers)))
        return [self.subject.clips.get(clip, order=order) for clip in drawn_clips]

    def _cache_of(self, key: tuple) -> dict[Any, Any] | None:
        if self.cache is None:
            return None
        while key not in self.cache and len(self.cache) >= N_CACHED:
            self.cache.pop(next(iter(self.cache)))
        return self.cache.setdefault(key, {})


@dataclass(frozen=True)
class Job:
    """An experiment at `layers`, with every combination of the `values` of its options.

    `clips` are the data set's, for experiments that read other clips too. `donor` is the subject that B is run on.
    """

    subject: Subject
    experiment: Intervention
    layers: Sequence[int]
    values: Values
    align_how: str = ALIGNMENTS[0]
    seed: int = 42
    clips: Sequence[Clip] = ()
    donor: Subject | None = None

    @property
    def combinations(self) -> list[dict[str, Any]]:
        """Options of the calls at each layer."""
        return combinations(self.values)

    def inputs(self, keep: bool = True) -> Inputs:
        """What prepares pairs, with an empty cache; without `keep`, `pair.cached` computes every time."""
        cache: dict[tuple, dict[Any, Any]] | None = {} if keep else None
        return Inputs(self.subject, self.experiment.name, self.clips, self.align_how, self.seed, self.donor, cache)

    @contextmanager
    def for_pairs(self, pairs: Sequence[Pair]) -> Iterator[None]:
        """Within it, clips are prepared ahead in the order of `pairs`."""
        with ExitStack() as stack:
            for store in self._stores:
                stack.enter_context(store.for_pairs(pairs))
            yield

    def done(self, pair: Pair) -> None:
        """`pair` is finished: drop what no later pair needs."""
        for store in self._stores:
            store.done(pair)

    @property
    def _stores(self) -> list[ClipStore]:
        return [subject.clips for subject in (self.subject, self.donor) if subject]

    @property
    def warning(self) -> str:
        """What is not exact where B is asked another question; "" where nothing is."""
        prompts = [subject.model.prompt.after for subject in (self.subject, self.donor) if subject]
        n_a, n_b = len(prompts[0]), len(prompts[-1])
        if n_a == n_b:
            return ""
        return (
            f"the prompts have {n_a} and {n_b} tokens after the sound, of which the last "
            f"{n_shared(*prompts)} are the same; values move between positions of different numbers, so take "
            "questions of one length where you can"
        )

    def donor_answer(self, pair: Pair) -> Answer:
        """The answer of B's own, unpatched run."""
        return (self.donor or self.subject).clips.unpatched(pair.b)

    def readouts(self, pair: PairInput) -> Readouts:
        """A pair's readouts, by the subject's engine."""
        return self.subject.engine.readouts(self.experiment, pair, self.layers, self.combinations)

    def as_written(self, pair: PairInput) -> Readouts:
        """The same, run as the experiment is written."""
        return self.subject.engine.as_written(self.experiment, pair, self.layers, self.combinations)


def make_job(
    subject: Subject,
    experiment: Intervention,
    layers: Sequence[int] | None = None,
    options: Mapping[str, Any] | None = None,
    **how: Any,
) -> Job:
    """A job at all layers for None; options that are not given have their defaults."""
    values = option_values(experiment, options or {}, subject)  # refuses what is not an experiment
    if experiment.one_order and subject.task.orders:
        raise UserError(
            f"{experiment.name}: cannot be run with a task whose orders are {subject.task.orders}, because its numbers "
            "are logits and no log-probabilities; take the task without orders",
            BAD_USAGE,
        )
    called = experiment.layers_called(subject.engine.n_layers, layers)
    return Job(subject, experiment, called, values, donor=_donor(subject, values), **how)


def _donor(subject: Subject, values: Values) -> Subject | None:
    """The subject that asks B the question of `donor_task`, for an experiment with that option; else None."""
    if DONOR_TASK not in values:
        return None
    task = donor_task(values[DONOR_TASK])
    if (task.labels, task.n_orders) != (subject.task.labels, subject.task.n_orders):
        raise UserError(
            f"{FLAG} {task.name}: its labels and their order must be those of task {subject.task.name} "
            f"({', '.join(subject.task.labels)}), and so must its orders",
            BAD_USAGE,
        )
    if task.asked() == subject.task.asked():
        raise UserError(f"{FLAG} {task.name}: asks the question of task {subject.task.name}; name another", BAD_USAGE)
    return subject.asking(task)


def donor_task(chosen: Any) -> Task:
    """The task that the option `donor_task` names: one name or file."""
    values = tuple(chosen) if isinstance(chosen, (tuple, list)) else (chosen,)
    if len(values) != 1:
        raise UserError(f"{FLAG} {','.join(values)}: give one task", BAD_USAGE)
    return load_task(values[0], FLAG)
