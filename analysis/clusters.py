"""Means over pairs that share texts, and how sure they are; intervals, contrasts and hand-over layers rest on it.

    codes = codes_of(texts_of(pairs))                # which texts each pair hangs on
    mean = mean_of(values, codes, resample(codes, RESAMPLES, seed))
    limits(mean, is_rate=True, pooled=design_effect(mean))

A text takes part in several pairs, so pairs are no independent observations, and intervals that take them for such are
too narrow. Whole texts are resampled instead. A pair hangs on its recipient's and its donor's text: on one where they
are the same (prosody pairs), on two otherwise; everything here follows from that list of texts a pair.
"""

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import pandas as pd

RESAMPLES = 2000
Z = NormalDist().inv_cdf(0.975)
_ROUNDING = 1e-12  # sums of equal parts that cancel leave less than this


def cluster_weights(pairs: pd.DataFrame, resamples: int, seed: int) -> np.ndarray:
    """How often each pair counts in each resample of texts, [resamples, pairs].

    As many texts as there are are drawn with replacement, and a pair's weight is the product of the counts of its
    texts: count(text) where A and B have the same, count(text of A) × count(text of B) where they have not (the
    pigeonhole bootstrap, Owen 2007, Annals of Applied Statistics 1:386). A text that is A's in some pairs and B's in
    others has one count for both roles, not one a role: the same words act in both, and only so does the spread contain
    what pairs that share a text across roles have in common (Snijders & Borgatti 1999, Connections 22:61). Where no
    text has both roles this is resampling the two sides separately. The order of the rows changes nothing.
    """
    return resample(codes_of(texts_of(pairs)), resamples, seed)


def texts_of(pairs: pd.DataFrame) -> np.ndarray:
    """The recipient's and the donor's text of each pair, [pairs, 2]."""
    return pairs[["text_id_a", "text_id_b"]].astype(str).to_numpy(object)


def codes_of(texts: np.ndarray) -> np.ndarray:
    """The texts a row hangs on as numbers; −1 in place of one that the row has already."""
    codes = np.unique(texts.astype(str), return_inverse=True)[1].reshape(texts.shape)
    for way in range(1, codes.shape[1]):
        codes[(codes[:, :way] == codes[:, [way]]).any(1), way] = -1
    return codes


def resample(codes: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The weights of `cluster_weights`, [resamples, rows], for rows that hang on the texts `codes`."""
    n_texts = codes.max() + 1
    counts = np.random.default_rng(seed).multinomial(n_texts, np.full(n_texts, 1 / n_texts), size=resamples)
    counts = np.hstack([counts, np.ones((resamples, 1), int)])  # what −1 picks
    return counts[:, codes].prod(2).astype(float)


def texts_touched(codes: np.ndarray, n_texts: int | None = None) -> np.ndarray:
    """[rows, texts]: 1 where the row hangs on the text."""
    touched = np.zeros((len(codes), (codes.max() + 1 if n_texts is None else n_texts) + 1))
    touched[np.arange(len(codes))[:, None], codes] = 1
    return touched[:, :-1]


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


def mean_of(values: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> Mean:
    """Column means of values [rows, cells], where a missing value is NaN.

    With product weights the resamples' variance counts what is particular to a pair 2^texts − 1 times (three times for
    two texts, Owen 2007). The ratio takes it back to once: `variance_of` over what such weights estimate.
    """
    there = ~np.isnan(values)
    count = there.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(count, there / count, 0)
        value = np.nan_to_num(values).sum(0) / count
        influence = shares * np.nan_to_num(values - value)
        replicates = weights @ np.nan_to_num(values) / (weights @ there)
        common = texts_touched(codes) @ texts_touched(codes).T
        counted = _products(influence, 2.0**common - 1)
        variance, dof = variance_of(influence, shares, codes)
        ratio = np.where(counted > 0, variance / counted, 1)
        usable = ~np.isnan(replicates)
        centred = np.where(usable, replicates - (np.nan_to_num(replicates).sum(0) / usable.sum(0)), 0)
        error = np.sqrt((centred**2).sum(0) / usable.sum(0) * ratio)
    return Mean(value, count, np.where(dof > 0, error, np.nan), dof, shares, influence, replicates)


def _products(influence: np.ndarray, over: np.ndarray) -> np.ndarray:
    return np.einsum("il,il->l", influence, over @ influence)


def variance_of(influence: np.ndarray, shares: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The variance of a sum of influences, and the degrees of freedom of that estimate.

    It is the sum of their products over all pairs of rows that have a text in common (Aronow, Samii & Assenova 2015,
    Political Analysis 23:564). Deviations from a mean of the same data are too small, and unequal texts are fewer than
    they look: the factor and the degrees of freedom are those that are right where texts and pairs have effects of
    equal variance (Bell & McCaffrey 2002, Survey Methodology 28:169). With two texts a pair that sum can come out near
    or below 0; the sum of the texts' squares, which counts a pair once for each text, is never negative, and a quarter
    of it is the least.
    """
    touched = texts_touched(codes)
    common = touched @ touched.T
    shared, working = (common > 0).astype(float), common + np.eye(len(codes))
    distinct, which = np.unique(shares.T, axis=0, return_inverse=True)
    factors, dofs = np.ones(len(distinct)), np.zeros(len(distinct))
    for i, h in enumerate(distinct):
        sides = np.column_stack([h > 0, h < 0]).astype(float)
        centre = np.diag((h != 0).astype(float)) - (sides / np.maximum(sides.sum(0), 1)) @ sides.T
        form = centre @ (shared * np.outer(h, h)) @ centre @ working
        if (expected := np.trace(form)) > 1e-12:
            factors[i] = max(1.0, h @ working @ h / expected)
            dofs[i] = expected**2 / (form * form.T).sum()
    least = ((touched.T @ influence) ** 2).sum(0) / 4
    which = which.ravel()
    return np.maximum(_products(influence, shared) * factors[which], least), dofs[which]


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


def limits_of_difference(
    one: Mean, other: Mean, codes: np.ndarray, other_codes: np.ndarray, is_rate: bool
) -> tuple[np.ndarray, np.ndarray]:
    """95 % limits of one − other, whose rows hang on `codes` and `other_codes`, numbers of the same texts."""
    n_texts = max(codes.max(), other_codes.max()) + 1
    shared = (texts_touched(codes, n_texts) @ texts_touched(other_codes, n_texts).T > 0).astype(float)
    together = np.einsum("il,il->l", one.influence, shared @ other.influence)
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


def sign_flips(
    scores: np.ndarray,
    deviations: np.ndarray,
    shares: np.ndarray,
    codes: np.ndarray,
    resamples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p of a sum of scores, by column and for the largest of all columns.

    `scores` are not centred: flipped by text they are an exact test where each row has one text. With several, flipping
    them would count the effect as spread, so the centred `deviations` are flipped.
    """
    touched = texts_touched(codes)
    total = np.where(np.abs(scores.sum(0)) > _ROUNDING, np.abs(scores.sum(0)), 0)
    one_way = (touched.sum(1) == 1).all()
    flipped = touched.T @ (scores if one_way else deviations)
    if one_way:
        size = np.sqrt((flipped**2).sum(0))
        observed = np.divide(total, size, out=np.zeros(len(size)), where=size > _ROUNDING)
    else:
        variance, dof = variance_of(deviations, shares, codes)
        t = np.divide(total, np.sqrt(variance), out=np.where(total > 0, np.inf, 0.0), where=variance > _ROUNDING**2)
        # Calibrated by simulation: with fewer than 6 the test rejects in 1 to 2 % of experiments where 5 % are due.
        dof = np.maximum(dof, min(6, touched.shape[1] - 1))
        observed = normal_deviate(t, dof)
    least = 2.0 ** (1 - len(flipped))  # so many signs cannot tell more
    p, p_max = against_random_signs(observed, flipped, resamples, seed)
    return np.maximum(p, least), np.maximum(p_max, least)


def normal_deviate(t: np.ndarray, dof: np.ndarray) -> np.ndarray:
    """The normal deviate of the same probability as Student's t (Wallace 1959, Ann. Math. Stat. 30:1124)."""
    return (8 * dof + 1) / (8 * dof + 3) * np.sqrt(dof * np.log1p(t**2 / dof))


def against_random_signs(
    observed: np.ndarray, flipped: np.ndarray, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """p of each column's `observed` deviate, and of the largest of all: its rows, one a text, get random signs."""
    size = np.sqrt((flipped**2).sum(0))
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(resamples, len(flipped)))
    drawn = np.abs(signs @ np.divide(flipped, size, out=np.zeros_like(flipped), where=size > _ROUNDING))
    reached = observed * (1 - 1e-9)  # equal sums that differ in the last bit
    p, p_max = ((1 + (chance >= reached).sum(0)) / (1 + resamples) for chance in (drawn, drawn.max(1, keepdims=True)))
    return p, p_max
