"""Is a direction enough? The difference of B's and A's mean over time is added to the stream."""

from interventions import intervention


@intervention
def steer(lm, pair, layer, scale=1.0):
    """scale * (mean of B's stream over its span - mean of A's) is added at every position of A's span.

    scale: multiple of the difference; 1 gives A the mean of B
    """
    with lm.trace(pair.b):
        donor = lm.layers_output[layer][:, pair.b.span].mean(1).save()
    with lm.trace(pair.a):
        stream = lm.layers_output[layer]
        stream[:, pair.a.span] += scale * (donor - stream[:, pair.a.span].mean(1))
        logits = lm.logits.save()
    return logits
