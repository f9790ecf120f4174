"""The mirror image (SPEC section 6): the rate of the positions after the span must rise with depth to B's own."""

import torch

from interventions import intervention


@intervention(control=True)
def suffix(lm, pair, layer, alpha=1.0):
    """B's residual stream after the audio span, up to the readout, is written into A's, aligned from the end."""
    a_suffix, b_suffix = (slice(clip.span.stop, clip.readout_pos + 1) for clip in (pair.a, pair.b))
    with lm.trace(pair.b):
        donor = lm.layers_output[layer][:, b_suffix].save()
    with lm.trace(pair.a):
        stream = lm.layers_output[layer]
        stream[:, a_suffix] = torch.lerp(stream[:, a_suffix], donor, alpha)
        logits = lm.logits.save()
    return logits
