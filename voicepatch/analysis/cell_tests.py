"""Which cells of a map have an effect: one test of all cells, and limits that hold for all of them together.

    found = cell_tests(effects, texts_of(pairs), seed)       # effects [pairs, cells]
    found.p_max, found.low, found.high                       # NaN where found.reason says why there is no test

Whole texts are left out one at a time, since pairs that share a text are not independent. docs/statistics.md has the
derivation and the simulated error rates.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from voicepatch.analysis.sharing import Sharing, blocks, codes_of

DRAWS = 4999
MIN_TEXTS, MIN_TEXTS_OF_TWO = 6, 12  # where a pair has one text, and where any pair has two
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


def cell_tests(effects: np.ndarray, texts: np.ndarray, seed: int, draws: int = DRAWS) -> CellTests:
    """Test the mean of each column of effects [pairs, cells] against 0; texts are [pairs, texts a pair]."""
    sharing = Sharing.of(codes_of(texts))
    effect = effects.mean(0)
    if reason := _why_not_tested(sharing):
        nothing = np.full(len(effect), np.nan)
        return CellTests(effect, nothing, nothing, nothing, nothing, nothing, sharing.n_codes, reason)
    deviations, n = pseudo_values(effects, sharing), sharing.n_codes
    se = np.sqrt((deviations**2).sum(0) / (n * (n - 1)))
    t = _ratio(effect, se)
    deviations[:, se <= _ROUNDING * np.abs(effect)] = 0  # the same effect in every text, and rounding
    p_max, critical = step_down(t, deviations, draws, seed)
    q = stats.false_discovery_control(2 * special.stdtr(n - 1, -t))
    with np.errstate(invalid="ignore"):  # with very few texts the quantile can be infinite, and the error 0
        reach = critical * se
    return CellTests(effect, se, effect - reach, effect + reach, p_max, q, n)


def pseudo_values(effects: np.ndarray, sharing: Sharing) -> np.ndarray:
    """(G − 1) · (mean of θ₍₋t₎ − θ₍₋t₎) for each of the G texts, [texts, cells].

    θ₍₋t₎ is the mean effect of the pairs without text t. These are the jackknife's pseudo-values less their mean.
    """
    touches = sharing.touches.T
    sums = touches @ sharing.by_set(effects)
    counts = touches @ sharing.by_set(np.ones((len(effects), 1)))
    without = (effects.sum(0) - sums) / (len(effects) - counts)
    return (sharing.n_codes - 1) * (without.mean(0) - without)


def step_down(t: np.ndarray, deviations: np.ndarray, draws: int, seed: int) -> tuple[np.ndarray, float]:
    """p of each |t| corrected for all cells, and the 95 % quantile of the largest |t| under random signs of the texts.

    Each draw gives every text's deviations [texts, cells] a random sign and divides their mean by its own standard
    error. The k-th largest |t| is compared with the largest of the cells from the k-th on (Romano & Wolf 2005,
    Econometrica 73:1237).
    """
    n, order = len(deviations), np.argsort(-t, kind="stable")
    ordered, reached = deviations[:, order], t[order] * (1 - 1e-9)  # equal values may differ in the last bit
    squares = (ordered**2).mean(0)
    random, reaching, largest = np.random.default_rng(seed), np.zeros(len(t)), np.empty(draws)
    for block in blocks(draws, 8 * 4 * (n + len(t))):
        signs = random.choice([-1.0, 1.0], size=(block.stop - block.start, n))
        means = signs @ ordered / n
        drawn = _ratio(means, np.sqrt(np.maximum(squares - means**2, 0) / (n - 1)))
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


def _why_not_tested(sharing: Sharing) -> str:
    of_two = (sharing.touches.sum(1) > 1).any()
    needed = MIN_TEXTS_OF_TWO if of_two else MIN_TEXTS
    if sharing.n_codes < needed:
        return (
            f"the pairs have {sharing.n_codes} texts{', two or more each' if of_two else ''}; the test needs {needed}"
        )
    if (sharing.touches.sum(0) == len(sharing.sets)).any():
        return "one text is in all pairs"
    return ""
