"""The control that must change nothing (SPEC section 6). A check before each run does the same."""

from interventions import intervention
from interventions.patch import patch
from pairs.controls import with_itself


@intervention(
    control=True,
    pairs=with_itself,
    judged_by="flip_from_base_rate",
    must_change_nothing=True,
    may_be_noop=True,
    named_by_kind=False,
    expected="no answer changes at any layer",
)
def self(lm, pair, layer, alpha=1.0):
    """A's own residual stream is written back into A: no answer may change."""
    return patch(lm, pair, layer, alpha)  # pair.b is A
