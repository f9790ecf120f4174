"""Does just any donor do it (SPEC section 6)? The curve must not have the layer structure of the main one."""

import nnsight
import torch

from interventions.core.registry import intervention
from pairs.controls import with_random_donor


@intervention(control=True, pairs=with_random_donor)
def random(lm, pair, layers, alpha=1.0):
    """A random clip donates: another text, another prosody, and neither of its labels the target."""
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
