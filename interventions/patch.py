"""The main experiment (SPEC sections 4 and 5): until which layer does B, written over the span, override the answer?"""

import torch

from interventions import intervention


@intervention(main=True)
def patch(lm, pair, layer, alpha=1.0):
    """B's residual stream over the audio span is written into A's run.

    alpha: the dose; (1 - alpha) * A + alpha * B is written
    """
    with lm.trace(pair.b):
        donor = pair.resampled(lm.layers_output[layer][:, pair.b_span]).save()
    with lm.trace(pair.a):
        stream = lm.layers_output[layer]
        stream[:, pair.a_span] = torch.lerp(stream[:, pair.a_span], donor, alpha)
        logits = lm.logits.save()
    return logits
