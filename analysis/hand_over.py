"""The hand-over layer, where B written over the span stops overriding A's answer; and where it starts over the suffix.

hand_over(records, pairs, suffix=(suffix_records, suffix_pairs))     # statistics_KIND.json
"""

from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import at_highest_dose, by_cell
from analysis.clusters import RESAMPLES, Mean, limits, limits_of_difference, mean_of
from analysis.rounding import number
from analysis.sharing import Draws, Sharing, codes_of, texts_of

HAND_OVER = (
    "The hand-over layer is the layer, interpolated between the layers patched, at which the rate of flips to the "
    "target first falls below the middle between its value at the first layer patched and A's own rate (how often A "
    "unpatched gives the target). Until about there B's states, written over the span, override A's answer; this does "
    "not show when the information leaves the span. For the suffix, where it was patched, it is the layer at which its "
    "own rate first rises above that same middle."
)
# With fewer, 95 % limits cover the true value in 13 to 100 % of simulated experiments (docs/statistics.md).
LEAST_TEXTS = 6
STEPS = 8  # places looked at between two layers; limits between those are interpolated
Found = dict[str, Any]


def hand_over(
    records: pd.DataFrame,
    pairs: pd.DataFrame,
    suffix: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    seed: int = 42,
    resamples: int = RESAMPLES,
) -> Found:
    """Where the rate of flips falls below half of its height, and (of `suffix`, records and pairs) where that rises.

    `layer`, `low`, `high` (95 %), `reason`, `suffix` with the same four or None, `level` (the rate that is crossed) and
    `definition`, which is HAND_OVER. `layer` is None where there is no such layer, both limits where none can be given;
    `reason` then says why. There is none unless the height, the rate at the first layer less A's own, is above 0 with
    its 95 % interval. One limit is None where it lies beyond the layers patched. At the highest dose, over all pairs.
    Where all pairs agree, the limits are the two layers patched between which they cross.

    The limits enclose the places at which the rate does not differ from the level: Student's interval around their
    difference, which hangs on the same texts, holds 0 there (Fieller 1954, J. R. Statist. Soc. B 16:175).
    """
    experiments = [(records, pairs)] if suffix is None else [(records, pairs), suffix]
    sharing = Sharing.of(codes_of(np.vstack([texts_of(its_pairs) for _, its_pairs in experiments])))
    draws, of_span = Draws(sharing.n_codes, resamples, seed), sharing.part(slice(len(pairs)))
    span = _flips(records, pairs)
    start = span.to_numpy()[:, :1]
    own = 1 - by_cell(at_highest_dose(records), pairs, "eligible").to_numpy()[:, :1]
    levels = (start + own) / 2  # by pair; their mean is the level
    level = np.nanmean(levels)
    places, rates = _between_layers(span)
    means = mean_of(np.hstack([rates - levels, levels, start - own]), of_span, draws)
    gap, middle, height = (means.cells(which) for which in (slice(-2), slice(-2, -1), slice(-1, None)))
    few = are_few(pairs, height)
    if why := no_height(height, few):
        nothing = _nothing(f"at the first layer patched the rate is {why}")
        return nothing | {"suffix": nothing if suffix else None, "level": float(level), "definition": HAND_OVER}

    found = _crossing(span, level, places, *limits(gap, False, np.nan), few, rising=False)
    reached = None
    if suffix is not None:
        behind = _flips(*suffix)
        places, rates = _between_layers(behind)
        one = mean_of(rates, sharing.part(slice(len(pairs), None)), draws)
        low, high = limits_of_difference(one, middle, is_rate=False)
        reached = _crossing(behind, level, places, low, high, few, rising=True)
    return found | {"suffix": reached, "level": float(level), "definition": HAND_OVER}


def are_few(pairs: pd.DataFrame, mean: Mean) -> bool:
    """Whether the pairs with a value have too few texts for an interval: under LEAST_TEXTS, or one in all pairs."""
    return not mean.dof[0] > 0 or len(np.unique(texts_of(pairs)[mean.shares[:, 0] != 0].astype(str))) < LEAST_TEXTS


def no_height(height: Mean, few: bool) -> str | None:
    """Why a curve has no height to lose half of, None where it has one.

    `height` is of the rate at the first layer less A's own. With few texts there is no interval around it, and the
    height itself decides.
    """
    value, (low, high) = height.value[0], (limit[0] for limit in limits(height, False, np.nan))
    if not value > 0:
        return "no higher than A's own rate, so that there is no height to lose half of"
    if few or low > 0:
        return None
    return (
        f"above A's own rate by {100 * value:.1f} percentage points (95 % interval {number(100 * low, '.1f')} to "
        f"{number(100 * high, '.1f')}), so it may not be above that rate at all"
    )


def _flips(records: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    return by_cell(at_highest_dose(records), pairs, "flip_to_target")


def _nothing(reason: str | None, layer: float | None = None) -> Found:
    return {"layer": layer, "low": None, "high": None, "reason": reason}


def _between_layers(flips: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Places from the first to the last layer, and each pair's value there, [pairs, places]."""
    layers, values = flips.columns.to_numpy(float), flips.to_numpy()
    count = np.arange(len(layers), dtype=float)
    at = np.linspace(0, len(layers) - 1, (len(layers) - 1) * STEPS + 1)
    before = np.minimum(at.astype(int), max(len(layers) - 2, 0))
    after, way = np.minimum(before + 1, len(layers) - 1), at - before
    return np.interp(at, count, layers), values[:, before] * (1 - way) + values[:, after] * way


def _crossing(
    flips: pd.DataFrame,
    level: float,
    places: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    few: bool,
    rising: bool,
) -> Found:
    """Where a rate first crosses the level; `low` and `high` are the limits of rate − level at each of the `places`."""
    sign = -1 if rising else 1
    rates, layers = sign * np.nanmean(flips.to_numpy(), axis=0), flips.columns.to_numpy(float)
    at = float(first_below(rates[None], np.array([sign * level]), layers)[0])
    if at == np.inf:
        return _nothing(f"the rate does not {'rise above' if rising else 'fall below'} {level:.3g}")
    if at == -np.inf:
        return _nothing(f"the rate is above {level:.3g} at the first layer patched already")
    if few:
        return _nothing(f"the pairs have fewer than {LEAST_TEXTS} texts, or one that is in all of them", at)
    inside = np.flatnonzero((low <= 0) & (high >= 0))
    if not len(inside) or not np.ptp(places[inside]) > 0:
        # All pairs agree on the two layers. That six texts or more do so while the rate crosses elsewhere happens in
        # at most 2 of 2^6 experiments, so these layers are the limits.
        to = int((rates < sign * level).argmax())
        return _nothing(None, at) | {"low": float(layers[to - 1]), "high": float(layers[to])}
    first, last = inside[[0, -1]]
    reach = np.maximum(low, -high)  # below 0 inside, and 0 at a limit
    start = None if first == 0 else _zero(places, reach, first - 1)
    end = None if last == len(places) - 1 else _zero(places, reach, last)
    return {
        "layer": at,
        "low": start if start is None else min(start, at),
        "high": end if end is None else max(end, at),
        "reason": None,
    }


def _zero(places: np.ndarray, values: np.ndarray, before: int) -> float:
    one, other = values[before], values[before + 1]
    return float(places[before] + (places[before + 1] - places[before]) * one / (one - other))


def first_below(curves: np.ndarray, levels: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """[curves]: where each first falls below its level, between two layers as a straight line.

    ∞ where it never does, -∞ where it is below at the first layer already, NaN without a level.
    """
    below = curves < levels[:, None]
    to, rows = below.argmax(1), np.arange(len(curves))
    before = np.maximum(to - 1, 0)
    start, end = curves[rows, before], curves[rows, to]
    way = np.divide(levels - start, end - start, out=np.ones(len(curves)), where=end != start)
    at = np.where(to > 0, layers[before] + way * (layers[to] - layers[before]), -np.inf)
    at[~below.any(1)] = np.inf
    at[np.isnan(levels)] = np.nan
    return at
