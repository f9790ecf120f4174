"""One layer may be too little: the layers after it can restore what the patch took out. So patch several in a row."""

import nnsight
import torch

from interventions.core.registry import intervention


@intervention
def window(lm, pair, layers, alpha=1.0, k=3):
    """The span is patched at k consecutive layers, beginning at each of the layers (fewer at the end of the model).

    With a whole span of B (alpha 1) it equals `patch`: a span that is all B stays B. Smaller doses tell them apart.

    k: how many consecutive layers
    """
    with lm.unpatched(pair.b):
        donor = nnsight.save([lm.hidden(layer)[:, pair.b_span].clone() for layer in range(lm.n_layers)])
    logits = []
    for group in lm.passes(layers):
        with lm.trace(pair.a, known=pair.known(alpha)):
            for layer in range(lm.n_layers):
                for began in group:
                    if began < layer < began + k:
                        lm.also(layer, began, pair.a_span, donor[layer], alpha)
                if layer in group:
                    lm.branch(layer, pair.a_span, donor[layer], alpha)
            readout = lm.readout().save()
        logits.append(readout)
    return torch.cat(logits)
