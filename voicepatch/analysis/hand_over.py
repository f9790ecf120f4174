"""The hand-over layer, where B's states over the span stop overriding A's answer; and where the suffix starts to.

hand_over(records, pairs, suffix=(suffix_records, suffix_pairs))     # statistics_KIND.json
hand_over_difference(curve, other_curve, sharing, draws)             # of two main experiments
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from voicepatch.analysis.cells import at_highest_dose, by_cell
from voicepatch.analysis.clusters import RESAMPLES, Mean, Z, limits, limits_of_difference, mean_of, student_t
from voicepatch.analysis.rounding import number
from voicepatch.analysis.sharing import Draws, Sharing, codes_of, texts_of, variance_of

HAND_OVER = (
    "The hand-over layer is the layer, interpolated between the layers patched, at which the rate of flips to the "
    "target first falls below the middle between its value at the first layer patched and A's own rate (how often A "
    "unpatched gives the target). Until about there B's states, written over the span, override A's answer; this does "
    "not show when the information leaves the span. For the suffix, where it was patched, it is the layer at which its "
    "own rate first rises above that same middle."
)
# With fewer texts, 95 % limits cover the true value in 13 to 100 % of simulated experiments (docs/statistics.md).
MIN_TEXTS = 6
MAX_UNDEFINED = 0.05  # largest share of resamples without a hand-over layer
STEPS = 8  # points looked at between two layers; limits between those are interpolated
HandOver = dict[str, Any]


def hand_over(
    records: pd.DataFrame,
    pairs: pd.DataFrame,
    suffix: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    seed: int = 42,
    resamples: int = RESAMPLES,
) -> HandOver:
    """Where the rate of flips falls below half of its height, and where that of `suffix` (records, pairs) rises.

    `layer`, `low`, `high` (95 %), `reason`, `suffix` with the same four or None, `level` (the rate that is crossed) and
    `definition`. `layer` is None where there is no such layer, both limits are None where none can be given, and
    `reason` says why. There is no layer unless the height, the rate at the first layer less A's own, is above 0 with
    its 95 % interval. One limit is None where it lies outside the layers patched. At the highest dose, over all pairs.
    Where all pairs agree, the limits are the two layers patched between which they cross.

    The limits enclose the points at which Student's interval of (rate − level), which share texts, contains 0 (Fieller
    1954, J. R. Statist. Soc. B 16:175).
    """
    experiments = [(records, pairs)] if suffix is None else [(records, pairs), suffix]
    sharing = Sharing.of(codes_of(np.vstack([texts_of(its_pairs) for _, its_pairs in experiments])))
    draws = Draws(sharing.n_codes, resamples, seed)
    of_span, of_suffix = sharing.split(len(pairs))
    flips, own = _flips_and_own(records, pairs)
    start = flips.to_numpy()[:, :1]
    levels = (start + own) / 2  # by pair; their mean is the level
    level = np.nanmean(levels)
    points, rates = _between_layers(flips)
    means = mean_of(np.hstack([rates - levels, levels, start - own]), of_span, draws)
    gap, middle, height = (means.cells(which) for which in (slice(-2), slice(-2, -1), slice(-1, None)))
    few = have_few_texts(pairs, height)
    if why := no_height(height, few):
        nothing = _nothing(f"at the first layer patched the rate is {why}")
        return nothing | {"suffix": nothing if suffix else None, "level": float(level), "definition": HAND_OVER}

    found = _with_limits(flips, level, points, *limits(gap, is_rate=False), few, rising=False)
    of_suffix_found = None
    if suffix is not None:
        after, _ = _flips_and_own(*suffix)
        points, rates = _between_layers(after)
        low, high = limits_of_difference(mean_of(rates, of_suffix, draws), middle, is_rate=False)
        of_suffix_found = _with_limits(after, level, points, low, high, few, rising=True)
    return found | {"suffix": of_suffix_found, "level": float(level), "definition": HAND_OVER}


@dataclass(frozen=True)
class Curve:
    """The rate of flips to the target by layer, and what its hand-over layer is measured against."""

    layers: np.ndarray  # in units of depth
    flips: Mean  # [layers]
    own: Mean  # A's own rate, one cell
    height: Mean  # rate at the first layer less A's own, one cell
    few_texts: bool


def curves_of(
    records: pd.DataFrame, pairs: pd.DataFrame, sharing: Sharing, draws: Draws, depth: float
) -> tuple[Curve, Curve]:
    """The curves of all pairs and of the eligible ones; `sharing` is of the `pairs`, `depth` divides the layers."""
    flips, own = _flips_and_own(records, pairs)
    values = []
    for counted in (True, own == 0):
        rates, of_a = np.where(counted, flips, np.nan), np.where(counted, own, np.nan)
        values += [rates, of_a, rates[:, :1] - of_a]
    means, n = mean_of(np.hstack(values), sharing, draws), len(flips.columns)
    curves = []
    for at in (0, n + 2):
        rate, its_own, height = (means.cells(slice(at + a, at + b)) for a, b in ((0, n), (n, n + 1), (n + 1, n + 2)))
        few = have_few_texts(pairs, height)
        curves.append(Curve(flips.columns.to_numpy(float) / depth, rate, its_own, height, few))
    return curves[0], curves[1]


def hand_over_difference(one: Curve, other: Curve, sharing: Sharing, draws: Draws) -> HandOver:
    """Hand-over layer of one − that of the other: `difference`, `low`, `high` (95 %) and `reason` where one is missing.

    The limits are quantiles of the resamples. Their distances from the difference are multiplied by the ratio of the
    standard error for pairs that share texts to that of the resamples.
    """
    nothing = {"difference": None, "low": None, "high": None}
    reasons = [
        f"the {which} curve {why}" for which, curve in (("first", one), ("second", other)) if (why := _no(curve))
    ]
    if reasons:
        return nothing | {"reason": "; ".join(reasons)}
    difference = _layer(one) - _layer(other)
    found = nothing | {"difference": difference}
    if one.few_texts or other.few_texts:
        return found | {"reason": f"no limits: too few texts, an interval needs {MIN_TEXTS} in each of both"}
    with np.errstate(invalid="ignore"):
        differences = _replicates(one) - _replicates(other)
    undefined, known = np.isnan(differences).mean(), differences[~np.isnan(differences)]
    if undefined > MAX_UNDEFINED:
        return found | {"reason": f"no limits: in {undefined:.0%} of the resamples there is no hand-over layer"}
    with np.errstate(invalid="ignore"):
        stretched = difference + _stretch(_influence(one), _influence(other), sharing, draws) * (known - difference)
    low, high = np.quantile(stretched, [0.025, 0.975], method="nearest")
    low, high = (float(limit) if np.isfinite(limit) else None for limit in (low, high))
    return found | {"low": low, "high": high, "reason": None}


def _stretch(influence: np.ndarray, other_influence: np.ndarray, sharing: Sharing, draws: Draws) -> float:
    """Half the width of Student's interval of the difference over that of the resamples."""
    is_first = np.arange(len(influence) + len(other_influence)) < len(influence)
    sides = np.column_stack([is_first, ~is_first]).astype(float)
    stacked = np.concatenate([influence, -other_influence])[:, None]
    shares = sides / sides.sum(0) @ np.array([[1.0], [-1.0]])
    variance, dof = variance_of(stacked, shares, sharing)
    drawn, counts = np.hsplit(draws.sums(np.hstack([sides * stacked, sides]), sharing), 2)
    with np.errstate(invalid="ignore"):
        spread = np.nanstd((drawn / (counts / sides.sum(0))).sum(1))
    return float(np.sqrt(variance[0]) / spread * student_t(dof)[0] / Z) if spread > 0 else 1.0


def have_few_texts(pairs: pd.DataFrame, mean: Mean) -> bool:
    """Whether the pairs with a value have too few texts for an interval: under MIN_TEXTS, or one in all pairs."""
    return not mean.dof[0] > 0 or len(np.unique(texts_of(pairs)[mean.shares[:, 0] != 0].astype(str))) < MIN_TEXTS


def no_height(height: Mean, few_texts: bool, with_limits: bool = True) -> str | None:
    """Why a curve has no height to lose half of, None where it has one.

    `height` is the rate at the first layer less A's own. With few texts it has no interval, and the height itself
    decides. Without `with_limits` the interval is not in the text: that of a contrast differs a little from the
    curve's own, because its degrees of freedom come from the texts of both curves.
    """
    value, (low, high) = height.value[0], (limit[0] for limit in limits(height, is_rate=False))
    if not value > 0:
        return "no higher than A's own rate, so that there is no height to lose half of"
    if few_texts or low > 0:
        return None
    limited = f"95 % interval {number(100 * low, '.1f')} to {number(100 * high, '.1f')}"
    found = f"above A's own rate by {100 * value:.1f} percentage points"
    if with_limits:
        return f"{found} ({limited}), so it may not be above that rate at all"
    return f"{found}, but the 95 % interval includes 0, so it may not be above that rate at all"


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


def _level(curve: Curve) -> float:
    return (curve.flips.value[0] + curve.own.value[0]) / 2


def _layer(curve: Curve) -> float:
    return float(first_below(curve.flips.value[None], np.array([_level(curve)]), curve.layers)[0])


def _no(curve: Curve) -> str | None:
    """Why a curve has no hand-over layer; None where it has one."""
    if why := no_height(curve.height, curve.few_texts, with_limits=False):
        return f"starts {why}"
    return None if np.isfinite(_layer(curve)) else f"does not fall below {_level(curve):.3g}"


def _replicates(curve: Curve) -> np.ndarray:
    """The hand-over layer in each resample: ±∞ where the curve never falls or starts below, NaN without a height."""
    tops, floors = curve.flips.replicates[:, 0], curve.own.replicates[:, 0]
    levels = np.where(tops > floors, (tops + floors) / 2, np.nan)
    return first_below(curve.flips.replicates, levels, curve.layers)


def _influence(curve: Curve) -> np.ndarray:
    """How much each pair shifts the hand-over layer: its influence on level − rate there, over the slope."""
    at, layers, flips = _layer(curve), curve.layers, curve.flips
    after = int(np.searchsorted(layers, at))
    before = max(after - 1, 0)
    step = layers[after] - layers[before]
    way = (at - layers[before]) / step if step else 0.0
    slope = (flips.value[after] - flips.value[before]) / step if step else -1.0
    there = (1 - way) * flips.influence[:, before] + way * flips.influence[:, after]
    return ((flips.influence[:, 0] + curve.own.influence[:, 0]) / 2 - there) / slope


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
    few_texts: bool,
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
        return _nothing(f"the pairs have fewer than {MIN_TEXTS} texts, or one that is in all of them", at)
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
