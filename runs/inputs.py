"""Pairs made ready for an intervention, one after the other.

inputs = Inputs(subject, "patch", dataset.clips)
pair_input = inputs.of(pair)                 # the same every time that it is asked for
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from engine.pair_input import ALIGNMENTS, PairInput, align
from engine.subject import Subject
from errors import UserError
from models.opens2s_io import ClipInput
from pairs import Clip, Pair

N_TARGET_CLIPS = 20
N_KEPT = 16  # results of `once` that are held; each may be as large as a clip's recording


@dataclass(frozen=True)
class Inputs:
    """Makes the `PairInput` of any pair of one experiment; `clips` are the data set's, `name` enters the seeds."""

    subject: Subject
    name: str
    clips: Sequence[Clip] = ()
    align_how: str = ALIGNMENTS[0]
    seed: int = 42
    kept: dict[tuple, Any] = field(default_factory=dict)

    def of(self, pair: Pair) -> PairInput:
        """The pair as an intervention gets it."""
        store = self.subject.clips
        aligned = align(store.get(pair.a), store.get(pair.b), self.align_how)
        return PairInput(
            aligned.a,
            aligned.b,
            aligned.a_span,
            aligned.b_span,
            seed=f"{self.seed}:{self.name}:{pair.pair_id}",
            target_clips=partial(self._target_clips, pair),
            once=partial(self._once, (pair.target, pair.a.speaker)),
        )

    def _target_clips(self, pair: Pair) -> list[ClipInput]:
        label = f"{pair.kind}_label"
        peers = [clip for clip in self.clips if getattr(clip, label) == pair.target and clip.speaker == pair.a.speaker]
        if not peers:
            raise UserError(f"pair {pair.pair_id}: no clip with the {label} {pair.target}; pass the data set's clips")
        peers = sorted(peers, key=lambda clip: clip.clip_id)
        drawn = random.Random(f"{self.seed}:{pair.target}:{pair.a.speaker}")
        return [self.subject.clips.get(clip) for clip in drawn.sample(peers, min(N_TARGET_CLIPS, len(peers)))]

    def _once(self, key: tuple, make: Callable[[], Any]) -> Any:
        if key not in self.kept:
            while len(self.kept) >= N_KEPT:
                self.kept.pop(next(iter(self.kept)))
            self.kept[key] = make()
        return self.kept[key]
