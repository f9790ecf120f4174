"""What do heads and MLPs write for which label? Direct logit attribution at the readout, with nothing patched."""

from interventions import intervention
from pairs.controls import each_clip


@intervention(
    pairs=each_clip,
    recipients="own",
    range_of={"head": ("n_heads", "mlp", "embeddings")},
    reads_only=True,
    may_be_noop=True,
    one_order=True,
    figures="direct",
    describes="What each head and MLP adds directly to the answer's logit, at the readout position.",
)
def direct(lm, pair, layer, head):
    """What one head, or the MLP, adds directly to the logits at the readout position: the logits less its part.

    What it adds through later layers is not counted. The embeddings are counted at layer 0.

    head: numbers of the heads, from 0, then mlp and embeddings
    """
    with lm.trace(pair.a):
        added = lm.layers_input[layer][:, -1:].save() if head == "embeddings" else None
        mixed = lm.layers[layer].self_attn.o_proj.input[:, -1:].save()
        added = (lm.residual_multiplier * lm.mlps_output[layer][:, -1:]).save() if head == "mlp" else added
        stream = lm.layers_output[lm.n_layers - 1][:, -1:].save()
        logits = lm.logits.save()
    if head == "embeddings":
        return logits - (layer == 0) * lm.direct(added, stream)
    return logits - lm.direct(added if head == "mlp" else lm.head_output(layer, head, mixed), stream)
