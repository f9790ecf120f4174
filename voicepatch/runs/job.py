"""What is computed for each pair, and pairs made ready for it.

job = make_job(subject, experiment, layers=[0, 5], options={"alpha": (0.5, 1.0)}, clips=dataset.clips)
inputs = job.inputs()
pair_input = inputs.of(pair)                 # the same every time that it is asked for
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.engine.engine import Readouts
from voicepatch.engine.pair_input import PairInput, align
from voicepatch.engine.subject import Subject
from voicepatch.errors import UserError
from voicepatch.models.speech_lm import ClipInput
from voicepatch.registry.intervention import Intervention
from voicepatch.runs.sweep import Values, combinations, option_values
from voicepatch.types.clip import Clip
from voicepatch.types.pair import Pair
from voicepatch.types.settings import ALIGNMENTS

N_TARGET_CLIPS = 20
N_CACHED = 16  # targets and speakers whose results of `pair.cached` are held


@dataclass(frozen=True)
class Inputs:
    """Makes the `PairInput` of any pair of one experiment; `clips` are the data set's, `name` enters the seeds.

    `cache` holds the values of `PairInput.cached` by target and speaker; None turns caching off.
    """

    subject: Subject
    name: str
    clips: Sequence[Clip] = ()
    align_how: str = ALIGNMENTS[0]
    seed: int = 42
    cache: dict[tuple, dict[Any, Any]] | None = field(default_factory=dict)

    def of(self, pair: Pair) -> PairInput:
        """The pair as an intervention gets it."""
        store = self.subject.clips
        return replace(
            align(store.get(pair.a), store.get(pair.b), self.align_how),
            a_seconds=self._seconds(pair.a),
            seed=f"{self.seed}:{self.name}:{pair.pair_id}",
            target_clips=partial(self._target_clips, pair),
            target=pair.target,
            label_ids=dict(zip(self.subject.task.labels, self.subject.labels.token_ids, strict=True)),
            question=self.subject.question,
            cache=self._cache_of((pair.target, pair.a.speaker)),
        )

    def _seconds(self, clip: Clip) -> float:
        """Length of the sound, at most the maximum audio length of the model."""
        most = self.subject.model.max_samples
        return min(self.subject.clips.seconds(clip), math.inf if most is None else most / SAMPLE_RATE)

    def _target_clips(self, pair: Pair) -> list[ClipInput]:
        label = f"{pair.kind}_label"
        peers = [clip for clip in self.clips if getattr(clip, label) == pair.target and clip.speaker == pair.a.speaker]
        if not peers:
            raise UserError(f"pair {pair.pair_id}: no clip with the {label} {pair.target}; pass the data set's clips")
        peers = sorted(peers, key=lambda clip: clip.clip_id)
        drawn = random.Random(f"{self.seed}:{pair.target}:{pair.a.speaker}")
        return [self.subject.clips.get(clip) for clip in drawn.sample(peers, min(N_TARGET_CLIPS, len(peers)))]

    def _cache_of(self, key: tuple) -> dict[Any, Any] | None:
        if self.cache is None:
            return None
        while key not in self.cache and len(self.cache) >= N_CACHED:
            self.cache.pop(next(iter(self.cache)))
        return self.cache.setdefault(key, {})


@dataclass(frozen=True)
class Job:
    """An experiment at `layers`, with every combination of the `values` of its options.

    `clips` are the data set's, for experiments that read other clips too.
    """

    subject: Subject
    experiment: Intervention
    layers: Sequence[int]
    values: Values
    align_how: str = ALIGNMENTS[0]
    seed: int = 42
    clips: Sequence[Clip] = ()

    @property
    def combinations(self) -> list[dict[str, Any]]:
        """Options of the calls at each layer."""
        return combinations(self.values)

    def inputs(self, keep: bool = True) -> Inputs:
        """What prepares pairs, with an empty cache; without `keep`, `pair.cached` computes every time."""
        cache: dict[tuple, dict[Any, Any]] | None = {} if keep else None
        return Inputs(self.subject, self.experiment.name, self.clips, self.align_how, self.seed, cache)

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
    return Job(subject, experiment, experiment.layers_called(subject.engine.n_layers, layers), values, **how)
