"""What would the model answer after each layer, with nothing patched? A logit lens (nostalgebraist 2020)."""

from interventions import intervention
from pairs.controls import each_clip


@intervention(pairs=each_clip, recipients="own", reads_only=True, may_be_noop=True, figures="lens")
def lens(lm, pair, layer):
    """The final norm and the head read the unpatched stream of the readout position after each layer."""
    with lm.trace(pair.a):
        logits = lm.unembed(lm.layers_output[layer][:, -1:]).save()
    return logits
