"""Dose response: does the answer move with the dose, or only when all of B is there (SPEC section 12)?"""

import nnsight
import torch

from interventions.core.registry import intervention


@intervention
def dose(lm, pair, layers, alphas=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)):
    """The main patching at several doses: (1 - alpha) * A + alpha * B, at each of the chosen layers.

    alphas: the doses, each in (0, 1]
    """
    with lm.unpatched(pair.b):
        donor = nnsight.save({layer: lm.hidden(layer)[:, pair.b_span].clone() for layer in layers})
    logits = []
    for alpha in alphas:
        for group in lm.passes(layers):
            with lm.trace(pair.a, known=pair.known(alpha)):
                for layer in group:
                    lm.branch(layer, pair.a_span, donor[layer], alpha)
                readout = lm.readout().save()
            logits.append(readout)
    logits = torch.cat(logits)
    is_base = torch.arange(len(logits)) % (1 + len(layers)) == 0  # A's own readout, once for every dose
    is_base[0] = False
    return logits[~is_base]
