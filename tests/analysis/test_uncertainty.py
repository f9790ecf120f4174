"""Intervals, contrasts and hand-over layers of single experiments."""

import warnings

import numpy as np
import pandas as pd
import pytest

from tests.analysis.simulated import contrast, drawn_pairs, effects, flips_of, pair_list, records_of
from voicepatch.analysis.areas import area_of
from voicepatch.analysis.clusters import RESAMPLES, correlation, limits, mean_of, student_t
from voicepatch.analysis.hand_over import curve_of, hand_over
from voicepatch.analysis.layer_metrics import layer_intervals, layer_metrics
from voicepatch.analysis.metrics import BUILT_IN
from voicepatch.analysis.samples import sample_of
from voicepatch.analysis.sharing import Draws, Sharing, codes_of, texts_of
from voicepatch.errors import UserError


@pytest.mark.parametrize("texts", [2, 3, 5])
def test_too_few_texts_give_no_interval_and_the_reason(texts):
    pairs = pair_list(np.arange(20) % texts)
    flips = np.arange(20)[:, None] < [20, 14, 4]
    found = hand_over(flips_of(pairs, flips), pairs, (flips_of(pairs, ~flips), pairs))
    for one in (found, found["suffix"]):
        assert one["layer"] is not None and one["low"] is None and one["high"] is None
        assert one["reason"] == f"an interval needs 6 texts, and there are {texts}"


def test_where_all_pairs_agree_the_limits_are_the_layers_between_which_they_cross():
    pairs = pair_list(np.arange(20))
    found = hand_over(flips_of(pairs, [[True, True, False]] * 20), pairs)
    assert (found["layer"], found["low"], found["high"], found["reason"]) == (1.5, 1, 2, None)


def test_students_quantiles_are_exact():
    dof = [1, 2, 3, 4, 5, 10, 30, 100, 1000]
    exact = [12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.228139, 2.042272, 1.983972, 1.962339]
    assert student_t(np.array(dof)) == pytest.approx(exact, abs=2e-6)
    assert np.isnan(student_t(np.array([0.0]))).all()


@pytest.fixture
def experiment():
    rng = np.random.default_rng(5)
    a, b = drawn_pairs(rng, "semantic", n=60)
    pairs = pair_list(a, b)
    latent = effects(rng, a, b, 10)
    return records_of(pairs, latent < np.linspace(1, -3, 10), rng.random(60) < 0.9), pairs


def drawn_weights(pairs, resamples, seed):
    """How often each pair counts in each resample, [resamples, pairs]."""
    sharing = Sharing.of(codes_of(texts_of(pairs)))
    return Draws(sharing.n_codes, resamples, seed).sums(np.eye(len(pairs)), sharing)


def test_a_pair_counts_as_often_as_its_text_is_drawn_and_as_the_product_where_it_has_two():
    weights = drawn_weights(pair_list(["t1", "t2", "t2"]), 50, seed=1)
    assert (weights[:, 1] == weights[:, 2]).all() and (weights[:, 0] + weights[:, 1] == 2).all()
    crossed = drawn_weights(pair_list(["t1", "t1", "t3"], ["t2", "t3", "t2"]), 50, seed=1)
    assert (crossed >= 0).all() and crossed.max() > 1
    alone = drawn_weights(pair_list(["t1", "t2", "t3"]), 50, seed=1)  # the same texts, hence the same draw
    np.testing.assert_array_equal(crossed, alone[:, [0, 0, 2]] * alone[:, [1, 2, 1]])


def test_the_same_seed_gives_the_same_numbers_and_the_order_of_rows_does_not_matter(experiment):
    records, pairs = experiment
    shuffled, reversed_pairs = records.sample(frac=1, random_state=1), pairs[::-1]
    table = layer_intervals(records, pairs, seed=7, resamples=100)
    pd.testing.assert_frame_equal(table, layer_intervals(shuffled, reversed_pairs, seed=7, resamples=100))
    assert not table.equals(layer_intervals(records, pairs, seed=8, resamples=100))
    control = records.assign(flip_to_target=False)
    difference = contrast(records, control, pairs, pairs, seed=7, resamples=100)
    again = contrast(shuffled, control, reversed_pairs, reversed_pairs, seed=7, resamples=100)
    pd.testing.assert_frame_equal(difference, again)
    found, again = (hand_over(r, p, seed=7, resamples=100) for r, p in ((records, pairs), (shuffled, reversed_pairs)))
    assert [found[key] for key in ("layer", "low", "high")] == pytest.approx(
        [again[k] for k in ("layer", "low", "high")]
    )


@pytest.mark.parametrize(
    ("swept", "values"),
    [(["patch_alpha"], [{"patch_alpha": 0.5}]), (["patch_alpha", "k"], [{"patch_alpha": 0.5, "k": 1}, {"k": 3}])],
)
def test_limits_stand_on_both_sides_of_the_metrics_in_every_cell(experiment, swept, values):
    records, pairs = experiment
    records = pd.concat([records.assign(k=1), *(records.assign(k=1).assign(**value) for value in values)])
    joined = layer_metrics(records, swept=swept).merge(
        layer_intervals(records, pairs, swept=swept), on=["layer", *swept]
    )
    assert len(joined) == 10 * (1 + len(values)) and RESAMPLES == 2000
    for metric in (one.column for one in BUILT_IN if one.limits):
        assert (joined[f"{metric}_low"] <= joined[metric] + 1e-12).all(), metric
        assert (joined[metric] <= joined[f"{metric}_high"] + 1e-12).all(), metric


def test_a_rate_of_0_or_1_is_not_taken_for_certain():
    pairs = pair_list(np.arange(90) % 30)
    table = layer_intervals(records_of(pairs, np.zeros((90, 2), bool)), pairs, resamples=50)
    assert (table["flip_to_target_rate_low"] == 0).all()
    assert table["flip_to_target_rate_high"].between(0.08, 0.2).all()  # 0 of 30 texts, rather than of 90 pairs
    table = layer_intervals(records_of(pairs, np.ones((90, 2), bool)), pairs, resamples=50)
    assert (table["flip_to_target_rate_high"] == 1).all() and table["flip_to_target_rate_low"].between(0.8, 0.92).all()


def test_with_one_text_or_no_eligible_pair_there_are_no_limits():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_text = pair_list(["t"] * 5)
        records = records_of(one_text, [[True], [False], [True], [False], [True]])
        table = layer_intervals(records, one_text, resamples=20)
        assert table.drop(columns="layer").isna().all(axis=None)
        difference = contrast(records, records.assign(flip_to_target=False), one_text, one_text)
        assert difference[["p", "p_max", "low", "high"]].isna().all(axis=None)
        assert difference["reason"].eq("a test needs 6 texts, and there is 1").all()

        pairs = pair_list(["t", "u", "v"])
        table = layer_intervals(records_of(pairs, [[True]] * 3, eligible=False), pairs, resamples=20)
        missing = table.columns[table.isna().any()]
        assert {name.rsplit("_", 1)[0] for name in missing} == {
            "flip_to_target_rate_eligible",
            "normalised_recovery_mean",
        }


@pytest.mark.parametrize("kind", ["prosody", "semantic"])
def test_an_obvious_effect_is_found_where_it_is_and_only_there(kind):
    rng = np.random.default_rng(6)
    a, b = drawn_pairs(rng, kind, n=60)
    pairs = pair_list(a, b)
    main, control = effects(rng, a, b, 6) < [1, 1, 1, -1, -1, -1], effects(rng, a, b, 6) < -1
    table = contrast(flips_of(pairs, main), flips_of(pairs, control), pairs, pairs)
    assert list(table.columns) == ["layer", "difference", "low", "high", "p", "p_max", "n_pairs", "reason"]
    assert (table["p_max"] < 0.01).tolist() == [True] * 3 + [False] * 3
    assert ((table["low"] > 0) == (table["layer"] < 3)).all() and (table["p"] <= table["p_max"]).all()


@pytest.mark.parametrize("kind", ["prosody", "semantic"])
def test_p_is_below_5_percent_exactly_where_the_limits_exclude_0_and_is_never_above_the_corrected_p(kind):
    """Rates near 1 against rates near 0 and near 1, in which random signs alone give p of less than the limits do."""
    n_differ = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        a, b = drawn_pairs(rng, kind, n=24)
        pairs = pair_list(a, b)
        chances = [0.98, 0.9, 0.6, 0.5, 0.3, 0.1]
        main, other = (rng.random((24, 6)) < np.array(chances) - by for by in (0, 0.3))
        table = contrast(flips_of(pairs, main), flips_of(pairs, other), pairs, pairs)
        excludes_0 = (table["low"] > 0) | (table["high"] < 0)
        assert ((table["p"] < 0.05) == excludes_0).all() and (table["p"] <= table["p_max"]).all()
        n_differ += excludes_0.sum()
    assert 0 < n_differ < 36


@pytest.mark.parametrize("other", [["t", "u", "v"], ["u", "v", "t"]])
def test_three_texts_are_too_few_for_a_test_even_of_a_difference_of_1(other):
    pairs = pair_list(["t", "u", "v"], other)
    table = contrast(flips_of(pairs, [[True]] * 3), flips_of(pairs, [[False]] * 3), pairs, pairs)
    assert table["difference"].item() == 1 and np.isnan(table["p_max"].item()) and not table["low"].item() > 0.8
    assert table["reason"].item() == "a test needs 6 texts, and there are 3"


def test_an_experiment_does_not_differ_from_itself(experiment):
    records, pairs = experiment
    table = contrast(records, records, pairs, pairs)
    assert (table["difference"] == 0).all() and (table[["p", "p_max"]] == 1).all(axis=None)
    assert ((table["low"] <= 0) & (table["high"] >= 0)).all()


def test_a_contrast_needs_a_common_layer_and_uses_the_pairs_that_both_have(experiment):
    records, pairs = experiment
    unfinished = records[records["pair_id"].isin(pairs["pair_id"][:40]) & (records["layer"] < 4)]
    table = contrast(records, unfinished, pairs, pairs)
    assert table["layer"].tolist() == [0, 1, 2, 3] and (table["n_pairs"] == 40).all()
    assert (table["difference"] == 0).all()
    with pytest.raises(UserError, match="no layer in common"):
        contrast(records, records.assign(layer=records["layer"] + 50), pairs, pairs)


def test_the_hand_over_is_halfway_between_the_first_layer_and_the_floor():
    pairs = pair_list(np.arange(20))
    flips = np.arange(20)[:, None] < [20, 20, 14, 10, 4, 4]  # four pairs have the target from the beginning
    eligible = np.arange(20) >= 4
    after = np.arange(20)[:, None] < [4, 4, 4, 10, 16, 20]
    found = hand_over(flips_of(pairs, flips, eligible), pairs, (flips_of(pairs, after, eligible), pairs))
    assert found["level"] == pytest.approx((1 + 0.2) / 2)
    assert found["layer"] == pytest.approx(2.5) and found["suffix"]["layer"] == pytest.approx(3 + 2 / 6)
    assert found["low"] < 2.5 < found["high"] and found["reason"] is None
    doses = pd.concat([flips_of(pairs, flips, eligible), flips_of(pairs, flips & False, eligible, alpha=0.5)])
    assert hand_over(doses, pairs)["layer"] == found["layer"]


def test_no_answer_of_a_sort_never_has_a_higher_limit_than_one_answer():
    """Fifteen texts of four clips, beside cells in which the answers of a text are all equal."""
    text = np.repeat(np.arange(15), 4)
    few = [np.arange(60) < n for n in range(7)]
    clumped = [text < n for n in (5, 8, 10)]
    part = np.where(text < 5, few[0], np.nan)  # 0 of 20 clips, of five texts
    sharing = Sharing.of(text[:, None])
    mean = mean_of(np.column_stack([*few, *clumped, part]).astype(float), sharing, Draws(15, 400, 1))
    low, high = limits(mean, True, correlation(mean))
    assert (np.diff(high[:7]) > 0).all()
    t = student_t(np.array([14]))[0]  # texts that agree count as one answer each
    assert high[0] == pytest.approx(t**2 / (15 + t**2), abs=0.01)
    opposite = mean_of(1 - np.column_stack([*few, *clumped, part]), sharing, Draws(15, 400, 1))
    assert limits(opposite, True, correlation(opposite))[0] == pytest.approx(1 - high)


def test_a_hand_over_layer_needs_a_height_whose_interval_is_above_0():
    """Random weights: 22 of 100 pairs give the target at the first layer, and 21 of them without a patch as well."""
    pairs = pair_list(np.arange(100) % 30)
    own = np.arange(100) < 21
    flips = np.column_stack([np.arange(100) < 22, own, own])
    found = hand_over(flips_of(pairs, flips, ~own), pairs)
    assert (found["layer"], found["low"], found["high"]) == (None, None, None)
    area = area_of(curve_of(flips_of(pairs, flips, ~own), pairs, sample_of(pairs), eligible=False))
    height = "starts above A's own rate by 1.0 percentage points (95 % interval −1."
    assert found["reason"].startswith(f"the rate {height}")
    assert found["reason"].removeprefix("the rate") == area["reason"].removeprefix("the curve")
    many = np.column_stack([np.arange(100) < 45, own, own])
    assert hand_over(flips_of(pairs, many, ~own), pairs)["layer"] == pytest.approx(0.5)
    few = pair_list(np.arange(100) % 5)  # no interval around the height either
    found = hand_over(flips_of(few, flips, ~own), few)
    assert found["layer"] == pytest.approx(0.5) and "an interval needs 6 texts" in found["reason"]


def test_a_text_that_is_in_all_pairs_leaves_no_interval():
    """Twenty donors of one recipient: whatever is the recipient's own is in every pair."""
    pairs = pair_list(["a"] * 20, [f"b{i}" for i in range(20)])
    found = hand_over(flips_of(pairs, np.arange(20)[:, None] < [20, 14, 4]), pairs)
    assert found["layer"] == pytest.approx(1.4) and found["low"] is None and found["high"] is None
    assert found["reason"] == "one text is in all pairs"


def test_texts_of_pairs_without_a_record_are_not_counted():
    """Ten texts are listed, and the pairs of five of them failed."""
    pairs = pair_list(np.arange(20) % 10)
    measured = pairs[np.arange(20) % 10 < 5]
    found = hand_over(flips_of(measured, [[True, True, False]] * 10), pairs)
    assert found["layer"] == 1.5 and found["low"] is None and "an interval needs 6 texts" in found["reason"]


def test_where_there_is_no_hand_over_layer_the_reason_is_given():
    pairs = pair_list(np.arange(20))
    always, never = np.ones((20, 3), bool), np.zeros((20, 3), bool)
    assert "does not fall below" in hand_over(flips_of(pairs, always), pairs)["reason"]
    assert "no higher than A's own rate" in hand_over(flips_of(pairs, never), pairs)["reason"]
    falls = flips_of(pairs, [[True, True, False]] * 20)
    found = hand_over(falls, pairs, (flips_of(pairs, never), pairs))
    assert found["layer"] == 1.5 and "does not rise above" in found["suffix"]["reason"]
    found = hand_over(falls, pairs, (flips_of(pairs, always), pairs))
    assert found["suffix"]["layer"] is None and "already" in found["suffix"]["reason"]
    one_text = hand_over(flips_of(pair_list(["t"] * 20), [[True, True, False]] * 20), pair_list(["t"] * 20))
    assert one_text["layer"] == 1.5 and one_text["low"] is None and one_text["high"] is None
    one_layer = hand_over(flips_of(pairs, always[:, :1]), pairs)
    assert one_layer["layer"] is None and one_layer["low"] is None
