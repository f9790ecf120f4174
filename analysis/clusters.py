"""Means over pairs that share texts, and how sure they are; intervals, contrasts and hand-over layers rest on it.

    sharing = Sharing.of(codes_of(texts_of(pairs)))  # which texts each pair has
    mean = mean_of(values, sharing, Draws(sharing.n_codes, RESAMPLES, seed))
    limits(mean, is_rate=True, pooled=design_effect(mean))

A text takes part in several pairs, so pairs are no independent observations, and intervals that take them for such are
too narrow. Whole texts are resampled instead; docs/statistics.md has the derivations.
"""

from dataclasses import dataclass, fields
from functools import cache
from statistics import NormalDist

import numpy as np

from analysis.sharing import Draws, Sharing, blocks, variance_of

RESAMPLES = 2000
Z = NormalDist().inv_cdf(0.975)
_ROUNDING = 1e-12  # sums of equal parts that cancel leave less than this


@dataclass(frozen=True)
class Mean:
    """Column means of [rows, cells] with what is known of their error; each field [cells] unless it says otherwise."""

    value: np.ndarray
    count: np.ndarray
    error: np.ndarray  # standard error, from the resamples
    dof: np.ndarray  # degrees of freedom of that; 0 where fewer than two texts have a say
    shares: np.ndarray  # [rows, cells] weight of a row: 1 / count, 0 where it is missing
    influence: np.ndarray  # [rows, cells] share × deviation from the mean
    replicates: np.ndarray  # [resamples, cells]
    sharing: Sharing  # of the rows

    def cells(self, which: slice) -> "Mean":
        """Some of the cells."""
        arrays = [getattr(self, field.name)[..., which] for field in fields(self) if field.name != "sharing"]
        return Mean(*arrays, self.sharing)


def mean_of(values: np.ndarray, sharing: Sharing, draws: Draws) -> Mean:
    """Column means of values [rows, cells], where a missing value is NaN.

    The resamples' variance counts what is particular to a pair 2^texts − 1 times (Owen 2007, Annals of Applied
    Statistics 1:386); the ratio of `variance_of` to what such weights estimate takes it back to once.
    """
    there = ~np.isnan(values)
    count, known = there.sum(0), np.nan_to_num(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(count, there / count, 0)
        value = known.sum(0) / count
        influence = shares * np.nan_to_num(values - value)
        totals, weights = np.hsplit(draws.sums(np.hstack([known, there]), sharing), 2)
        replicates = totals / weights
        counted = (sharing.sums(influence) ** 2).sum(0)
        variance, dof = variance_of(influence, shares, sharing)
        ratio = np.where(counted > 0, variance / counted, 1)
        usable = ~np.isnan(replicates)
        centred = np.where(usable, replicates - (np.nan_to_num(replicates).sum(0) / usable.sum(0)), 0)
        error = np.sqrt((centred**2).sum(0) / usable.sum(0) * ratio)
    return Mean(value, count, np.where(dof > 0, error, np.nan), dof, shares, influence, replicates, sharing)


def student_t(dof: np.ndarray) -> np.ndarray:
    """Student's 97.5 % quantile, NaN where there is less than one degree of freedom; exact to six digits."""
    distinct, which = np.unique(np.asarray(dof, float).round(6), return_inverse=True)
    return np.array([_student_t(v) for v in distinct])[which].reshape(np.shape(dof))


@cache
def _student_t(v: float) -> float:
    if not v > 0:
        return np.nan
    if v > 200:  # Abramowitz & Stegun 26.7.5
        z = Z
        terms = (z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96)
        return sum(term / v**power for power, term in enumerate(terms))
    # t = sqrt(v) tan(angle) makes the density a power of the cosine, whose integral is summed.
    v = max(v, 1.0)
    angles = np.linspace(0, np.pi / 2, 40_001)
    density = np.cos(angles) ** (v - 1)
    share = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return float(np.sqrt(v) * np.tan(np.interp(0.95, share / share[-1], angles)))


def design_effect(*means: Mean) -> np.ndarray:
    """Variance over that of as many independent pairs, of all cells together; NaN where no cell varies."""
    independent = np.concatenate([mean.value * (1 - mean.value) / np.maximum(mean.count, 1) for mean in means])
    variance = np.concatenate([mean.error**2 for mean in means])
    varies = (independent > 0) & ~np.isnan(variance)
    return variance[varies].sum() / independent[varies].sum() if varies.any() else np.nan


def limits(mean: Mean, is_rate: bool, pooled: float) -> tuple[np.ndarray, np.ndarray]:
    """95 % limits of each cell: Wilson's around a rate, Student's around another mean; `pooled` is a design effect."""
    t, p = student_t(mean.dof), mean.value
    if not is_rate:
        return p - t * mean.error, p + t * mean.error
    with np.errstate(invalid="ignore", divide="ignore"):
        independent = p * (1 - p) / mean.count
        at_an_end = mean.count / (mean.dof + 1) if np.isnan(pooled) else pooled
        design = np.where(independent > 0, mean.error**2 / independent, at_an_end)
        n = mean.count / np.maximum(design, 1)
        middle = (p + t**2 / (2 * n)) / (1 + t**2 / n)
        half = t / (1 + t**2 / n) * np.sqrt(p * (1 - p) / n + (t / (2 * n)) ** 2)
    return np.clip(middle - half, 0, p), np.clip(middle + half, p, 1)


def limits_of_difference(one: Mean, other: Mean, is_rate: bool) -> tuple[np.ndarray, np.ndarray]:
    """95 % limits of one − other, whose rows are parts of one `Sharing`."""
    together = one.sharing.sign @ (one.sharing.sums(one.influence) * other.sharing.sums(other.influence))
    spreads = one.error * other.error
    r = np.clip(np.divide(together, spreads, out=np.zeros(len(spreads)), where=spreads > 0), -1, 1)
    pooled = design_effect(one, other) if is_rate else np.nan
    (low, high), (other_low, other_high) = limits(one, is_rate, pooled), limits(other, is_rate, pooled)

    def reach(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(a**2 + b**2 - 2 * r * a * b, 0))

    value = one.value - other.value
    return (
        value - reach(one.value - low, other_high - other.value),
        value + reach(high - one.value, other.value - other_low),
    )


def p_values(
    difference: np.ndarray, deviations: np.ndarray, shares: np.ndarray, sharing: Sharing, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p of each column's difference, and of the largest of all columns.

    `deviations` and `shares` are [rows, cells], the second curve's negative. Each difference is the normal deviate of
    Student's t with the variance's own degrees of freedom, compared with the deviations of whole texts with random
    signs.
    """
    variance, dof = variance_of(deviations, shares, sharing)
    size = np.where(np.abs(difference) > _ROUNDING, np.abs(difference), 0)
    t = np.divide(size, np.sqrt(variance), out=np.where(size > 0, np.inf, 0.0), where=variance > _ROUNDING**2)
    observed = normal_deviate(t, np.maximum(dof, 1))  # below one, the approximation does not hold
    return _against_random_signs(observed, sharing.touches.T @ sharing.by_set(deviations), resamples, seed)


def p_of_one_text_a_row(
    scores: np.ndarray, sharing: Sharing, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p of each column's sum of scores, and of the largest, where each row has one text: a permutation test.

    `scores` [rows, cells] are not centred; under no effect the sign of a text's whole sum is arbitrary.
    """
    by_text = sharing.touches.T @ sharing.by_set(scores)
    size, total = np.sqrt((by_text**2).sum(0)), np.abs(scores.sum(0))
    total = np.where(total > _ROUNDING, total, 0)
    observed = np.divide(total, size, out=np.zeros(len(size)), where=size > _ROUNDING)
    return _against_random_signs(observed, by_text, resamples, seed)


def normal_deviate(t: np.ndarray, dof: np.ndarray) -> np.ndarray:
    """The normal deviate of the same probability as Student's t (Wallace 1959, Ann. Math. Stat. 30:1124)."""
    return (8 * dof + 1) / (8 * dof + 3) * np.sqrt(dof * np.log1p(t**2 / dof))


def _against_random_signs(
    observed: np.ndarray, by_text: np.ndarray, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """p of each column's `observed` deviate, and of the largest, from random signs of the rows of [texts, cells]."""
    size, random = np.sqrt((by_text**2).sum(0)), np.random.default_rng(seed)
    unit = np.divide(by_text, size, out=np.zeros_like(by_text), where=size > _ROUNDING)
    reached = observed * (1 - 1e-9)  # equal sums that differ in the last bit
    reaching = np.zeros((2, len(size)))
    for block in blocks(resamples, 8 * (len(unit) + len(size))):
        drawn = np.abs(random.choice([-1.0, 1.0], size=(block.stop - block.start, len(unit))) @ unit)
        reaching += [(drawn >= reached).sum(0), (drawn.max(1, keepdims=True) >= reached).sum(0)]
    least = 2.0 ** (1 - len(unit))  # so many signs distinguish no more
    p, p_max = np.maximum((1 + reaching) / (1 + resamples), least)
    return p, p_max
