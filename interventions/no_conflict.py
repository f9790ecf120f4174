"""What does conflict add (SPEC section 6)? Recipients in which words and voice agree should be harder to move."""

import nnsight
import torch

from interventions.core.registry import intervention
from pairs.controls import without_conflict


@intervention(control=True, pairs=without_conflict)
def no_conflict(lm, pair, layers, alpha=1.0):
    """Only recipients whose semantic and prosody labels agree; everything else as in the main experiment."""
    with lm.unpatched(pair.b):
        donor = nnsight.save({layer: lm.hidden(layer)[:, pair.b_span].clone() for layer in layers})
    logits = []
    for group in lm.passes(layers):
        with lm.trace(pair.a, known=pair.known(alpha)):
            for layer in group:
                lm.branch(layer, pair.a_span, donor[layer], alpha)
            readout = lm.readout().save()
        logits.append(readout)
    return torch.cat(logits)
