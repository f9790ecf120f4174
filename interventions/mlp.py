"""Does the MLP compute the sound's emotion? The MLP's output over the span is B's, the rest of A's stream stays."""

from typing import Literal

import torch

from interventions import intervention


@intervention
def mlp(lm, pair, layer, alpha=1.0, at: Literal["span", "after", "question", "last"] = "span"):
    """The MLP's output over the audio span is B's; the residual stream that it is added to stays A's.

    at: positions that are written: the audio span, all after it, the question, or the last
    """
    a_at, b_at = pair.positions(at)
    with lm.trace(pair.b):
        donor = pair.resampled(lm.mlps_output[layer][:, b_at], at).save()
    with lm.trace(pair.a):
        output = lm.mlps_output[layer]
        output[:, a_at] = torch.lerp(output[:, a_at], donor, alpha)
        logits = lm.logits.save()
    return logits
