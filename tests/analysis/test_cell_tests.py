"""The test of a map's cells: error rates, p by hand, and when there is no test."""

import numpy as np
import pytest

from tests.analysis.simulated import effects_without_effect, one_text_a_pair, two_texts_a_pair
from voicepatch.analysis.cell_tests import cell_tests, pseudo_values, step_down
from voicepatch.analysis.sharing import Sharing, codes_of


@pytest.mark.parametrize(("n_texts", "two", "n_cells"), [(12, False, 40), (12, True, 40), (30, True, 200)])
def test_without_an_effect_few_maps_have_a_marked_cell_and_a_planted_cell_is_found(n_texts, two, n_cells):
    random = np.random.default_rng(1)
    texts = two_texts_a_pair(n_texts, 3 * n_texts, random) if two else one_text_a_pair(n_texts)
    false, found = 0, 0
    for seed in range(200):
        effects = effects_without_effect(texts, n_cells, random)
        false += (cell_tests(effects, texts, seed, draws=199).p_max < 0.05).any()
        if seed < 20:
            effects[:, 3] += 6
            p_max = cell_tests(effects, texts, seed, draws=199).p_max
            found += p_max[3] < 0.05 and p_max[3] == p_max.min()
    assert false <= 0.08 * 200
    assert found >= 18


def test_speakers_that_are_a_sample_do_not_mark_cells_without_an_effect_either():
    random, false, fixed = np.random.default_rng(2), 0, 0
    texts, speakers = (part.ravel() for part in np.meshgrid(np.arange(12), np.arange(10)))
    texts, speakers = (names[:, None].repeat(2, 1) for names in (texts, speakers))
    for seed in range(100):
        effects = effects_without_effect(texts, 40, random) + 3 * random.standard_normal((10, 40))[speakers[:, 0]]
        false += (cell_tests(effects, texts, seed, speakers, draws=199).p_max < 0.05).any()
        fixed += (cell_tests(effects, texts, seed, draws=199).p_max < 0.05).any()
    assert false <= 8 and fixed > 50
    effects[:, 3] += 6
    assert cell_tests(effects, texts, 1, speakers).p_max[3] < 0.05


def test_pseudo_values_are_of_the_mean_without_all_pairs_of_a_text():
    texts = np.array([["x", "y"], ["y", "z"], ["z", "z"], ["z", "x"], ["w", "w"]], object)
    effects = np.arange(10.0).reshape(5, 2) ** 2
    names = np.unique(texts.astype(str))
    without = np.array([effects[(texts != name).all(1)].mean(0) for name in names])
    expected = 3 * (without.mean(0) - without)
    assert pseudo_values(effects, Sharing.of(codes_of(texts))) == pytest.approx(expected)


def test_with_one_pair_a_text_the_error_is_that_of_a_mean():
    effects = np.random.default_rng(1).standard_normal((9, 3))
    found = cell_tests(effects, one_text_a_pair(9, 1), 1)
    assert found.effect == pytest.approx(effects.mean(0))
    assert found.se == pytest.approx(effects.std(0, ddof=1) / 3)
    middle, reach = (found.high + found.low) / 2, (found.high - found.low) / 2
    assert middle == pytest.approx(found.effect)
    assert np.ptp(reach / found.se) == pytest.approx(0) and (reach > 2.31 * found.se).all()  # wider than Student's


def test_p_is_that_of_a_plain_loop_over_draws_and_cells():
    deviations = np.random.default_rng(3).standard_normal((7, 4))
    deviations -= deviations.mean(0)
    t, draws = np.array([1.2, 4.0, 2.5, 0.1]), 300
    signs = np.random.default_rng(5).choice([-1.0, 1.0], size=(draws, 7))
    drawn = []
    for row in signs:
        signed = [[sign * value for sign, value in zip(row, column, strict=True)] for column in deviations.T]
        drawn.append([abs(np.mean(cell)) / (np.std(cell, ddof=1) / np.sqrt(7)) for cell in signed])
    expected, before = {}, 0.0
    for rank, cell in enumerate([1, 2, 0, 3]):
        remaining = [1, 2, 0, 3][rank:]
        reaching = sum(max(one[other] for other in remaining) >= t[cell] for one in drawn)
        before = expected[cell] = max(before, (1 + reaching) / (1 + draws), 2**-6)
    p, critical = step_down(t, [deviations], draws, 5)
    assert p == pytest.approx([expected[cell] for cell in range(4)])
    above, at_least = (sum(max(one) > critical * by for one in drawn) for by in (1 + 1e-9, 1 - 1e-9))
    assert above <= 0.05 * draws <= at_least


def test_a_smaller_statistic_never_has_a_smaller_p_and_the_same_seed_gives_the_same():
    random = np.random.default_rng(11)
    texts = one_text_a_pair(10)
    effects = effects_without_effect(texts, 60, random) + random.uniform(0, 3, 60)
    found, again, other = (cell_tests(effects, texts, seed) for seed in (1, 1, 2))
    order = np.argsort(-np.abs(found.effect / found.se))
    assert (np.diff(found.p_max[order]) >= 0).all() and len(np.unique(found.p_max)) > 5
    assert (found.p_max == again.p_max).all() and (found.high == again.high).all()
    assert (found.p_max != other.p_max).any()
    assert (found.p_max >= 2.0**-9).all()  # ten texts have no more distinct signs
    assert (found.q[order][:5] <= found.p_max[order][:5]).all()


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (one_text_a_pair(5), "a test needs 6 texts, and there are 5"),
        (
            np.array([[a, (a + 1) % 11] for a in range(11)]),
            "a test of pairs with two texts needs 12 texts, and there are 11",
        ),
        (np.array([[0, a] for a in range(1, 13)]), "one text is in all pairs"),
    ],
)
def test_with_too_few_texts_there_is_an_effect_and_a_reason_but_no_p(texts, reason):
    effects = np.ones((len(texts), 3))
    found = cell_tests(effects, texts, 1)
    assert found.reason == reason and found.effect.tolist() == [1, 1, 1]
    assert all(np.isnan(part).all() for part in (found.se, found.low, found.high, found.p_max, found.q))


@pytest.mark.parametrize("texts", [one_text_a_pair(6), np.array([[a, (a + 1) % 12] for a in range(12)])])
def test_six_texts_one_a_pair_and_twelve_texts_two_a_pair_are_enough(texts):
    found = cell_tests(np.random.default_rng(1).standard_normal((len(texts), 3)), texts, 1)
    assert not found.reason and np.isfinite(found.p_max).all()


def test_a_cell_in_which_nothing_changes_has_p_1_and_an_equal_change_everywhere_the_smallest():
    effects = np.random.default_rng(1).standard_normal((20, 3))
    effects[:, 0], effects[:, 1] = 0, 0.3
    found = cell_tests(effects, one_text_a_pair(10), 1)
    assert found.p_max[0] == found.q[0] == 1 and found.low[0] == found.high[0] == 0
    assert found.p_max[1] == 2.0**-9 and found.low[1] == pytest.approx(0.3)


def test_where_speakers_are_a_sample_it_needs_eight_texts():
    texts, speakers = (part.ravel() for part in np.meshgrid(np.arange(7), np.arange(10)))
    texts, speakers = (names[:, None].repeat(2, 1) for names in (texts, speakers))
    effects = np.random.default_rng(0).standard_normal((len(texts), 3))
    assert cell_tests(effects, texts, 1, speakers).reason == "a test needs 8 texts, and there are 7"
    assert not cell_tests(effects, texts, 1).reason
