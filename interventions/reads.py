"""At which layers is the span read? Later positions attend to B's keys and values, the span's own stream stays A's."""

from typing import Literal

import nnsight

from interventions import intervention


@intervention(minimum={"k": 1})
def reads(
    lm,
    pair,
    layer,
    k=9,
    band: Literal["from", "to", "around"] = "from",
    source: Literal["span", "question"] = "span",
    readers: Literal["after", "last"] = "after",
):
    """B's keys and values over the span are read at k consecutive layers, while the span's own stream stays A's.

    Reading at all layers from l on equals `patch` at layer l - 1. One layer alone moves little, since others read the
    same.

    k: how many consecutive layers, fewer at the ends of the model; 9 as in cross-modal information flow studies
    band: whether they begin at the layer, end there, or lie around it
    source: whose keys and values are B's: those of the audio span or of the question
    readers: which positions read them: all that follow, or the last one
    """
    layers, (a_at, b_at) = lm.band(layer, k, band), pair.positions(source)
    others = slice(0, max(a_at.stop, pair.positions(readers)[0].start))
    with lm.trace(pair.b):
        donor = nnsight.save([(lm.keys[number][:, b_at], lm.values[number][:, b_at]) for number in layers])
    with lm.trace(pair.a):
        own = nnsight.save([lm.layers_output[number][:, others] for number in layers])
    with lm.trace(pair.a):
        for number, (keys, values), stream in zip(layers, donor, own, strict=True):
            lm.keys[number][:, a_at] = pair.resampled(keys, source)
            lm.values[number][:, a_at] = pair.resampled(values, source)
            lm.layers_output[number][:, others] = stream  # all but the readers stay A's
        logits = lm.logits.save()
    return logits
