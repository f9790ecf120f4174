"""Which heads are enough for B to override the answer? One head's output at a time is B's."""

from typing import Literal

import torch

from interventions import intervention


@intervention(range_of={"head": "n_heads"}, figures="heads")
def heads(lm, pair, layer, head, alpha=1.0, at: Literal["span", "after", "question", "last"] = "span"):
    """One head's output over the audio span is B's: its slice of the input of o_proj.

    head: numbers of the heads, from 0
    at: positions that are written: the audio span, all after it, the question, or the last
    """
    a_at, b_at = pair.positions(at)
    columns = lm.head_columns(layer, head)
    with lm.trace(pair.b):
        donor = pair.resampled(lm.layers[layer].self_attn.o_proj.input[:, b_at, columns], at).save()
    with lm.trace(pair.a):
        mixed = lm.layers[layer].self_attn.o_proj.input
        mixed[:, a_at, columns] = torch.lerp(mixed[:, a_at, columns], donor, alpha)
        logits = lm.logits.save()
    return logits
