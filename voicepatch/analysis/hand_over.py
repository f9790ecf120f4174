"""The hand-over layer, where B's states over the span stop overriding A's answer; and where the suffix starts to.

hand_over(records, pairs, suffix=(suffix_records, suffix_pairs))     # statistics_KIND.json
curve_of(records, pairs, sample_of(pairs))                           # the same curve for its area
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from voicepatch.analysis.areas import Falling, no_height
from voicepatch.analysis.cells import at_highest_dose, by_cell
from voicepatch.analysis.clusters import RESAMPLES, limits, limits_of_difference, mean_of
from voicepatch.analysis.samples import Sample, sample_of, too_few_texts
from voicepatch.analysis.sharing import Draws, texts_of

HAND_OVER = (
    "The hand-over layer is the layer, interpolated between the layers patched, at which the rate of flips to the "
    "target first falls below the middle between its value at the first layer patched and A's own rate (how often A "
    "unpatched gives the target). Until about there B's states, written over the span, override A's answer; this does "
    "not show when the information leaves the span. For the suffix, where it was patched, it is the layer at which its "
    "own rate first rises above that same middle."
)
STEPS = 8  # points looked at between two layers; limits between those are interpolated
HandOver = dict[str, Any]


def hand_over(
    records: pd.DataFrame,
    pairs: pd.DataFrame,
    suffix: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    seed: int = 42,
    resamples: int = RESAMPLES,
    floor: str = "A's own rate",
) -> HandOver:
    """Where the rate of flips falls below half of its height, and where that of `suffix` (records, pairs) rises.

    `layer`, `low`, `high` (95 %), `reason`, `suffix` with the same four or None, `level` (the rate that is crossed) and
    `definition`. There is no layer unless the height, the rate at the first layer less A's own, is above 0 with its
    95 % interval; `reason` says why there is no layer, or are no limits. One limit is None where it lies outside the
    layers patched. At the highest dose. Where all pairs agree, the limits are the layers between which they cross.

    The limits enclose the points where the interval of (rate − level) contains 0 (Fieller 1954, JRSS B 16:175).
    """
    flips, own = _flips_and_own(records, pairs)
    levels = (flips.to_numpy()[:, :1] + own) / 2  # of each pair
    level = np.nanmean(levels)
    if why := no_height(replace(curve_of(records, pairs, sample_of(pairs), eligible=False), floor_name=floor)):
        nothing = _nothing(f"the rate {why}")
        return nothing | {"suffix": nothing if suffix else None, "level": float(level), "definition": HAND_OVER}
    sharing = sample_of(*([pairs] if suffix is None else [pairs, suffix[1]])).sharing
    draws = Draws(sharing.n_codes, resamples, seed)
    of_span, of_suffix = sharing.split(len(pairs))
    points, rates = _between_layers(flips)
    means = mean_of(np.hstack([rates - levels, levels]), of_span, draws)
    gap, middle = means.cells(slice(-1)), means.cells(slice(-1, None))
    few = too_few_texts(texts_of(pairs)[middle.shares[:, 0] != 0])
    found = _with_limits(flips, level, points, *limits(gap, is_rate=False), few, rising=False)
    if suffix is None:
        return found | {"suffix": None, "level": float(level), "definition": HAND_OVER}
    after, _ = _flips_and_own(*suffix)
    points, rates = _between_layers(after)
    low, high = limits_of_difference(mean_of(rates, of_suffix, draws), middle, is_rate=False)
    where_it_rises = _with_limits(after, level, points, low, high, few, rising=True)
    return found | {"suffix": where_it_rises, "level": float(level), "definition": HAND_OVER}


def no_hand_over(reason: str) -> HandOver:
    """What `hand_over` gives where there are no pairs to compute it from."""
    return _nothing(reason) | {"suffix": None, "level": None, "definition": HAND_OVER}


def curve_of(records: pd.DataFrame, pairs: pd.DataFrame, sample: Sample, eligible: bool, depth: float = 1.0) -> Falling:
    """The rate of flips to the target above A's own rate, over all or over the `eligible` pairs, for its area.

    `sample` is of the `pairs`; `depth` divides the layers. At the highest dose.
    """
    flips, own = _flips_and_own(records, pairs)
    values = np.where(own == 0, flips, np.nan) if eligible else flips.to_numpy()
    layers = flips.columns.to_numpy(float) / depth
    return Falling(layers, values, own[:, 0], sample.texts, sample.speakers, floor_name="A's own rate")


def first_below(curves: np.ndarray, levels: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """[curves]: where each first falls below its level, on a straight line between two layers.

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


def _flips_and_own(records: pd.DataFrame, pairs: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Flips to the target, [pairs, layers], and whether A's own answer is the target, [pairs, 1]; NaN where missing."""
    records = at_highest_dose(records)
    return by_cell(records, pairs, "flip_to_target"), 1 - by_cell(records, pairs, "eligible").to_numpy()[:, :1]


def _nothing(reason: str | None, layer: float | None = None) -> HandOver:
    return {"layer": layer, "low": None, "high": None, "reason": reason}


def _between_layers(flips: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Points from the first to the last layer, and the interpolated value of each pair there, [pairs, points]."""
    layers, values = flips.columns.to_numpy(float), flips.to_numpy()
    count = np.arange(len(layers), dtype=float)
    at = np.linspace(0, len(layers) - 1, (len(layers) - 1) * STEPS + 1)
    before = np.minimum(at.astype(int), max(len(layers) - 2, 0))
    after, way = np.minimum(before + 1, len(layers) - 1), at - before
    return np.interp(at, count, layers), values[:, before] * (1 - way) + values[:, after] * way


def _with_limits(
    flips: pd.DataFrame,
    level: float,
    points: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    few_texts: str,
    rising: bool,
) -> HandOver:
    """Where a rate first crosses the level; `low` and `high` are the limits of rate − level at each of the `points`."""
    sign = -1 if rising else 1
    rates, layers = sign * np.nanmean(flips.to_numpy(), axis=0), flips.columns.to_numpy(float)
    at = float(first_below(rates[None], np.array([sign * level]), layers)[0])
    if at == np.inf:
        return _nothing(f"the rate does not {'rise above' if rising else 'fall below'} {level:.3g}")
    if at == -np.inf:
        return _nothing(f"the rate is above {level:.3g} at the first layer patched already")
    if few_texts:
        return _nothing(few_texts, at)
    inside = np.flatnonzero((low <= 0) & (high >= 0))
    if not len(inside) or not np.ptp(points[inside]) > 0:
        # All pairs agree on the two layers. That six texts or more do so while the rate crosses elsewhere happens in
        # at most 2 of 2^6 experiments, so these layers are the limits.
        to = int((rates < sign * level).argmax())
        return _nothing(None, at) | {"low": float(layers[to - 1]), "high": float(layers[to])}
    first, last = inside[[0, -1]]
    reach = np.maximum(low, -high)  # below 0 inside, and 0 at a limit
    start = None if first == 0 else min(at, _zero(points, reach, first - 1))
    end = None if last == len(points) - 1 else max(at, _zero(points, reach, last))
    return {"layer": at, "low": start, "high": end, "reason": None}


def _zero(points: np.ndarray, values: np.ndarray, before: int) -> float:
    """Where the straight line between a point and the next one is 0."""
    one, other = values[before], values[before + 1]
    return float(points[before] + (points[before + 1] - points[before]) * one / (one - other))
