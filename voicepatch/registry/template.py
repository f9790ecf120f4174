"""The starting file that `python cli.py new NAME` writes."""

import keyword
import os
import sys
from pathlib import Path

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.files import write_whole
from voicepatch.registry.catalogue import catalogue, find
from voicepatch.registry.intervention import command_name
from voicepatch.registry.sources import MODULES, folders

TEMPLATE = '''\
"""NAME: say here which question it answers."""

import torch

from interventions import intervention


@intervention
def ATTRIBUTE(lm, pair, layer, alpha=1.0):
    """Say here in one line what is written where; it is the help of `python cli.py NAME`."""
    # Runs for each pair and layer. pair.a is the recipient's clip, pair.b the donor's; pair.a_span and pair.b_span
    # are the positions of their audio that meet. A trace's body uses the model's layers in the order they run.
    with lm.trace(pair.b):  # B's own run; of a trace only what is .save()d can be used after it
        donor = pair.resampled(lm.layers_output[layer][:, pair.b_span]).save()  # [1, positions of A, hidden]
    value = donor  # what is written: change it here
    with lm.trace(pair.a):  # A's run, which goes on from the layer with what is written there
        stream = lm.layers_output[layer]  # the residual stream after the block
        stream[:, pair.a_span] = torch.lerp(stream[:, pair.a_span], value, alpha)
        logits = lm.logits.save()
    return logits  # the readout, [1, vocabulary]
'''
NAMES_IN_IT = ("torch", "intervention")


def write_template(name: str, folder: Path | None = None) -> Path:
    """Write the starting file of an experiment into `folder`, or beside the others; `UserError` for an invalid name."""
    attribute = name.replace("-", "_")
    if not attribute.isidentifier() or keyword.iskeyword(attribute) or attribute.startswith("_"):
        raise UserError(f"{name!r} cannot be a name; use letters, digits and -, as in my-idea", BAD_USAGE)
    registered, package = next(iter(folders().items()))
    path = (folder or registered) / f"{attribute}.py"
    if attribute in MODULES | set(
        sys.modules[package].__all__
    ):  # an import of it would find the new file, or the other way
        raise UserError(f"{name}: is a module or a function of the program; choose another name", BAD_USAGE)
    if os.path.lexists(path) or find(name) or attribute in NAMES_IN_IT:
        raise UserError(
            f"{name}: there is already an intervention or a file {path.name}; choose another name", BAD_USAGE
        )
    text = TEMPLATE.replace("ATTRIBUTE", attribute).replace("NAME", command_name(attribute))
    write_whole(path, text, "--in")
    catalogue.cache_clear()
    return path
