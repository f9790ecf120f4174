"""A small version of the table of simulated experiments: intervals hold the truth and tests seldom reject."""

import numpy as np
import pandas as pd
import pytest

from tests.analysis.simulations import COVERS, FALSE, POWER, as_markdown, cells, simulate


def shares(group, design, n_texts, experiments):
    cell = next(cell for cell in cells() if (cell.group, cell.design) == (group, design))
    return simulate(cell, n_texts, experiments).set_index("measure")["share"]


@pytest.mark.parametrize("design", ["prosody, one speaker", "semantic, 10 speakers", "semantic, two sorts of text"])
def test_the_intervals_of_one_curve_hold_the_truth(design):
    found = shares("one curve", design, 12, 30)
    assert len(found) == 3 and (found >= 0.85).all()


@pytest.mark.parametrize("design", ["plain", "two sorts of text", "a dip", "10 speakers"])
def test_areas_without_a_difference_seldom_differ_and_one_layer_is_found(design):
    found = shares("difference of areas", f"{design}, no difference", 12, 60)
    assert found[COVERS] >= 0.88 and found.get(FALSE, 0) <= 0.12
    assert shares("difference of areas", f"{design}, one layer apart", 30, 30)[POWER] >= 0.6


def test_two_runs_without_a_difference_seldom_differ_where_texts_are_of_two_sorts():
    found = shares("two runs", "two sorts of text, the same texts", 12, 40)
    assert (found[[FALSE, f"{FALSE} by layer"]] <= 0.15).all()


def test_a_missing_test_is_a_dash_and_a_share_outside_its_limits_is_bold():
    columns = ["group", "design", "measure", "texts", "share", "n", "misses"]
    rows = [["map", "d", FALSE, 6, np.nan, 0, False], ["map", "d", FALSE, 8, 0.07, 9, True]]
    assert (
        as_markdown(pd.DataFrame(rows, columns=columns)).splitlines()[-1]
        == "| map | d | false positives | – | **7.0** |"
    )
