"""Is the effect the clip's or the class's? The mean over the target label's clips has no words."""

import torch

from interventions import intervention


def class_mean(lm, clips, layer):
    """Mean residual stream after a block, `[1, longest span, hidden]`, over the clips that reach each position."""
    longest = max(clip.n_audio for clip in clips)
    spans, count = [], torch.zeros(longest, 1)
    for clip in clips:
        with lm.trace(clip):
            span = lm.layers_output[layer][:, clip.span].float().save()
        count[: clip.n_audio] += 1
        spans.append(torch.nn.functional.pad(span, (0, 0, 0, longest - clip.n_audio)))
    return sum(spans) / count.to(spans[0].device)


@intervention
def mean(lm, pair, layer, alpha=1.0):
    """The span is replaced by the mean over clips with the target label, position by position."""
    mean = pair.cached(class_mean, lm, layer)
    length = min(pair.a.n_audio, mean.shape[1])
    span = slice(pair.a.span.start, pair.a.span.start + length)
    with lm.trace(pair.a):
        stream = lm.layers_output[layer]
        stream[:, span] = torch.lerp(stream[:, span], mean[:, :length].to(stream.dtype), alpha)
        logits = lm.logits.save()
    return logits
