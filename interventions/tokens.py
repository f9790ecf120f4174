"""At which token does the answer stand? One position after the span at a time is B's (Meng et al. 2022)."""

import torch

from interventions import intervention


@intervention(range_of={"token": "n_after"}, figures="tokens")
def tokens(lm, pair, layer, token, alpha=1.0):
    """B's residual stream at one position after the audio span is written into A's run, for each position in turn.

    token: positions after the span, counted from its end
    """
    a_after, b_after = pair.positions("after")
    with lm.trace(pair.b):
        donor = lm.layers_output[layer][:, b_after.start + token].save()
    with lm.trace(pair.a):
        stream = lm.layers_output[layer]
        stream[:, a_after.start + token] = torch.lerp(stream[:, a_after.start + token], donor, alpha)
        logits = lm.logits.save()
    return logits
