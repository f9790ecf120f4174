"""How much does the span matter at all? Noise as large as A's own stream says nothing of B."""

import torch

from interventions.core.registry import intervention


@intervention
def noise(lm, pair, layers, alpha=1.0, scale=1.0):
    """Gaussian noise with the norm of A's own stream replaces the span, position by position.

    scale: norm of the noise, as a multiple of A's own
    """
    generator = torch.Generator().manual_seed(pair.rng.getrandbits(63))
    logits = []
    for group in lm.passes(layers):
        with lm.trace(pair.a, known=(pair.a, pair.a_span.start)):
            for layer in group:
                own = lm.hidden(layer)[:1, pair.a_span]
                random = torch.randn(own.shape, generator=generator).to(own)
                norm = scale * own.norm(dim=-1, keepdim=True)
                lm.branch(layer, pair.a_span, random / random.norm(dim=-1, keepdim=True) * norm, alpha)
            readout = lm.readout().save()
        logits.append(readout)
    return torch.cat(logits)
