"""Is the size of the change enough (SPEC section 6)? A random direction must leave the flips at A's own rate."""

import torch

from interventions import intervention


@intervention(control=True, expected="flips to the target at A's own rate", most_of_main=0.5)
def direction(lm, pair, layer, alpha=1.0):
    """A random Gaussian direction is added to A's stream over the audio span, as large at each position as B - A there.

    The direction is of the pair, the same at every layer.
    """
    generator = torch.Generator().manual_seed(pair.rng.getrandbits(63))
    with lm.trace(pair.b):
        donor = pair.resampled(lm.layers_output[layer][:, pair.b_span]).save()
    with lm.trace(pair.a):
        stream = lm.layers_output[layer]
        own = stream[:, pair.a_span]
        random = torch.randn(own.shape, generator=generator).to(own)
        size = (donor - own).norm(dim=-1, keepdim=True)
        stream[:, pair.a_span] = own + alpha * size * random / random.norm(dim=-1, keepdim=True)
        logits = lm.logits.save()
    return logits
