"""At which layers is the span read? Later positions attend to B's keys and values, the span's own stream stays A's."""

from dataclasses import replace
from typing import Literal

import nnsight

from interventions import intervention
from voicepatch.errors import BAD_USAGE, UserError


@intervention(minimum={"k": 1}, figures="reads")
def reads(
    lm,
    pair,
    layer,
    k=9,
    band: Literal["from", "to", "around"] = "from",
    source: Literal["span", "question"] = "span",
    readers: Literal["after", "question", "last"] = "after",
):
    """B's keys and values over the span are read at k consecutive layers, while the span's own stream stays A's.

    If all layers from l on read B, the result is that of `patch` at layer l - 1. One layer alone changes little,
    because the others still read A. Readers other than all that follow take a trace a layer, which is slower.

    k: how many consecutive layers, fewer at the ends of the model; 9 as in cross-modal information flow studies
    band: whether they begin at the layer, end there, or lie around it
    source: whose keys and values are B's: those of the audio span or of the question
    readers: which positions read them: all that follow, the question, or the last one
    """
    layers, (a_at, _), there = lm.band(layer, k, band), pair.positions(source), readers_of(pair, source, readers)
    donor = keys_and_values(lm, pair, layers, source)
    if there.stop <= pair.a.readout_pos:
        return read_by_some(lm, pair, layers, a_at, donor, there)
    with lm.trace(pair.a):
        own = nnsight.save([lm.layers_output[number][:, : there.start] for number in layers])
    with lm.trace(pair.a):
        for number, (keys, values), stream in zip(layers, donor, own, strict=True):
            lm.keys[number][:, a_at] = keys
            lm.values[number][:, a_at] = values
            lm.layers_output[number][:, : there.start] = stream  # all but the readers stay A's
        logits = lm.logits.save()
    return logits


def readers_of(pair, source, readers):
    """The positions that read; `UserError` where none of them stands after what it reads."""
    there, before = pair.positions(readers)[0], pair.positions(source)[0]
    if there.stop <= before.stop:
        raise UserError(f"--readers {readers} --source {source}: no reader stands after what it reads", BAD_USAGE)
    return slice(max(there.start, before.stop), there.stop)


def keys_and_values(lm, pair, layers, source):
    """B's keys and values at its positions `source` in each of the layers, as many as A has there."""
    at = pair.positions(source)[1]
    with lm.trace(pair.b):
        donor = nnsight.save([(lm.keys[number][:, at], lm.values[number][:, at]) for number in layers])
    return [(pair.resampled(keys, source), pair.resampled(values, source)) for keys, values in donor]


def read_by_some(lm, pair, layers, source, donor, readers):
    """The readout of A where the readers attend to the donor's keys and values, and the positions after them do not.

    Keys differ by reader, so two rows of A run side by side: the second has the donor's, and the readers of the first
    get its attention. After each block the second is the first again. What the readers got is then written into A.
    """
    with lm.trace(replace(pair.a, inputs_embeds=pair.a.inputs_embeds.expand(2, -1, -1))):
        attended = nnsight.save([])
        for number, (keys, values) in zip(layers, donor, strict=True):
            lm.keys[number][1:, source] = keys
            lm.values[number][1:, source] = values
            attention = lm.attentions_output[number]
            attended.append(attention[1:, readers].clone())
            attention[:1, readers] = attended[-1]
            stream = lm.layers_output[number]
            stream[1:] = stream[:1]
    with lm.trace(pair.a):
        for number, value in zip(layers, attended, strict=True):
            lm.attentions_output[number][:, readers] = value
        logits = lm.logits.save()
    return logits
