"""Does any donor have the same effect (SPEC section 6)? The curve must not have the layer structure of the main one."""

from interventions import intervention
from interventions.patch import patch
from pairs.controls import with_random_donor


@intervention(
    control=True, pairs=with_random_donor, expected="no layer structure like the main curve's", most_of_main=0.5
)
def random(lm, pair, layer, alpha=1.0):
    """A random clip is the donor: another text, another prosody, and neither of its labels the target."""
    return patch(lm, pair, layer, alpha)  # pair.b is the random clip
