"""Do these heads and MLPs carry the effect together? A set of them is B's at once; `confirm` runs ranked sets."""

from typing import Literal

import nnsight

from interventions import intervention
from voicepatch.errors import BAD_USAGE, UserError


def parts_of(lm, text):
    """The parts that a text names, in the order of computing: heads (layer, number) and MLPs (layer, "mlp")."""
    every = {f"{layer}.{part}": (layer, part) for layer in range(lm.n_layers) for part in (*range(lm.n_heads), "mlp")}
    first, *others = text.split("-" if text.startswith("all") else "+")
    named = [*([first] if first != "all" else []), *others]
    for name in named:
        if name not in every:
            what = f"{name or 'an empty name'} is no head or MLP of the model, such as 0.0 or 0.mlp"
            raise UserError(f"--components {text}: {what}", BAD_USAGE)
        if named.count(name) > 1:
            raise UserError(f"--components {text}: {name} is there twice; name each part once", BAD_USAGE)
    return [
        part for name, part in every.items() if (name not in others if first == "all" else name in (first, *others))
    ]


def place(lm, layer, part):
    """What a part writes: the value, and its columns."""
    if part == "mlp":
        return lm.mlps_output[layer], slice(None)
    return lm.layers[layer].self_attn.o_proj.input, lm.head_columns(layer, part)


@intervention(by_layer=False)
def components(lm, pair, layer, components="all", at: Literal["span", "after", "question", "last"] = "after"):
    """A set of heads and MLPs is B's.

    The set names its layers, so there is one row for all of them, and no --layers.

    components: heads as LAYER.HEAD and MLPs as LAYER.mlp, joined by +; all, or all-5.mlp-6.3 for all but some
    at: positions that are written: the audio span, all after it, the question, or the last
    """
    parts, (a_at, b_at) = parts_of(lm, components), pair.positions(at)
    with lm.trace(pair.b):
        places = [place(lm, *part) for part in parts]
        donor = nnsight.save([pair.resampled(value[:, b_at, columns], at) for value, columns in places])
    with lm.trace(pair.a):
        for part, new in zip(parts, donor, strict=True):
            value, columns = place(lm, *part)
            value[:, a_at, columns] = new
        logits = lm.logits.save()
    return logits
