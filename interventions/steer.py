"""Is a direction enough? The difference of B's and A's mean over time is added to the stream."""

from typing import Literal

from interventions import intervention


@intervention
def steer(lm, pair, layer, scale=1.0, at: Literal["span", "after", "question", "last"] = "span"):
    """scale * (mean of B's stream over its span - mean of A's) is added at every position of A's span.

    scale: multiple of the difference; 1 gives A the mean of B
    at: positions that are written: the audio span, all after it, the question, or the last
    """
    a_at, b_at = (pair.a.span, pair.b.span) if at == "span" else pair.positions(at)
    with lm.trace(pair.b):
        donor = lm.layers_output[layer][:, b_at].mean(1).save()
    with lm.trace(pair.a):
        stream = lm.layers_output[layer]
        stream[:, a_at] += scale * (donor - stream[:, a_at].mean(1))
        logits = lm.logits.save()
    return logits
