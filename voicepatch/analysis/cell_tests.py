"""Which cells of a map have an effect: one test of all cells, and limits that hold for all of them together.

    found = cell_tests(effects, texts, seed, speakers)       # effects [pairs, cells]
    found.p_max, found.low, found.high                       # NaN where found.reason says why there is no test

Whole texts, and whole speakers where they are a sample, are left out one at a time, since pairs that share one are not
independent. docs/statistics.md has the derivation and the simulated error rates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from voicepatch.analysis.samples import MIN_TEXTS, too_few_texts
from voicepatch.analysis.sharing import Sharing, blocks, codes_of

DRAWS = 4999
MIN_TEXTS_OF_TWO = 12  # where any pair has two texts
MIN_TEXTS_WITH_SPEAKERS = 8  # where speakers are a sample too
_ROUNDING = 1e-12  # relative; equal sums differ by less


@dataclass(frozen=True)
class CellTests:
    """The mean effect in each cell with its test; arrays are [cells], and all but `effect` NaN where `reason` is set.

    `p_max` is corrected for all cells (family-wise), `q` is Benjamini and Hochberg's (false discovery rate); `low` and
    `high` are simultaneous 95 % limits.
    """

    effect: np.ndarray
    se: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_max: np.ndarray
    q: np.ndarray
    n_texts: int
    reason: str = ""


def cell_tests(
    effects: np.ndarray, texts: np.ndarray, seed: int, speakers: np.ndarray | None = None, draws: int = DRAWS
) -> CellTests:
    """Test the mean of each column of effects [pairs, cells] against 0.

    `texts` and `speakers` are names, [pairs, names a pair]; with None, the speakers are no sample. With both, the
    variance is that of leaving out texts plus that of leaving out speakers.
    """
    sharings = [Sharing.of(codes_of(names)) for names in (texts, speakers) if names is not None]
    effect, n_texts = effects.mean(0), sharings[0].n_codes
    of_two = (sharings[0].touches.sum(1) > 1).any()
    least = MIN_TEXTS if speakers is None else MIN_TEXTS_WITH_SPEAKERS
    needs = ("a test of pairs with two texts", MIN_TEXTS_OF_TWO) if of_two else ("a test", least)
    if reason := too_few_texts(texts, *needs):
        nothing = np.full(len(effect), np.nan)
        return CellTests(effect, nothing, nothing, nothing, nothing, nothing, n_texts, reason)
    deviations = [pseudo_values(effects, sharing) for sharing in sharings]
    se = np.sqrt(sum((part**2).sum(0) / (len(part) * (len(part) - 1)) for part in deviations))
    t = _ratio(effect, se)
    for part in deviations:
        part[:, se <= _ROUNDING * np.abs(effect)] = 0  # the same effect in every text, and rounding
    p_max, critical = step_down(t, deviations, draws, seed)
    q = stats.false_discovery_control(2 * special.stdtr(min(map(len, deviations)) - 1, -t))
    with np.errstate(invalid="ignore"):  # with very few texts the quantile can be infinite, and the error 0
        reach = critical * se
    return CellTests(effect, se, effect - reach, effect + reach, p_max, q, n_texts)


def pseudo_values(effects: np.ndarray, sharing: Sharing) -> np.ndarray:
    """(G − 1) · (mean of θ₍₋t₎ − θ₍₋t₎) for each of the G texts (or speakers), [texts, cells].

    θ₍₋t₎ is the mean effect of the pairs without text t. These are the jackknife's pseudo-values less their mean.
    """
    touches = sharing.touches.T
    sums = touches @ sharing.by_set(effects)
    counts = touches @ sharing.by_set(np.ones((len(effects), 1)))
    without = (effects.sum(0) - sums) / (len(effects) - counts)
    return (sharing.n_codes - 1) * (without.mean(0) - without)


def step_down(t: np.ndarray, deviations: Sequence[np.ndarray], draws: int, seed: int) -> tuple[np.ndarray, float]:
    """p of each |t| corrected for all cells, and the 95 % quantile of the largest |t| under random signs.

    `deviations` are [texts, cells], and [speakers, cells] where they are a sample. Each draw gives every text's and
    every speaker's deviations a random sign, and divides the sum of their means by its own standard error. The k-th
    largest |t| is compared with the largest of the cells from the k-th on (Romano & Wolf 2005, Econometrica 73:1237).
    """
    n, order = sum(map(len, deviations)), np.argsort(-t, kind="stable")
    ordered, reached = [part[:, order] for part in deviations], t[order] * (1 - 1e-9)  # equal up to the last bit
    random, reaching, largest = np.random.default_rng(seed), np.zeros(len(t)), np.empty(draws)
    for block in blocks(draws, 8 * 4 * (n + len(t))):
        means, variance = np.zeros((2, block.stop - block.start, len(t)))
        for part in ordered:
            mean = random.choice([-1.0, 1.0], size=(len(means), len(part))) @ part / len(part)
            means += mean
            variance += np.maximum((part**2).mean(0) - mean**2, 0) / (len(part) - 1)
        drawn = _ratio(means, np.sqrt(variance))
        remaining = np.maximum.accumulate(drawn[:, ::-1], axis=1)[:, ::-1]
        reaching += (remaining >= reached).sum(0)
        largest[block] = remaining[:, 0]
    p = np.maximum((1 + reaching) / (1 + draws), 2.0 ** (1 - n))  # there are no more distinct assignments of signs
    p_max = np.empty(len(t))
    p_max[order] = np.maximum.accumulate(p)
    return p_max, float(np.quantile(largest, 0.95, method="higher"))


def _ratio(values: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """|value| / error; 0 for a value of 0, ∞ for another one without an error."""
    size = np.abs(values)
    return np.divide(size, errors, out=np.where(size > 0, np.inf, 0.0), where=errors > _ROUNDING * size)
