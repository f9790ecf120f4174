"""Means over pairs that share texts, with their standard errors, 95 % limits and tests.

    sharing = sample_of(pairs).sharing  # which texts, and speakers, each pair has
    mean = mean_of(values, sharing, Draws(sharing.n_codes, RESAMPLES, seed))
    limits(mean, is_rate=True, pooled=design_effect(mean))

A text takes part in several pairs, so pairs are not independent observations, and intervals that treat them so are too
narrow. Whole texts are resampled instead; docs/statistics.md has the derivations.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from scipy import special

from voicepatch.analysis.sharing import Draws, Sharing, blocks, variance_of

RESAMPLES = 2000
Z = float(special.ndtri(0.975))
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


def student_t(dof: np.ndarray) -> np.ndarray:
    """The 97.5 % quantile of Student's t; NaN with 0 degrees of freedom, and that of 1 for any number below 1."""
    dof = np.asarray(dof, float)
    return np.where(dof > 0, special.stdtrit(np.maximum(dof, 1), 0.975), np.nan)


def design_effect(*means: Mean) -> float:
    """Variance over the variance of as many independent pairs, of all cells together; NaN where no cell varies."""
    independent = np.concatenate([mean.value * (1 - mean.value) / np.maximum(mean.count, 1) for mean in means])
    variance = np.concatenate([mean.error**2 for mean in means])
    varies = (independent > 0) & ~np.isnan(variance)
    return float(variance[varies].sum() / independent[varies].sum()) if varies.any() else np.nan


def limits(mean: Mean, is_rate: bool, pooled: float = np.nan) -> tuple[np.ndarray, np.ndarray]:
    """95 % limits of each cell: Wilson's around a rate; around another mean the outer ones of Student's and Johnson's.

    `pooled` is a design effect. Johnson's (1978, J. Am. Stat. Assoc. 73:536) are Student's, shifted to the side of the
    longer tail; here twice as far, since few texts show about half of the skewness.
    """
    t, p = student_t(mean.dof), mean.value
    if not is_rate:
        reach, shift = t * mean.error, mean.error * mean.skewness * (1 + 2 * t**2) / 3
        return p - reach + np.minimum(shift, 0), p + reach + np.maximum(shift, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        independent = p * (1 - p) / mean.count
        at_0_or_1 = mean.count / (mean.dof + 1) if np.isnan(pooled) else pooled
        design = np.where(independent > 0, mean.error**2 / independent, at_0_or_1)
        n = mean.count / np.maximum(design, 1)
        middle = (p + t**2 / (2 * n)) / (1 + t**2 / n)
        half = t / (1 + t**2 / n) * np.sqrt(p * (1 - p) / n + (t / (2 * n)) ** 2)
    return np.clip(middle - half, 0, p), np.clip(middle + half, p, 1)


def limits_of_difference(one: Mean, other: Mean, is_rate: bool) -> tuple[np.ndarray, np.ndarray]:
    """95 % limits of one − other, whose rows are parts of one `Sharing`.

    The limits of both are joined, less what the two share through common texts (Newcombe 1998, Statistics in Medicine
    17:2635; Zou & Donner 2008, ibid. 27:1693).
    """
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


def p_values(one: Mean, other: Mean, sharing: Sharing, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p of one − other in each cell, and of the largest difference of all cells.

    `sharing` is of the rows of both. With one text a row, this is a permutation test: the sign of a text's sum
    is random. Otherwise each difference over its error becomes a normal deviate and is compared
    with the deviations from the means, by text, with random signs (a multiplier bootstrap). The p of the largest
    difference corrects for all cells (Nichols & Holmes 2002, Human Brain Mapping 15:1).
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


def _against_random_signs(
    observed: np.ndarray, by_text: np.ndarray, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """p of each `observed` deviate, and of the largest, from random signs of the rows of [texts, cells]."""
    size, random = np.sqrt((by_text**2).sum(0)), np.random.default_rng(seed)
    unit = np.divide(by_text, size, out=np.zeros_like(by_text), where=size > _ROUNDING)
    reached = observed * (1 - 1e-9)  # equal sums may differ in the last bit
    reaching = np.zeros((2, len(size)))
    for block in blocks(resamples, 8 * (len(unit) + len(size))):
        drawn = np.abs(random.choice([-1.0, 1.0], size=(block.stop - block.start, len(unit))) @ unit)
        reaching += [(drawn >= reached).sum(0), (drawn.max(1, keepdims=True) >= reached).sum(0)]
    smallest = 2.0 ** (1 - len(unit))  # there are no more distinct assignments of signs
    p, p_max = np.maximum((1 + reaching) / (1 + resamples), smallest)
    return p, p_max
