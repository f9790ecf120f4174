"""Which heads and MLPs would matter? Estimates for all of them from one gradient (attribution patching, Nanda 2023)."""

from typing import Literal

from interventions import intervention


def part(lm, layer, head):
    """What a head adds to what attention mixes, or what the MLP adds to the stream: `[1, T, width]`."""
    if head == "mlp":
        return lm.mlps_output[layer]
    return lm.layers[layer].self_attn.o_proj.input[..., lm.head_columns(layer, head)]


@intervention(range_of={"head": ("n_heads", "mlp")}, approximate=True, may_be_noop=True, figures="heads")
def attribution(lm, pair, layer, head, at: Literal["span", "after", "question", "last"] = "after"):
    """An estimate of how the logits would change if one head's, or the MLP's, output were B's.

    It is to first order: (B's - A's) * gradient, summed over positions. It is poor where attention is saturated, and
    where direct and indirect effects cancel. The residual stream is not offered, because its estimates follow the exact
    patch too little (correlation 0.3 to 0.5 on the demo).

    head: numbers of the heads, from 0, and mlp
    at: positions that are written: the audio span, all after it, the question, or the last
    """
    a_at, b_at = pair.positions(at)
    labels = list(pair.label_ids.values())
    with lm.trace(pair.b):
        donor = pair.resampled(part(lm, layer, head)[:, b_at], at).save()
    with lm.trace(pair.a):
        own = part(lm, layer, head)[:, a_at].save()
        logits = lm.logits.save()
    gradient = part(lm.gradient(pair.a, labels), layer, head)[:, a_at]
    logits[0, labels] += ((donor - own) * gradient).sum((1, 2)).to(logits)
    return logits
