"""What goes wrong with one pair, and when that ends the run.

    failures = Failures(run, "prosody", n_pairs=1000)
    for records in run_pairs(subject, experiment, pairs, failed=failures.note): ...

A pair that fails gives no record: it is listed with the reason.
"""

import torch

from voicepatch.engine.failures import BadClip, PairFailed
from voicepatch.errors import UserError
from voicepatch.store.directory import RunDir
from voicepatch.types.pair import Pair

# Below this distance between the best two labels, in logits, the arithmetic's noise may decide: in bfloat16 the step
# between two logits of 16 to 32 is an eighth.
NEAR_TIE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 0.125}


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
