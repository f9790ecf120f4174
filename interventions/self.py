"""The control that must be silent (SPEC section 6): it runs before every experiment, which stops if this one speaks."""

from dataclasses import replace

import nnsight
import torch

from interventions.core.registry import intervention


def with_itself(pairs, clips, seed):
    """Each recipient once more, as its own donor."""
    return [replace(pair, pair_id=f"self:{pair.pair_id}", b=pair.a) for pair in pairs]


@intervention(control=True, pairs=with_itself)
def self(lm, pair, layers, alpha=1.0):
    """A's own residual stream is written back into A: no answer may change."""
    with lm.trace(pair.a):
        own = nnsight.save({layer: lm.hidden(layer)[:, pair.a_span].clone() for layer in layers})
    logits = []
    for group in lm.passes(layers):
        with lm.trace(pair.a):
            for layer in group:
                lm.branch(layer, pair.a_span, own[layer], alpha)
            readout = lm.readout().save()
        logits.append(readout)
    return torch.cat(logits)
