"""Is the task itself stable (SPEC section 6)? A donor with A's labels should hardly ever change the answer."""

from interventions import intervention
from interventions.patch import patch
from pairs.controls import with_same_labels


@intervention(
    control=True,
    pairs=with_same_labels,
    judged_by="flip_from_base_rate",
    expected="hardly any flips from base",
    most_of_main=0.5,
)
def same_label(lm, pair, layer, alpha=1.0):
    """Another clip with both of A's labels is the donor; what counts is the flip-from-base rate."""
    return patch(lm, pair, layer, alpha)  # pair.b has A's labels
