"""Is the effect the clip's or the class's? The mean over the target label's clips says no words."""

import nnsight
import torch

from interventions import intervention


def class_means(lm, clips):
    """Mean residual stream after each block, `[1, longest span, hidden]`, over the clips that reach each position."""
    longest = max(clip.n_audio for clip in clips)
    total, count = [0] * lm.n_layers, torch.zeros(longest, 1)
    for clip in clips:
        with lm.trace(clip):
            spans = nnsight.save([lm.layers_output[at][:, clip.span].float() for at in range(lm.n_layers)])
        count[: clip.n_audio] += 1
        padded = [torch.nn.functional.pad(span, (0, 0, 0, longest - clip.n_audio)) for span in spans]
        total = [summed + span for summed, span in zip(total, padded, strict=True)]
    return [summed / count.to(summed.device) for summed in total]


@intervention
def mean(lm, pair, layer, alpha=1.0):
    """The span is replaced by the mean over clips with the target label, position by position."""
    means = pair.once(lambda: class_means(lm, pair.target_clips()))
    length = min(pair.a.n_audio, means[layer].shape[1])
    span = slice(pair.a.span.start, pair.a.span.start + length)
    with lm.trace(pair.a):
        stream = lm.layers_output[layer]
        stream[:, span] = torch.lerp(stream[:, span], means[layer][:, :length].to(stream.dtype), alpha)
        logits = lm.logits.save()
    return logits
