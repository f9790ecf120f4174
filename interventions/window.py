"""One layer may be too little: the layers after it can restore what the patch took out. So patch several in a row."""

import nnsight
import torch

from interventions import intervention


@intervention(minimum={"k": 1})
def window(lm, pair, layer, alpha=1.0, k=3):
    """The span is patched at k consecutive layers, from `layer` on (fewer at the end of the model).

    With alpha 1 it equals `patch`, because a span that is B's stays B's. Smaller doses differ.

    k: number of consecutive layers
    """
    layers = range(layer, min(layer + k, lm.n_layers))
    with lm.trace(pair.b):
        donor = nnsight.save([pair.resampled(lm.layers_output[at][:, pair.b_span]) for at in layers])
    with lm.trace(pair.a):
        for at, value in zip(layers, donor, strict=True):
            stream = lm.layers_output[at]
            stream[:, pair.a_span] = value if alpha == 1 else torch.lerp(stream[:, pair.a_span], value, alpha)
        logits = lm.logits.save()
    return logits
