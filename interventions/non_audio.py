"""Is it the sound (SPEC section 6)? Positions of the prompt's text must not follow the main curve."""

import torch

from interventions import intervention


def prompt_run(pair):
    """A random run of prompt positions, as long as the span or as the prompt allows: in A, and the same tokens in B.

    It lies before the span (where A and B are equal, so nothing can change) or after it, never at the readout.
    """
    before = range(pair.a.span.start)
    after = range(pair.a.span.stop, pair.a.readout_pos)
    side = pair.rng.choice([side for side in (before, after) if side])
    n = min(pair.n_patched, len(side))
    start = pair.rng.choice(side[: len(side) - n + 1])
    shift = 0 if side is before else pair.b.readout_pos - pair.a.readout_pos
    return slice(start, start + n), slice(start + shift, start + shift + n)


@intervention(
    control=True, may_be_noop=True
)  # a run before the span changes nothing, and few pairs may all draw that side
def non_audio(lm, pair, layer, alpha=1.0):
    """Positions of the prompt's text outside the span are patched instead, the same ones at every layer."""
    a_run, b_run = prompt_run(pair)
    with lm.trace(pair.b):
        donor = lm.layers_output[layer][:, b_run].save()
    with lm.trace(pair.a):
        stream = lm.layers_output[layer]
        stream[:, a_run] = torch.lerp(stream[:, a_run], donor, alpha)
        logits = lm.logits.save()
    return logits
