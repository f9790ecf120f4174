"""Is it the sound (SPEC section 6)? As many positions of the prompt's text must not follow the main curve."""

import nnsight
import torch

from interventions.core.registry import intervention


def prompt_run(pair):
    """A random run of as many prompt positions as the span has, or as there are: in A, and the same tokens in B.

    It lies before the span (where A and B are alike, so that nothing can happen) or after it, never at the readout.
    """
    before = range(pair.a.span.start)
    after = range(pair.a.span.stop, pair.a.readout_pos)
    side = pair.rng.choice([side for side in (before, after) if side])
    n = min(pair.n_patched, len(side))
    start = pair.rng.choice(side[: len(side) - n + 1])
    shift = 0 if side is before else pair.b.readout_pos - pair.a.readout_pos
    return slice(start, start + n), slice(start + shift, start + shift + n)


@intervention(control=True)
def non_audio(lm, pair, layers, alpha=1.0):
    """Positions of the prompt's text outside the span are patched instead, the same ones at every layer."""
    a_run, b_run = prompt_run(pair)
    with lm.unpatched(pair.b):
        donor = nnsight.save({layer: lm.hidden(layer)[:, b_run].clone() for layer in layers})
    logits = []
    for group in lm.passes(layers):
        with lm.trace(pair.a, known=(pair.a, a_run.start)):
            for layer in group:
                lm.branch(layer, a_run, donor[layer], alpha)
            readout = lm.readout().save()
        logits.append(readout)
    return torch.cat(logits)
