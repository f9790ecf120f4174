"""Is the task itself stable (SPEC section 6)? A donor with A's labels should hardly ever change the answer."""

import nnsight
import torch

from interventions.core.registry import intervention
from pairs.controls import with_same_labels


@intervention(control=True, pairs=with_same_labels)
def same_label(lm, pair, layers, alpha=1.0):
    """Another clip with both of A's labels donates; what counts is how often A's answer is left."""
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
