"""The control that must be silent (SPEC section 6): it runs before every experiment, which stops if this one speaks."""

from interventions import intervention
from interventions.patch import patch
from pairs.controls import with_itself


@intervention(control=True, pairs=with_itself, silent=True)
def self(lm, pair, layer, alpha=1.0):
    """A's own residual stream is written back into A: no answer may change."""
    return patch(lm, pair, layer, alpha)  # pair.b is A
