"""The main experiment (SPEC sections 4 and 5): which layers carry the audio's part of the answer?"""

import nnsight
import torch

from interventions.core.registry import intervention


@intervention
def patch(lm, pair, layers, alpha=1.0):
    """B's residual stream over the audio span is written into A's run, one layer at a time."""
    with lm.unpatched(pair.b):
        donor = nnsight.save({layer: lm.hidden(layer)[:, pair.b_span].clone() for layer in layers})
    logits = []
    for group in lm.passes(layers):  # all layers in one trace, or with --engine stepwise one trace a layer
        with lm.trace(pair.a, known=pair.known(alpha)):
            for layer in group:
                lm.branch(layer, pair.a_span, donor[layer], alpha)
            readout = lm.readout().save()
        logits.append(readout)
    return torch.cat(logits)
