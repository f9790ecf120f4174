"""Do the parts that rank highest carry the effect, and do the others without them? `confirm` chooses the sets."""

from typing import Literal

from interventions import intervention
from interventions.components import components as patched
from pairs.controls import of_other_texts


@intervention(pairs=of_other_texts, recipients="own", minimum={"top": 1, "draws": 1}, by_layer=False, figures="ranked")
def ranked(
    lm,
    pair,
    layer,
    components="all",
    at: Literal["span", "after", "question", "last"] = "after",
    top=10,
    draws=5,
):
    """A set of heads and MLPs that were ranked on the other half of the texts is B's.

    components: the sets, which `confirm` chooses
    at: positions that are written: the audio span, all after it, the question, or the last
    top: number of ranked parts, which the figure needs
    draws: number of random sets of each size, which the figure needs
    """
    return patched(lm, pair, layer, components, at)
