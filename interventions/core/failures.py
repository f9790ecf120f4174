"""What goes wrong with one pair, and when that ends the run.

    failures = Failures(run, "prosody", n_pairs=1000)
    for records in run_pairs(subject, experiment, pairs, failed=failures.note): ...

A number that is not finite, or a clip that cannot be read, gives no record: the pair is listed with the reason.
"""

from collections.abc import Sequence

import torch

from errors import UserError
from interventions.core.rundir import RunDir
from interventions.core.traced import TracedLM
from models.opens2s_io import ClipInput
from pairs import Clip, Pair
from pairs.shown import shown

# Below this distance between the best two labels, in logits, the arithmetic's noise may decide: in bfloat16 the step
# between two logits of 16 to 32 is an eighth.
NEAR_TIE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 0.125}


class PairFailed(UserError):
    """One pair gives no result; the others may."""


class BadClip(PairFailed):
    """A clip's sound cannot be read."""

    def __init__(self, clip: Clip, error: UserError):
        super().__init__(f"clip {shown(clip.clip_id)}: {error}")


class NotFinite(PairFailed):
    """A number that is none: where it was seen first, by clip and layer."""


class Failures:
    """The pairs of one experiment that gave no record, kept in the run directory.

    The run may go on without `max_share` of its pairs; with `skip_bad_clips`, those with an unreadable clip do not
    count.
    """

    def __init__(self, run: RunDir, name: str, n_pairs: int, max_share: float = 0.01, skip_bad_clips: bool = False):
        self._run, self._name, self._n_pairs = run, name, n_pairs
        self._max_share, self._skip_bad_clips = max_share, skip_bad_clips

    def note(self, pair: Pair, error: PairFailed) -> None:
        """List the pair; `UserError` where the clip should stop the run, and when too many pairs have failed."""
        skipped = isinstance(error, BadClip)
        if skipped and not self._skip_bad_clips:
            raise UserError(f"{error} (--on-bad-clip skip leaves its pairs out)")
        self._run.append_failure(self._name, {"pair_id": pair.pair_id, "reason": str(error), "skipped": skipped})
        failed = [row for row in self._run.failures(self._name) if not row["skipped"]]
        if len(failed) > self._max_share * self._n_pairs:
            raise UserError(
                f"{self._name}: {len(failed)} of {self._n_pairs} pairs failed, more than {self._max_share:.2%} "
                f"(--max-failed): {error}; see {self._run.failures_file(self._name)}"
            )


def check_finite(lm: TracedLM, logits: torch.Tensor, heard: Sequence[tuple[Clip, ClipInput]]) -> None:
    """Raise `NotFinite` where readouts `[rows, …]` are not finite, naming the clip of those `heard`, and the layer."""
    bad = ~torch.isfinite(logits).all(dim=1)
    if not bool(bad.any()):
        return
    for clip, inputs in heard:
        place = _first_not_finite(lm, inputs)
        if place:
            raise NotFinite(f"clip {shown(clip.clip_id)}: {place}")
    row = int(bad.nonzero()[0])
    where = f", patched at layer {lm.writes[row - 1].layer}" if 0 < row <= len(lm.writes) else ""
    raise NotFinite(f"clip {shown(heard[0][0].clip_id)}{where}: its readout is not finite")


def _first_not_finite(lm: TracedLM, inputs: ClipInput) -> str:
    if not bool(torch.isfinite(inputs.inputs_embeds).all()):
        return "its audio frames are not finite, as the encoder gives them"
    tape = lm.record(inputs)
    for layer, stream in enumerate(tape.streams):
        if not bool(torch.isfinite(stream).all()):
            return f"its residual stream is not finite from layer {layer} on, in {str(stream.dtype).split('.')[1]}"
    return "" if bool(torch.isfinite(tape.logits).all()) else "its readout is not finite"
