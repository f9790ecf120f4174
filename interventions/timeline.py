"""When in the utterance does the voice count? The span is cut into parts, and one part at a time is B's."""

import torch

from interventions import intervention


@intervention(range_of={"part": "slices"}, figures="timeline")
def timeline(lm, pair, layer, part, slices=10, seconds=0.0, alpha=1.0):
    """B's residual stream over one part of the audio span is written into A's run, for each part in turn.

    part: numbers of the parts, from 0
    slices: number of parts of equal length
    seconds: length of a window about the middle of each part, which is written instead; 0 is the part itself
    """
    a_part, in_span = pair.part(part, slices, seconds)
    with lm.trace(pair.b):
        donor = pair.resampled(lm.layers_output[layer][:, pair.b_span])[:, in_span].save()
    with lm.trace(pair.a):
        stream = lm.layers_output[layer]
        stream[:, a_part] = torch.lerp(stream[:, a_part], donor, alpha)
        logits = lm.logits.save()
    return logits
