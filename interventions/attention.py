"""Does attention bring in the voice? The attention's output over the span is B's, the rest of A's stream stays."""

import torch

from interventions import intervention


@intervention
def attention(lm, pair, layer, alpha=1.0):
    """The attention's output over the audio span is B's; the residual stream that it is added to stays A's."""
    with lm.trace(pair.b):
        donor = pair.resampled(lm.attentions_output[layer][:, pair.b_span]).save()
    with lm.trace(pair.a):
        output = lm.attentions_output[layer]
        output[:, pair.a_span] = torch.lerp(output[:, pair.a_span], donor, alpha)
        logits = lm.logits.save()
    return logits
