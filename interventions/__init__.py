"""Activation patching, an experiment a file.

Two runs of one model, clip A (recipient) and clip B (donor). At decoder layer l the residual stream of A over the audio
span is replaced with B's, and A's run continues: `do(activation = B)`. If A's answer becomes B's label, the content of
the span at layer l has a causal effect on the answer. An experiment is one function for one layer, in plain nnsight:

    @intervention
    def patch(lm, pair, layer, alpha=1.0):
        \"\"\"B's residual stream over the audio span is written into A's run.\"\"\"
        with lm.trace(pair.b):
            donor = pair.resampled(lm.layers_output[layer][:, pair.b_span]).save()
        with lm.trace(pair.a):
            stream = lm.layers_output[layer]
            stream[:, pair.a_span] = torch.lerp(stream[:, pair.a_span], donor, alpha)
            logits = lm.logits.save()
        return logits

It returns the readout of its last trace, `[1, vocabulary]`. The function's name is its command, its docstring is the
help, and its further parameters (such as `alpha`) are its options. A file in this folder is found by the program.
docs/interventions.md describes `lm` and `pair`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import voicepatch
from voicepatch.registry.catalogue import catalogue, load_intervention
from voicepatch.registry.intervention import Intervention, intervention
from voicepatch.registry.sources import register_folder

if TYPE_CHECKING:
    from voicepatch.engine.subject import load_subject
    from voicepatch.runs.pair_loop import run_table

__all__ = ["Intervention", "catalogue", "intervention", "load_intervention", "load_subject", "run_table"]

register_folder(Path(__file__).resolve().parent, __name__)
catalogue.cache_clear()


def __getattr__(name: str) -> Any:
    if name in ("load_subject", "run_table"):  # they need torch, which `python cli.py --help` should not wait for
        return getattr(voicepatch, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
