"""The mirror image (SPEC section 6): the rate of the positions after the span must rise with depth to B's own."""

from interventions import intervention
from interventions.patch import patch


@intervention(control=True, expected="a rate that rises with depth, to exactly B's own rate at the last layer")
def suffix(lm, pair, layer, alpha=1.0):
    """B's residual stream after the audio span, up to the readout, is written into A's, aligned from the end."""
    return patch(lm, pair, layer, alpha, at="after")
