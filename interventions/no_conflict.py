"""What does conflict add (SPEC section 6)? Recipients whose words and voice agree should change less."""

from interventions import intervention
from interventions.patch import patch
from pairs.controls import without_conflict


@intervention(
    control=True,
    pairs=without_conflict,
    recipients="own",
    expected="lower flip-to-target rates overall",
    most_of_main=1.0,
)
def no_conflict(lm, pair, layer, alpha=1.0):
    """Only recipients whose semantic and prosody labels agree; everything else as in the main experiment."""
    return patch(lm, pair, layer, alpha)  # pair.a has labels that agree
