"""Readouts that are no logits: probabilities, or their logarithms.

refuse_probabilities(experiment, base, logits)
"""

from collections.abc import Sequence

import torch

from voicepatch.engine.mistakes import place_of
from voicepatch.errors import UserError
from voicepatch.registry.intervention import Intervention

TOLERANCE = 1e-3  # of a sum in the model's own numbers


def refuse_probabilities(experiment: Intervention, base: torch.Tensor, readouts: Sequence[torch.Tensor]) -> None:
    """Raise `UserError` where every readout `[1, vocabulary]` is a softmax or log-softmax.

    Differences are taken between them and A's own logits `base`. Logits may by chance be normalised as log-softmax is;
    those of a model that always gives such ones are taken as they are.
    """
    rows = torch.cat([readout.float() for readout in readouts])
    if bool(((rows >= 0).all(1) & ((rows.sum(1) - 1).abs() < TOLERANCE)).all()):
        what, way_out = "probabilities", "softmax"
    elif _is_log_softmax(rows) and not _is_log_softmax(base):
        what, way_out = "logarithms of probabilities", "log_softmax"
    else:
        return
    raise UserError(
        f"{place_of(experiment)}: {experiment.name} returned {what}, not logits; return lm.logits as it was saved, "
        f"without {way_out}"
    )


def _is_log_softmax(rows: torch.Tensor) -> bool:
    return bool((rows.float().logsumexp(1).abs() < TOLERANCE).all())
