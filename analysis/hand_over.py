"""The layer at which the answer leaves the span, and the one at which it reaches the suffix.

hand_over(records, pairs, suffix=(suffix_records, suffix_pairs))     # statistics_KIND.json
"""

from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import at_highest_dose, by_cell
from analysis.clusters import RESAMPLES, Mean, Z, codes_of, mean_of, resample, student_t, texts_of

HAND_OVER = (
    "The layer, interpolated between the layers patched, at which the rate of flips to the target first falls below "
    "the middle between its value at the first layer patched and A's own rate, how often A unpatched gives the target; "
    "for the suffix, the layer at which its own rate first rises above that same middle."
)


def hand_over(
    records: pd.DataFrame,
    pairs: pd.DataFrame,
    suffix: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    seed: int = 42,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The layer at which the answer leaves the span, and (of `suffix`, records and pairs) where it reaches the suffix.

    `layer`, `low`, `high` (95 %, percentiles of the resamples), `reason`, `suffix` with the same four or None, `level`
    (the rate that is crossed) and `definition`, which is HAND_OVER. `layer` is None where there is no such layer and
    `reason` then says why; a limit is None where it lies beyond the layers patched or cannot be told, and there is no
    width between the limits where all pairs agree. At the highest dose, over all pairs.
    """
    experiments = [(records, pairs)] if suffix is None else [(records, pairs), suffix]
    codes = codes_of(np.vstack([texts_of(its_pairs) for _, its_pairs in experiments]))
    weights = resample(codes, resamples, seed)
    curves = []
    for (its_records, its_pairs), rows in zip(experiments, (slice(len(pairs)), slice(len(pairs), None)), strict=False):
        flips = by_cell(at_highest_dose(its_records), its_pairs, "flip_to_target")
        curves.append((flips.columns.to_numpy(float), mean_of(flips.to_numpy(), codes[rows], weights[:, rows])))
    was_target = 1 - by_cell(at_highest_dose(records), pairs, "eligible").to_numpy()[:, :1]
    floor, top = mean_of(was_target, codes[: len(pairs)], weights[:, : len(pairs)]), curves[0][1]

    level = (top.value[0] + floor.value[0]) / 2
    tops, floors = top.replicates[:, 0], floor.replicates[:, 0]
    levels = np.where(tops > floors, (tops + floors) / 2, np.nan)
    if top.value[0] > floor.value[0]:
        found = [_crossing(*curve, level, levels, up) for curve, up in zip(curves, (False, True), strict=False)]
    else:
        why = "at the first layer patched the rate is not above A's own rate, so there is no height to lose half of"
        found = [{"layer": None, "low": None, "high": None, "reason": why} for _ in curves]
    return found[0] | {
        "suffix": found[1] if suffix is not None else None,
        "level": float(level),
        "definition": HAND_OVER,
    }


def _crossing(
    layers: np.ndarray, curve: "Mean", level: float, levels: np.ndarray, rising: bool
) -> dict[str, float | str | None]:
    sign = 1 if rising else -1
    nothing = {"layer": None, "low": None, "high": None}
    at = _first_above(sign * curve.value[None], sign * np.array([level]), layers)[0]
    if at == np.inf:
        return nothing | {"reason": f"the rate does not {'rise above' if rising else 'fall below'} {level:.3g}"}
    if at == -np.inf:
        return nothing | {"reason": f"the rate is above {level:.3g} at the first layer patched already"}
    ats = _first_above(sign * curve.replicates, sign * levels, layers)
    ats, undefined = ats[~np.isnan(ats)], np.isnan(ats).mean()
    behind = np.searchsorted(layers, at)
    spread = np.nanstd(curve.replicates[:, behind])
    # As in _mean, and for few texts as Student's t is wider than the normal.
    stretch = curve.error[behind] / spread * student_t(curve.dof[behind]) / Z if spread > 0 else 1.0
    if undefined > 0.05 or not np.isfinite(stretch) or np.isnan(curve.error[behind]):
        return nothing | {"layer": float(at), "reason": None}
    limits = at + stretch * (np.quantile(ats, [0.025, 0.975], method="nearest") - at)
    low, high = (float(np.clip(x, layers[0], layers[-1])) if np.isfinite(x) else None for x in limits)
    return {"layer": float(at), "low": low, "high": high, "reason": None}


def _first_above(curves: np.ndarray, levels: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Where each curve first exceeds its level: −∞ from the beginning, ∞ never, NaN where there is no level."""
    above = curves > levels[:, None]
    to, rows = above.argmax(1), np.arange(len(curves))
    before = np.maximum(to - 1, 0)
    start, end = curves[rows, before], curves[rows, to]
    way = np.divide(levels - start, end - start, out=np.ones(len(curves)), where=end != start)
    at = np.where(to > 0, layers[before] + way * (layers[to] - layers[before]), -np.inf)
    at[~above.any(1)] = np.inf
    at[np.isnan(levels)] = np.nan
    return at
