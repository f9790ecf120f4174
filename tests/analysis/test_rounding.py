"""Estimates have as many digits as their intervals make sense of."""

import pytest

from voicepatch.analysis.rounding import p_text, rate_text, with_interval


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((0.8512, 0.178, 1.9249), ("0.85", "95 % interval 0.18 to 1.92")),
        ((5.1, 4.557, 5.4), ("5.10", "95 % interval 4.56 to 5.40")),
        ((2.4, -3.44, -1.06), ("2.4", "95 % interval −3.4 to −1.1")),
        ((0.43, 0.4012, 0.4449), ("0.430", "95 % interval 0.401 to 0.445")),
        ((20.6, 0.4, 40.4), ("20.6", "95 % interval 0.4 to 40.4")),
        ((20.6, -0.4, 40.4), ("21", "95 % interval 0 to 40")),
        ((-2.3, -4.683, -0.0101), ("−2.30", "95 % interval −4.68 to −0.01")),
        ((-0.001, -0.001, 0.4), ("0.00", "95 % interval 0.00 to 0.40")),
        ((4.5, 4.5, 4.5), ("4.50", "95 % interval 4.50 to 4.50")),
        ((4.5, None, 6.0), ("4.5", "95 % interval from before the first layer patched to 6.0")),
        ((4.5, 4.2, None), ("4.50", "95 % interval 4.20 to after the last layer patched")),
        ((4.5, None, None), ("4.50", "")),
    ],
)
def test_the_width_decides_the_decimals_of_all_three_numbers(numbers, said):
    assert with_interval(*numbers) == said


def test_signs_are_given_where_asked_for():
    assert with_interval(0.5, -0.25, 1.3, "+") == ("+0.50", "95 % interval −0.25 to +1.30")


@pytest.mark.parametrize(
    ("p", "said"),
    [(0.0004, "p < 0.001"), (0.0079, "p = 0.008"), (0.0171, "p = 0.02"), (0.0491, "p = 0.049"), (0.3, "p = 0.30")],
)
def test_a_p_value_has_as_many_decimals_as_its_side_of_a_limit_needs(p, said):
    assert p_text(p) == said


def test_a_rate_of_0_has_the_decimals_of_its_limits():
    assert [rate_text(one, 0.0, 0.18) for one in (0.0, 0.18)] == ["0.0%", "18.0%"]
    assert rate_text(0.0) == "0%" and rate_text(0.0, 0.0, 0.6) == "0%"
