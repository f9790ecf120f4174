"""Activation patching, an experiment a file.

Two runs of one model, clip A (recipient) and clip B (donor). At decoder layer l the residual stream of A over the audio
span is replaced with B's, and A's run goes on: `do(activation = B)`. When A's answer becomes B's label, layer l lies on
the causal path from the sound to the answer. An experiment is one function with an nnsight trace in it:

    @intervention(control=True)
    def zeros(lm, pair, layers):
        \"\"\"A's audio span is emptied.\"\"\"
        logits = []
        for group in lm.passes(layers):
            with lm.trace(pair.a, known=(pair.a, pair.a_span.start)):
                for l in group:
                    lm.branch(l, pair.a_span, torch.zeros_like(lm.hidden(l)[:1, pair.a_span]))
                readout = lm.readout().save()
            logits.append(readout)
        return torch.cat(logits)

It gets the traced model, one pair as the model reads it, and the layers; it returns logits
`[1 + n_layers, vocabulary]`, A's own answer first. The function's name is its name on the command line, its docstring
the help, its further parameters (such as `alpha`) the options that it takes. Put the file into this folder and it is
there.
"""

from typing import TYPE_CHECKING, Any

from registry.catalogue import catalogue, load_intervention
from registry.intervention import Intervention, intervention

if TYPE_CHECKING:
    from engine.subject import load_subject
    from runs.pair_loop import run_table

__all__ = ["Intervention", "catalogue", "intervention", "load_intervention", "load_subject", "run_table"]


def __getattr__(name: str) -> Any:
    # These two need torch, which `python cli.py --help` should not wait for.
    if name == "load_subject":
        from engine.subject import load_subject

        return load_subject
    if name == "run_table":
        from runs.pair_loop import run_table

        return run_table
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
