"""The control that must be silent (SPEC section 6): it runs before every experiment, which stops if this one speaks."""

import nnsight
import torch

from interventions.core.registry import intervention
from pairs.controls import with_itself


@intervention(control=True, pairs=with_itself)
def self(lm, pair, layers, alpha=1.0):
    """A's own residual stream is written back into A: no answer may change."""
    with lm.unpatched(pair.a):
        own = nnsight.save({layer: lm.hidden(layer)[:, pair.a_span].clone() for layer in layers})
    logits = []
    for group in lm.passes(layers):
        with lm.trace(pair.a, known=(pair.a, pair.a_span.stop)):
            for layer in group:
                lm.branch(layer, pair.a_span, own[layer], alpha)
            readout = lm.readout().save()
        logits.append(readout)
    return torch.cat(logits)
