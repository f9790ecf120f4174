"""From which layers is the span needed? Later positions cannot attend to it, so they do without words and voice."""

from typing import Literal

import torch

from interventions import intervention
from pairs.controls import each_clip
from voicepatch.errors import BAD_USAGE, UserError


@intervention(minimum={"k": 1}, pairs=each_clip, recipients="own", judged_by="flip_from_base_rate", figures="knockout")
def knockout(
    lm,
    pair,
    layer,
    k=9,
    band: Literal["from", "to", "around"] = "from",
    source: Literal["span", "question"] = "span",
    readers: Literal["after", "question", "last"] = "after",
):
    """The positions after the audio span cannot attend to it at k consecutive layers; there is no donor.

    k: how many consecutive layers, fewer at the ends of the model; 9 as in cross-modal information flow studies
    band: whether they begin at the layer, end there, or lie around it
    source: what cannot be attended to: the audio span or the question
    readers: which positions cannot attend to it: all that follow, the question, or the last one
    """
    blocked = pair.a.span if source == "span" else pair.positions(source)[0]
    there = pair.positions(readers)[0]
    there = slice(max(there.start, blocked.stop), there.stop)
    if there.start >= there.stop:
        raise UserError(f"--readers {readers} --source {source}: no reader stands after what it reads", BAD_USAGE)
    with lm.trace(pair.a):
        for number in lm.band(layer, k, band):
            lm.attention_mask[number][:, there, blocked] = -torch.inf
        logits = lm.logits.save()
    return logits
