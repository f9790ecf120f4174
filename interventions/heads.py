"""Which heads are enough for B to override the answer? One head's output at a time is B's."""

import torch

from interventions import intervention


@intervention(range_of={"head": "n_heads"})
def heads(lm, pair, layer, head, alpha=1.0):
    """One head's output over the audio span, its slice of the input of o_proj, is B's.

    head: numbers of the heads, from 0
    """
    columns = slice(head * lm.head_dim, (head + 1) * lm.head_dim)
    with lm.trace(pair.b):
        donor = pair.resampled(lm.layers[layer].self_attn.o_proj.input[:, pair.b_span, columns]).save()
    with lm.trace(pair.a):
        mixed = lm.layers[layer].self_attn.o_proj.input
        mixed[:, pair.a_span, columns] = torch.lerp(mixed[:, pair.a_span, columns], donor, alpha)
        logits = lm.logits.save()
    return logits
