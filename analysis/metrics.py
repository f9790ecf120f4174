"""One row a cell, a layer and the values of the swept options, out of one record a (pair, cell) (SPEC sections 5, 8).

    layer_metrics(records)                           # patching_metrics_prosody.csv

Everything is computed from what the records hold, so a run can be summarised again without its model.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import DOSE, swept_columns
from analysis.logits import matrix
from analysis.sites import BLOCK_OUTPUT
from models.labels import LABELS
from runs.columns import METRICS

# Below this many logits between B's and A's margin a recovery is noise divided by noise; such pairs are left out.
MIN_MARGIN_GAP = 1.0
# Logits; for a run whose configuration has no `near_tie_margin`. Float32 on another device moves a logit by less.
NEAR_TIE_MARGIN = 1e-3
# Of these controls nothing may change, so what counts is every flip from the base prediction.
SILENT = ("self", "same-label")


def main_rate(intervention: str) -> str:
    """The column of the metrics that an intervention is judged by."""
    return "flip_from_base_rate" if intervention in SILENT else "flip_to_target_rate"


def near_tie_margin(settings: dict[str, Any]) -> float:
    """How far apart, in logits, an experiment's best two labels must be for its answer to stand out from noise."""
    return settings.get("near_tie_margin", NEAR_TIE_MARGIN)


def near_ties(logits: pd.Series, margin: float) -> np.ndarray:
    """Whether the best two labels of each row are equal, or less than `margin` logits apart."""
    values = np.sort(matrix(logits), axis=1)
    apart = values[:, -1] - values[:, -2]
    return (apart < margin) | (apart == 0)


def layer_metrics(
    records: pd.DataFrame, margin: float = NEAR_TIE_MARGIN, swept: Sequence[str] | None = None
) -> pd.DataFrame:
    """Rates and means by cell: layer and the `swept` columns, or the dose alone where they are not told.

    `flip_to_target_rate` and `flip_from_base_rate` are over all pairs, `…_eligible` over those whose unpatched answer
    is not the target. Logit differences are target − A's own answer, over eligible pairs; `normalised_recovery_mean` is
    (m_patch − m_A) / (m_B − m_A) over the `recovery_n` of them with |m_B − m_A| of at least 1 logit. KL is of B's 5-way
    distribution from the patched one, in nats. `near_tie_count` is of patched answers whose best two labels are less
    than `margin` logits apart.
    """
    frame = records.assign(**derived(records), near_tie=near_ties(records["logits_patch"], margin))
    if "site" not in frame:
        frame["site"] = BLOCK_OUTPUT
    by = ["layer", *(swept_columns({}, records) if swept is None else swept)]
    eligible, cells = frame[frame["eligible"]].groupby(by), frame.groupby(by)
    table = pd.DataFrame(
        {
            "n_pairs": cells.size(),
            "eligible_count": cells["eligible"].sum(),
            "flip_to_target_rate": cells["flip_to_target"].mean(),
            "flip_from_base_rate": cells["flip_from_base"].mean(),
            "delta_logit_target_mean": cells["delta_logit_target"].mean(),
            "delta_logit_target_q25": cells["delta_logit_target"].quantile(0.25),
            "delta_logit_target_q75": cells["delta_logit_target"].quantile(0.75),
            "flip_to_target_rate_eligible": eligible["flip_to_target"].mean(),
            "base_is_target_rate": 1 - cells["eligible"].mean(),
            "donor_is_target_rate": cells["donor_is_target"].mean(),
            "to_donor_semantic_rate": cells["to_donor_semantic"].mean(),
            "to_donor_prosody_rate": cells["to_donor_prosody"].mean(),
            "logit_diff_mean": eligible["margin_patch"].mean(),
            "normalised_recovery_mean": eligible["recovery"].mean(),
            "recovery_n": eligible["recovery"].count(),
            "kl_to_donor_mean": cells["kl_to_donor"].mean(),
            "label_mass_patch_mean": cells["label_mass_patch"].mean(),
            "stream_shift_mean": cells["stream_shift"].mean(),
        }
    )
    table = table.fillna({"recovery_n": 0}).astype({"recovery_n": int})
    if DOSE not in by:
        table[DOSE] = cells[DOSE].first()
    table["near_tie_count"] = cells["near_tie"].sum()
    table["site"] = cells["site"].agg(lambda sites: " + ".join(dict.fromkeys(sites)))
    table = table.reset_index()
    behind = [name for name in by if name != "layer"]  # the columns whose order is fixed come first
    return table[[*(name for name in METRICS if name not in behind), *behind]]


def derived(records: pd.DataFrame) -> dict[str, np.ndarray]:
    """What follows from each record's logits, as arrays in the records' order.

    `margin_patch` is target − A's own answer after patching, in logits; `recovery` its way from A's to B's, NaN where
    that way is shorter than `MIN_MARGIN_GAP`; `kl_to_donor` is in nats; the others are true or false.
    """
    base, patch, donor = (matrix(records[f"logits_{which}"]) for which in ("base", "patch", "donor"))
    rows = np.arange(len(records))
    target = records["target"].map(LABELS.index).to_numpy()
    answer = records["pred_base"].map(LABELS.index).to_numpy()

    def margin(logits: np.ndarray) -> np.ndarray:
        return logits[rows, target] - logits[rows, answer]

    gap = margin(donor) - margin(base)
    gap[np.abs(gap) < MIN_MARGIN_GAP] = np.nan
    log_donor, log_patch = _log_softmax(donor), _log_softmax(patch)
    return {
        "donor_is_target": donor.argmax(1) == target,
        "to_donor_semantic": (records["pred_patch"] == records["semantic_label_b"]).to_numpy(),
        "to_donor_prosody": (records["pred_patch"] == records["prosody_label_b"]).to_numpy(),
        "margin_patch": margin(patch),
        "recovery": (margin(patch) - margin(base)) / gap,
        "kl_to_donor": (np.exp(log_donor) * (log_donor - log_patch)).sum(1),
    }


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
