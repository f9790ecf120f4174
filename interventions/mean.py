"""Is the effect the clip's or the class's? The mean over the target label's clips says no words."""

import nnsight
import torch

from interventions.core.registry import intervention


def class_mean(lm, clips, layers):
    """Mean residual stream `[1, longest span, hidden]` at each layer, over the clips that reach each position."""
    longest = max(clip.n_audio for clip in clips)
    total, count = {}, torch.zeros(longest, 1)
    for clip in clips:
        with lm.unpatched(clip):
            spans = nnsight.save({layer: lm.hidden(layer)[:, clip.span].clone() for layer in layers})
        count[: clip.n_audio] += 1
        for layer, span in spans.items():
            padded = torch.nn.functional.pad(span.float(), (0, 0, 0, longest - clip.n_audio))
            total[layer] = total.get(layer, 0) + padded
    return {layer: (summed / count.to(summed.device)).to(span.dtype) for layer, summed in total.items()}


@intervention
def mean(lm, pair, layers, alpha=1.0):
    """The span is replaced by the mean over clips with the target label, position by position."""
    means = pair.once(lambda: class_mean(lm, pair.target_clips(), layers))
    length = min(pair.a.n_audio, next(iter(means.values())).shape[1])
    span = slice(pair.a.span.start, pair.a.span.start + length)
    logits = []
    for group in lm.passes(layers):
        with lm.trace(pair.a, known=(pair.a, span.start)):
            for layer in group:
                lm.branch(layer, span, means[layer][:, :length], alpha)
            readout = lm.readout().save()
        logits.append(readout)
    return torch.cat(logits)
