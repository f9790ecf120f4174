"""One layer may be too little: the layers after it can restore what the patch took out. So patch several in a row."""

from typing import Literal

import nnsight
import torch

from interventions import intervention


@intervention(minimum={"k": 1})
def window(lm, pair, layer, alpha=1.0, k=3, at: Literal["span", "after", "question", "last"] = "span"):
    """The span is patched at k consecutive layers, from `layer` on (fewer at the end of the model).

    With alpha 1 it equals `patch`, because a span that is B's stays B's. Smaller doses differ.

    k: number of consecutive layers
    at: positions that are written: the audio span, all after it, the question, or the last
    """
    a_at, b_at = pair.positions(at)
    layers = lm.band(layer, k)
    with lm.trace(pair.b):
        donor = nnsight.save([pair.resampled(lm.layers_output[number][:, b_at], at) for number in layers])
    with lm.trace(pair.a):
        for number, value in zip(layers, donor, strict=True):
            stream = lm.layers_output[number]
            stream[:, a_at] = value if alpha == 1 else torch.lerp(stream[:, a_at], value, alpha)
        logits = lm.logits.save()
    return logits
