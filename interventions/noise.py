"""How much does the span matter at all? Noise as large as A's own stream has nothing of B."""

from typing import Literal

import torch

from interventions import intervention


@intervention(minimum={"scale": 0}, judged_by="flip_from_base_rate")
def noise(lm, pair, layer, alpha=1.0, scale=1.0, at: Literal["span", "after", "question", "last"] = "span"):
    """Gaussian noise with the norm of A's own stream replaces the span, position by position; the same at every layer.

    scale: norm of the noise, as a multiple of A's own
    at: positions that are written: the audio span, all after it, the question, or the last
    """
    a_at, _ = pair.positions(at)
    generator = torch.Generator().manual_seed(pair.rng.getrandbits(63))
    with lm.trace(pair.a):
        stream = lm.layers_output[layer]
        own = stream[:, a_at]
        random = torch.randn(own.shape, generator=generator).to(own)
        as_large = random * (scale * own.norm(dim=-1, keepdim=True) / random.norm(dim=-1, keepdim=True))
        stream[:, a_at] = torch.lerp(own, as_large, alpha)
        logits = lm.logits.save()
    return logits
