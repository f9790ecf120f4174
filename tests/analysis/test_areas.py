"""The area under a curve of answers: its value by hand, its limits, and where there are none."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from voicepatch.analysis.areas import Falling, area_difference, area_of


def curve(last, floor=None, texts=None, speakers=None, n_layers=8, first=0):
    """Rows that are 1 up to the layer `last` and 0 after it, one text each."""
    last, layers = np.asarray(last), np.arange(first, first + n_layers)
    floor = np.zeros(len(last)) if floor is None else np.asarray(floor, float)
    values = np.maximum(layers <= last[:, None], floor[:, None]).astype(float)
    texts = np.arange(len(last)) if texts is None else np.asarray(texts)
    speakers = None if speakers is None else np.asarray(speakers)[:, None]
    return Falling(layers.astype(float), values, floor, texts[:, None], speakers)


@pytest.mark.parametrize("first", [0, 4])
def test_a_curve_that_falls_at_once_before_layer_k_has_the_area_k_minus_a_half(first):
    assert area_of(curve([first + 2] * 8, first=first))["area"] == pytest.approx(first + 2.5)


def test_rows_that_are_at_the_floor_already_do_not_count():
    assert area_of(curve([2] * 8 + [0] * 4, floor=[0] * 8 + [1] * 4))["area"] == pytest.approx(2.5)


def test_the_error_is_that_of_leaving_out_texts_by_hand():
    last, texts = np.array([1, 2, 2, 3, 4, 4, 5, 6]), np.array([0, 0, 1, 2, 3, 4, 5, 6])
    found, area = area_of(curve(last, texts=texts)), (last + 0.5).mean()
    error = np.sqrt(sum(((last[texts != text] + 0.5).mean() - area) ** 2 for text in range(7)))
    dof = 8**2 / (2**2 + 6 * 1**2) - 1  # one text has two rows, six have one
    assert found["area"] == pytest.approx(area)
    assert found["high"] - found["area"] == pytest.approx(stats.t.ppf(0.975, dof) * error)


def test_what_is_particular_to_a_pair_counts_once_with_two_texts_a_pair():
    """12 pairs of 24 texts, each in one pair: the pairs alone are independent."""
    last = np.array([1, 2, 3, 4, 5, 6, 3, 4, 2, 3, 5, 1])
    of_one, of_two = curve(last), curve(last)
    of_two = replace(of_two, texts=np.arange(24).reshape(12, 2))
    width, width_of_two = (found["high"] - found["low"] for found in (area_of(of_one), area_of(of_two)))
    by_dof = stats.t.ppf(0.975, 23) / stats.t.ppf(0.975, 11)
    assert width_of_two == pytest.approx(width * by_dof)


def test_texts_that_never_flip_do_not_add_to_the_degrees_of_freedom():
    last = np.array([1, 2, 3, 4, 5, 6, 3, 4])
    alone, with_others = area_of(curve(last)), area_of(curve(np.r_[last, [-1] * 4]))
    assert with_others["area"] == pytest.approx(alone["area"])
    widths = [found["high"] - found["low"] for found in (alone, with_others)]
    assert widths[1] == pytest.approx(widths[0], rel=0.03)


def test_p_is_below_5_percent_exactly_where_the_limits_exclude_0():
    random, seen = np.random.default_rng(0), set()
    for _ in range(60):
        one, other = (curve(random.integers(1, 6, 10) + shift) for shift in (1, 0))
        found = area_difference(one, other)
        excludes = found["low"] > 0 or found["high"] < 0
        assert excludes == (found["p"] < 0.05)
        seen.add(excludes)
    assert seen == {True, False}


def test_texts_that_all_agree_leave_as_much_error_as_one_text_that_differs_by_a_layer():
    found = area_difference(curve([4] * 10), curve([2] * 10))
    assert found["difference"] == pytest.approx(2)
    assert found["high"] - found["difference"] == pytest.approx(2.262157 / 10)


def test_limits_stay_within_the_layers():
    last = [0, 0, 0, 0, 0, 7]
    found = area_of(curve(last))
    assert (found["low"], found["high"]) == (0, pytest.approx(found["area"] + (found["high"] - found["area"])))
    assert area_difference(curve([7, 7, 7, 7, 7, 0]), curve(last))["high"] <= 7


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (curve([3] * 5), "an interval needs 6 texts, and there are 5"),
        (curve([3] * 8, texts=[0] * 8), "an interval needs 6 texts, and there is 1"),
        (curve([-1] * 8), "the curve starts no higher than its floor"),
        (curve([3, 3] + [-1] * 10), "may not be above it at all"),
    ],
)
def test_the_reason_where_there_are_no_limits(one, reason):
    found = area_of(one)
    assert found["low"] is found["high"] is found["p"] is None
    assert reason in found["reason"]


def test_speakers_that_differ_widen_the_limits():
    random = np.random.default_rng(1)
    texts, speakers = (part.ravel() for part in np.meshgrid(np.arange(12), np.arange(8)))
    last = 3 + np.where(speakers % 2, 1, -1) + random.integers(-1, 2, len(texts))
    widths = [
        found["high"] - found["low"]
        for found in (area_of(curve(last, texts=texts, speakers=who)) for who in (None, speakers))
    ]
    assert widths[1] > 3 * widths[0]


def test_two_curves_of_the_same_texts_have_a_smaller_error_than_of_other_texts():
    last = np.array([1, 2, 3, 4, 5, 6, 3, 4])
    paired = area_difference(curve(last), curve(last - 1))
    apart = area_difference(curve(last), curve(last - 1, texts=np.arange(10, 18)))
    assert paired["high"] - paired["low"] < (apart["high"] - apart["low"]) / 2
