"""Is one head or MLP needed at the readout, where all the others have B's outputs already? Everything but one."""

from interventions import intervention


def added(lm, clip, layer, head):
    """What a head, or the MLP, adds to the residual stream at the readout of a clip's own run, `[1, 1, hidden]`."""
    with lm.trace(clip):
        output = lm.mlps_output[layer] if head == "mlp" else lm.layers[layer].self_attn.o_proj.input
        output = output[:, -1:].save()
    return lm.residual_multiplier * output if head == "mlp" else lm.head_output(layer, head, output)


@intervention(range_of={"head": ("n_heads", "mlp")}, figures="all_but")
def all_but(lm, pair, layer, head):
    """All heads and MLPs of all layers are B's at the readout position, except one, which keeps A's output.

    Later parts are B's too, so none stands in for it: what is lost is what the part writes directly for the answer.
    The stream after the last layer is the sum of all parts, so one write there has the same result as a write of each.
    A model whose blocks normalise a part before they add it, as Gemma 4 does, has no such sum and is refused.

    head: heads that keep A's output, from 0, and mlp
    """
    lm.check_sums()
    theirs, own = added(lm, pair.b, layer, head), added(lm, pair.a, layer, head)
    with lm.trace(pair.b):
        stream = lm.layers_output[lm.n_layers - 1][:, -1:].save()
    with lm.trace(pair.a):
        lm.layers_output[lm.n_layers - 1][:, -1:] = stream.float() - theirs.to(stream.device) + own.to(stream.device)
        logits = lm.logits.save()
    return logits
