"""Sums over texts give what sums over all pairs of pairs give, in a time that is linear in the pairs."""

import time
import tracemalloc

import numpy as np
import pytest

from tests.analysis import pairwise
from voicepatch.analysis import sharing as module
from voicepatch.analysis.clusters import limits_of_difference, mean_of
from voicepatch.analysis.sharing import Draws, Sharing, codes_of, variance_of


def one_text(random, n):
    texts = random.integers(0, 9, n)
    return np.column_stack([texts, texts])


def two_texts(random, n):
    """Each text is A's in some pairs and B's in others, and some pairs of texts come back."""
    return random.integers(0, 7, (n, 2))


def mixed(random, n):
    return np.vstack([one_text(random, n // 2), two_texts(random, n - n // 2)])


def texts_and_speakers(random, n):
    """Four codes a row, of which one text may come twice, and one speaker."""
    return np.hstack([random.integers(0, 8, (n, 2)), 100 + random.integers(0, 3, (n, 2))])


def each_its_own(random, n):
    return np.arange(2 * n).reshape(n, 2)


def unequal(random, n):
    """One text has half of the pairs, as recipient."""
    texts = random.integers(1, n, (n, 2))
    texts[: n // 2, 0] = 0
    return texts


DESIGNS = [one_text, two_texts, mixed, texts_and_speakers, each_its_own, unequal]


@pytest.fixture(params=DESIGNS, ids=lambda design: design.__name__)
def rows(request):
    """Codes, and values of five columns, some missing: all there, a fifth missing, rates, a single row, one pattern."""
    random = np.random.default_rng(7)
    codes = codes_of(request.param(random, 40))
    values = random.normal(size=(40, 5))
    values[random.random(40) < 0.2, 1] = np.nan
    values[:, 2] = values[:, 2] > 0
    values[3:, 3] = np.nan
    values[random.random(40) < 0.5, 4] = np.nan
    return codes, values


def test_variance_and_degrees_of_freedom_are_those_over_all_pairs_of_pairs(rows):
    codes, values = rows
    sharing = Sharing.of(codes)
    there = ~np.isnan(values)
    signs = np.where(np.arange(len(codes))[:, None] < 22, 1, -1)  # of two samples, the second one's are negative
    for shares in (there / there.sum(0), there * signs / [(there[signs[:, 0] == 1]).sum(0) + 1]):
        influence = shares * np.nan_to_num(values)
        expected = pairwise.variance_of(influence, shares, codes, sharing.n_codes)
        np.testing.assert_allclose(variance_of(influence, shares, sharing), expected, rtol=1e-9, atol=1e-14)


def test_a_mean_has_the_error_the_influence_and_the_resamples_of_the_plain_formulas(rows, monkeypatch):
    codes, values = rows
    sharing = Sharing.of(codes)
    monkeypatch.setattr(module, "BLOCK_BYTES", 20_000)  # several blocks, which draw on in one stream
    mean = mean_of(values, sharing, Draws(sharing.n_codes, 60, seed=3))
    weights = pairwise.weights_of(codes, sharing.n_codes, 60, seed=3)
    expected = pairwise.mean_of(values, codes, sharing.n_codes, weights)
    for one, other in zip((mean.value, mean.error, mean.dof, mean.influence), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_what_two_samples_share_is_summed_over_all_pairs_of_theirs(rows):
    codes, values = rows
    sharing, n = Sharing.of(codes), 22
    one, other = sharing.split(n)
    together = sharing.sign @ (one.sums(np.nan_to_num(values[:n])) * other.sums(np.nan_to_num(values[n:])))
    shared = pairwise.shared_between(codes[:n], codes[n:], sharing.n_codes)
    expected = pairwise.products(np.nan_to_num(values[:n]), shared @ np.nan_to_num(values[n:]), np.eye(n))
    np.testing.assert_allclose(together, expected, rtol=1e-9, atol=1e-12)


def test_the_draws_weigh_rows_by_the_product_of_their_texts_counts(rows):
    codes, _ = rows
    sharing = Sharing.of(codes)
    weights = Draws(sharing.n_codes, 30, seed=1).sums(np.eye(len(codes)), sharing)
    np.testing.assert_array_equal(weights, pairwise.weights_of(codes, sharing.n_codes, 30, seed=1))


def large(design, n):
    random = np.random.default_rng(0)
    if design == "few texts":
        return random.integers(0, 40, (n, 2))
    if design == "own texts":
        return random.integers(0, n, (n, 2))
    return np.hstack([random.integers(0, n // 4, (n, 2)), n + random.integers(0, 12, (n, 2))])


@pytest.mark.parametrize("design", ["few texts", "own texts", "many texts of twelve speakers"])
def test_twenty_thousand_pairs_take_seconds_and_no_square_of_memory(design):
    """The pairwise arrays of 20,000 pairs would have 3.2 GB each."""
    codes = codes_of(large(design, 20_000))
    sharing = Sharing.of(codes)
    shares = np.full((len(codes), 1), 1 / len(codes))
    variance_of(shares[:10], shares[:10], sharing.split(10)[0])  # imports
    tracemalloc.start()
    start = time.process_time()
    _, dof = variance_of(shares, shares, sharing)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert dof > 1 and seconds < 20 and peak < 400 << 20


def test_limits_of_a_difference_need_no_matrix_of_both_samples():
    codes = codes_of(large("few texts", 12_000))
    sharing = Sharing.of(codes)
    values, draws = np.random.default_rng(1).random((len(codes), 2)), Draws(sharing.n_codes, 50, 0)
    tracemalloc.start()
    means = [mean_of(half, part, draws) for half, part in zip(np.split(values, 2), sharing.split(6_000), strict=True)]
    low, high = limits_of_difference(*means, is_rate=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (low < high).all() and peak < 150 << 20
