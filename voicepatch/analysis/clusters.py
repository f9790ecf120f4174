"""Means over pairs that share texts, with their standard errors, 95 % limits and tests.

    sharing = sample_of(pairs).sharing  # which texts, and speakers, each pair has
    mean = mean_of(values, sharing, Draws(sharing.n_codes, RESAMPLES, seed))
    limits(mean, is_rate=True, pooled=correlation(mean))

A text takes part in several pairs, so pairs are not independent observations, and intervals that treat them so are too
narrow. Whole texts are resampled instead; docs/statistics.md has the derivations.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from scipy import special

from voicepatch.analysis.sharing import Draws, Sharing, blocks, variance_of

RESAMPLES = 2000
ALPHA = 0.05  # of 95 % limits
FEW_TEXTS = 6  # with the rarer answer; so few hardly show the error of a rate
Z = float(special.ndtri(0.975))
SMALLEST_P, P_STEPS = 1e-6, 24  # where the search for p ends, and its bisections
_ROUNDING = 1e-12  # equal parts that cancel leave less than this


@dataclass(frozen=True)
class Mean:
    """Column means of [rows, cells] with their errors; each field is [cells] unless it says otherwise."""

    value: np.ndarray
    count: np.ndarray
    error: np.ndarray  # standard error, from the resamples; NaN where fewer than two texts have a value
    dof: np.ndarray  # degrees of freedom of the error; 0 where fewer than two texts have a value
    skewness: np.ndarray  # of the mean, −1 to 1: the sum of the texts' cubes over that of their squares ^ 1.5
    shares: np.ndarray  # [rows, cells] weight of a row: 1 / count, 0 where its value is missing
    influence: np.ndarray  # [rows, cells] share × deviation from the mean
    sharing: Sharing  # of the rows

    def cells(self, which: slice) -> "Mean":
        """Some of the cells."""
        arrays = {
            field.name: getattr(self, field.name)[..., which] for field in fields(self) if field.name != "sharing"
        }
        return replace(self, **arrays)

    @cached_property
    def common(self) -> np.ndarray:
        """What rows that share a text add to the variance of each mean, if they are all equal, in that of a row."""
        return self.sharing.sign @ self.sharing.sums(self.shares) ** 2 - (self.shares**2).sum(0)

    @cached_property
    def texts_with_rarer_answer(self) -> np.ndarray:
        """How many texts have a row with the rarer one of the answers 0 and 1."""
        is_rarer = self.influence * np.where(self.value <= 0.5, 1, -1) > 0
        return (self.sharing.touches.T @ self.sharing.by_set(is_rarer.astype(float)) > 0).sum(0)


def mean_of(values: np.ndarray, sharing: Sharing, draws: Draws) -> Mean:
    """Column means of values [rows, cells], where a missing value is NaN.

    The variance of the resamples counts what is particular to a pair 2^texts − 1 times (Owen 2007, Annals of Applied
    Statistics 1:386). The ratio of the right variance to the expected one of such resamples corrects this. The right
    one is that of `variance_of`, and at least the sum of the texts' squares over the most texts that a row has, since
    these squares count what is particular to a row once for each of its texts.
    """
    there = ~np.isnan(values)
    count, known = there.sum(0), np.nan_to_num(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(count, there / count, 0)
        value = known.sum(0) / count
        influence = shares * np.nan_to_num(values - value)
        totals, weights = np.hsplit(draws.sums(np.hstack([known, there]), sharing), 2)
        replicates = totals / weights
        sums = sharing.sums(influence)
        counted, by_text = (sums**2).sum(0), sums[: sharing.n_codes]
        spread = (by_text**2).sum(0)
        skewness = np.where(spread > 0, (by_text**3).sum(0) / spread**1.5, 0)
        variance, dof = variance_of(influence, shares, sharing)
        variance = np.maximum(variance, spread / sharing.touches.sum(1).max())
        ratio = np.where(counted > 0, variance / counted, 1)
        usable = ~np.isnan(replicates)
        centred = np.where(usable, replicates - (np.nan_to_num(replicates).sum(0) / usable.sum(0)), 0)
        error = np.sqrt((centred**2).sum(0) / usable.sum(0) * ratio)
    error = np.where(dof > 0, error, np.nan)
    return Mean(value, count, error, dof, skewness, shares, influence, sharing)


def student_t(dof: np.ndarray, alpha: np.ndarray | float = ALPHA) -> np.ndarray:
    """The 1 − alpha / 2 quantile of Student's t; NaN with 0 degrees of freedom, and that of 1 for a number below 1."""
    dof = np.asarray(dof, float)
    return np.where(dof > 0, special.stdtrit(np.maximum(dof, 1), 1 - np.asarray(alpha) / 2), np.nan)


def correlation(*means: Mean) -> float:
    """The correlation of rows that share a text, 0 to 1, of all cells together; NaN where no cell varies."""
    shared, possible, varies = 0.0, 0.0, False
    for mean in means:
        of_row = mean.value * (1 - mean.value)
        cells = (of_row > 0) & ~np.isnan(mean.error)
        shared += (mean.error**2 - of_row / np.maximum(mean.count, 1))[cells].sum()
        possible += (of_row * mean.common)[cells].sum()
        varies |= bool(cells.any())
    return float(np.clip(shared / possible, 0, 1)) if possible > 0 else 0.0 if varies else np.nan


def limits(
    mean: Mean, is_rate: bool, pooled: float = np.nan, alpha: np.ndarray | float = ALPHA
) -> tuple[np.ndarray, np.ndarray]:
    """Limits of each cell at the level 1 − alpha, 95 % unless given.

    They are Wilson's around a rate, and around another mean the outer ones of Student's and Johnson's. `pooled` is the
    `correlation` of all cells. Where up to `FEW_TEXTS` texts have the rarer answer, a cell hardly shows its own error,
    so that is at least the error that follows from this correlation. With more texts the correlation counts for less.
    Johnson's limits (1978, J. Am. Stat. Assoc. 73:536) are Student's, shifted to the side of the longer tail; here
    twice as far, since few texts show about half of the skewness.
    """
    t, p = student_t(mean.dof, alpha), mean.value
    if not is_rate:
        reach, shift = t * mean.error, mean.error * mean.skewness * (1 + 2 * t**2) / 3
        return p - reach + np.minimum(shift, 0), p + reach + np.maximum(shift, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        independent = p * (1 - p) / mean.count
        own = np.where(independent > 0, mean.error**2 / independent, 1)
        weight = FEW_TEXTS / np.maximum(mean.texts_with_rarer_answer, FEW_TEXTS)
        of_all = 1 + weight * pooled * mean.count * mean.common
        of_all = np.where(np.isnan(pooled), mean.count / (mean.dof + 1), of_all)
        n = mean.count / np.maximum(np.maximum(own, of_all), 1)
        middle = (p + t**2 / (2 * n)) / (1 + t**2 / n)
        half = t / (1 + t**2 / n) * np.sqrt(p * (1 - p) / n + (t / (2 * n)) ** 2)
    return np.clip(middle - half, 0, p), np.clip(middle + half, p, 1)


def limits_of_difference(
    one: Mean, other: Mean, is_rate: bool, alpha: np.ndarray | float = ALPHA
) -> tuple[np.ndarray, np.ndarray]:
    """Limits of one − other at the level 1 − alpha; the rows of both are parts of one `Sharing`.

    The limits of both are joined, less what the two share through common texts (Newcombe 1998, Statistics in Medicine
    17:2635; Zou & Donner 2008, ibid. 27:1693).
    """
    return _joined(one, other, is_rate, *_in_common(one, other, is_rate), alpha)


def _in_common(one: Mean, other: Mean, is_rate: bool) -> tuple[np.ndarray, float]:
    """The correlation of the two means in each cell, and that of rows that share a text; they hold for every alpha."""
    together = one.sharing.sign @ (one.sharing.sums(one.influence) * other.sharing.sums(other.influence))
    spreads = one.error * other.error
    r = np.clip(np.divide(together, spreads, out=np.zeros(len(spreads)), where=spreads > 0), -1, 1)
    return r, correlation(one, other) if is_rate else np.nan


def _joined(
    one: Mean, other: Mean, is_rate: bool, r: np.ndarray, pooled: float, alpha: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    (low, high), (other_low, other_high) = limits(one, is_rate, pooled, alpha), limits(other, is_rate, pooled, alpha)

    def reach(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(a**2 + b**2 - 2 * r * a * b, 0))

    value = one.value - other.value
    return (
        value - reach(one.value - low, other_high - other.value),
        value + reach(high - one.value, other.value - other_low),
    )


def p_of_limits(one: Mean, other: Mean, is_rate: bool) -> np.ndarray:
    """Two-sided p of one − other in each cell: the smallest alpha whose limits exclude 0; 1 where none do.

    So p is below .05 exactly where the 95 % limits exclude 0. NaN where there are no limits.
    """
    r, pooled = _in_common(one, other, is_rate)

    def excludes_0(alpha: np.ndarray) -> np.ndarray:
        low, high = _joined(one, other, is_rate, r, pooled, alpha)
        return (low > 0) | (high < 0)

    cells = len(one.value)
    is_below = excludes_0(np.full(cells, ALPHA))
    include, exclude = np.where(is_below, SMALLEST_P, ALPHA), np.where(is_below, ALPHA, 1.0)
    for _ in range(P_STEPS):
        middle = np.sqrt(include * exclude)
        inside = ~excludes_0(middle)
        include, exclude = np.where(inside, middle, include), np.where(inside, exclude, middle)
    return np.where(np.isnan(one.error + other.error), np.nan, exclude)


def p_values(
    one: Mean, other: Mean, sharing: Sharing, is_rate: bool, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p of one − other in each cell, and that of the largest difference of all cells.

    p is that of the limits, and at least 2^(1 − texts). The corrected p is that of random signs, and at least p.
    """
    smallest = 2.0 ** (1 - sharing.n_codes)
    p = np.maximum(p_of_limits(one, other, is_rate), smallest)
    return p, np.maximum(p, p_of_signs(one, other, sharing, resamples, seed))


def p_of_signs(one: Mean, other: Mean, sharing: Sharing, resamples: int, seed: int) -> np.ndarray:
    """Two-sided p of each difference one − other, compared with the largest of all cells under random signs.

    `sharing` is of the rows of both. With one text a row, this is a permutation test: the sign of a text's sum
    is random. Otherwise each difference over its error becomes a normal deviate and is compared
    with the deviations from the means, by text, with random signs (a multiplier bootstrap). So p is corrected for all
    cells (Nichols & Holmes 2002, Human Brain Mapping 15:1).
    """
    shares, deviations = np.vstack([one.shares, -other.shares]), np.vstack([one.influence, -other.influence])
    difference = one.value - other.value
    size = np.where(np.abs(difference) > _ROUNDING, np.abs(difference), 0)
    if (sharing.touches.sum(1) == 1).all():
        by_text = sharing.touches.T @ sharing.by_set(deviations + np.abs(shares) * difference / 2)
        norm = np.sqrt((by_text**2).sum(0))
        observed = np.divide(size, norm, out=np.zeros(len(norm)), where=norm > _ROUNDING)
    else:
        by_text = sharing.touches.T @ sharing.by_set(deviations)
        variance, dof = variance_of(deviations, shares, sharing)
        t = np.divide(size, np.sqrt(variance), out=np.where(size > 0, np.inf, 0.0), where=variance > _ROUNDING**2)
        observed = normal_deviate(t, np.maximum(dof, 1))  # the approximation holds from 1 on
    return _against_random_signs(observed, by_text, resamples, seed)


def normal_deviate(t: np.ndarray, dof: np.ndarray) -> np.ndarray:
    """The normal deviate of the same probability as Student's t (Wallace 1959, Ann. Math. Stat. 30:1124)."""
    return (8 * dof + 1) / (8 * dof + 3) * np.sqrt(dof * np.log1p(t**2 / dof))


def _against_random_signs(observed: np.ndarray, by_text: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """p of each `observed` deviate against the largest one under random signs of the rows of [texts, cells]."""
    size, random = np.sqrt((by_text**2).sum(0)), np.random.default_rng(seed)
    unit = np.divide(by_text, size, out=np.zeros_like(by_text), where=size > _ROUNDING)
    reached = observed * (1 - 1e-9)  # equal sums may differ in the last bit
    reaching = np.zeros(len(size))
    for block in blocks(resamples, 8 * (len(unit) + len(size))):
        drawn = np.abs(random.choice([-1.0, 1.0], size=(block.stop - block.start, len(unit))) @ unit)
        reaching += (drawn.max(1, keepdims=True) >= reached).sum(0)
    return (1 + reaching) / (1 + resamples)
