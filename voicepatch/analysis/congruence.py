"""Semantic pairs whose shared voice is the target: a flip there may be the voice's, not that of B's words.

    is_congruent_in(pairs)               # [pairs], True where it is so
    without(records, pairs, left_out)    # what contrasts and hand-over layers are computed from

`types.pair.is_congruent` decides for one pair and for a table of them.
"""

import numpy as np
import pandas as pd

from voicepatch.types.pair import is_congruent

NONE_LEFT = "in all semantic pairs the shared voice is the target, so that a flip may be the voice's"


def is_congruent_in(pairs: pd.DataFrame) -> np.ndarray:
    """Whether each pair of a main experiment is congruent."""
    return is_congruent(pairs["kind"], pairs["prosody_label_a"], pairs["target"]).to_numpy(bool)


def without(records: pd.DataFrame, pairs: pd.DataFrame, left_out: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The records and the pairs without those `left_out`; the same tables where there are none."""
    if not left_out.any():
        return records, pairs
    left = pairs[~left_out]
    return records[records["pair_id"].isin(set(left["pair_id"]))], left


def note(congruent: np.ndarray) -> str:
    """Both counts in one line; "" where no pair is congruent."""
    n, n_congruent = len(congruent), int(congruent.sum())
    if not n_congruent:
        return ""
    return (
        f"{n - n_congruent} of {n} semantic pairs are compared; in the other {n_congruent} the shared voice is the "
        "target, so their flips may be the voice's"
    )
