"""The main experiment (SPEC sections 4 and 5): until which layer does B, written over the span, override the answer?"""

from typing import Literal

import torch

from interventions import intervention


@intervention(main=True)
def patch(lm, pair, layer, alpha=1.0, at: Literal["span", "after", "question", "last"] = "span"):
    """B's residual stream over the audio span is written into A's run.

    alpha: the dose; (1 - alpha) * A + alpha * B is written
    at: positions that are written: the audio span, all after it, the question, or the last
    """
    a_at, b_at = pair.positions(at)
    with lm.trace(pair.b):
        donor = pair.resampled(lm.layers_output[layer][:, b_at], at).save()
    with lm.trace(pair.a):
        stream = lm.layers_output[layer]
        stream[:, a_at] = torch.lerp(stream[:, a_at], donor, alpha)
        logits = lm.logits.save()
    return logits
