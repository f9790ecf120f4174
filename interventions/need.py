"""Until which layer is A's own span needed? From a layer on, the later positions cannot attend to it."""

import torch

from interventions import intervention
from pairs.controls import clips_in_conflict


@intervention(
    pairs=clips_in_conflict, recipients="own", judged_by="flip_from_base_rate", beside_main=True, figures="need"
)
def need(lm, pair, layer):
    """The positions after the audio span cannot attend to it from the layer on; there is no donor.

    It runs after the main experiment, on those of its clips whose words and voice have different labels, or on all of
    its clips where none has.
    """
    after, _ = pair.positions("after")
    with lm.trace(pair.a):
        for number in range(layer, lm.n_layers):
            lm.attention_mask[number][:, after, pair.a.span] = -torch.inf
        logits = lm.logits.save()
    return logits
