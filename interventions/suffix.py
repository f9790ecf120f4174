"""The mirror image (SPEC section 6): where the span's curve falls, that of the positions after it must rise."""

import nnsight
import torch

from interventions.core.registry import intervention


@intervention(control=True)
def suffix(lm, pair, layers, alpha=1.0):
    """B's residual stream after the audio span, up to the readout, is written into A's, aligned from the end."""
    a_suffix, b_suffix = (slice(clip.span.stop, clip.readout_pos + 1) for clip in (pair.a, pair.b))
    with lm.unpatched(pair.b):
        donor = nnsight.save({layer: lm.hidden(layer)[:, b_suffix].clone() for layer in layers})
    logits = []
    for group in lm.passes(layers):
        with lm.trace(pair.a, known=(pair.a, a_suffix.start)):
            for layer in group:
                lm.branch(layer, a_suffix, donor[layer], alpha)
            readout = lm.readout().save()
        logits.append(readout)
    return torch.cat(logits)
