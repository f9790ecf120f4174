"""The starting file that `python cli.py new NAME` writes."""

import keyword
from pathlib import Path

from errors import BAD_USAGE, UserError
from interventions.core.registry import FOLDER, catalogue

TEMPLATE = '''\
"""NAME: say here which question it answers."""

import nnsight
import torch

from interventions import intervention


@intervention
def ATTRIBUTE(lm, pair, layers, alpha=1.0):
    """Say here in one line what is written where; it is the help of `python cli.py NAME`."""
    # pair.a is the recipient, pair.b the donor; pair.a_span and pair.b_span are the audio positions, equally many.
    with lm.unpatched(pair.b):  # B's own run
        donor = nnsight.save({layer: lm.hidden(layer)[:, pair.b_span].clone() for layer in layers})
    logits = []
    for group in lm.passes(layers):  # all layers in one trace, or with --engine stepwise one trace a layer
        # Nothing before A's span is written, so nothing there is computed again; without known= everything is.
        with lm.trace(pair.a, known=(pair.a, pair.a_span.start)):
            for layer in group:  # in the order in which the model runs them
                value = donor[layer]  # [1, positions, hidden]: change it here
                lm.branch(layer, pair.a_span, value, alpha)  # A goes on from here, patched at this layer
            readout = lm.readout().save()  # what is not saved does not outlive the trace
        logits.append(readout)
    return torch.cat(logits)  # A's own readout first, then one row a layer
'''


def write_template(name: str, folder: Path | None = None) -> Path:
    """Write the starting file of an intervention into `folder`, or among the others; `UserError` if it cannot be."""
    attribute = name.replace("-", "_")
    if not attribute.isidentifier() or keyword.iskeyword(attribute) or attribute.startswith("_"):
        raise UserError(f"{name!r} cannot be a name; use letters, digits and -, as in my-idea", BAD_USAGE)
    path = (folder or FOLDER) / f"{attribute}.py"
    if path.exists() or name in catalogue():
        raise UserError(
            f"{name}: there is already an intervention or a file {path.name}; choose another name", BAD_USAGE
        )
    path.write_text(TEMPLATE.replace("ATTRIBUTE", attribute).replace("NAME", name), encoding="utf-8", newline="\n")
    catalogue.cache_clear()
    return path
