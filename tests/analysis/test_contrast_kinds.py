"""The contrast of two main experiments: right on simulated data, refused where it would compare unlike things."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from tests.analysis.made_run import change
from tests.analysis.simulated_kinds import LAYERS, draw
from voicepatch.analysis.areas import area_of
from voicepatch.analysis.contrast_runs import contrast_groups, of_experiment
from voicepatch.analysis.contrasts import ALL, contrast
from voicepatch.analysis.hand_over import curve_of
from voicepatch.analysis.results import KINDS, Results
from voicepatch.analysis.samples import sample_of
from voicepatch.report.compare import _note, compare


def test_a_curve_without_a_height_has_no_difference_and_a_reason():
    one, other = draw(np.random.default_rng(0))
    flat = replace(other, records=other.records.assign(flip_to_target=False))
    assert "the second curve starts no higher than A's own rate" in contrast(one, flat).statistics[ALL]["reason"]
    eligible = other.records["eligible"]
    hardly = other.records["pair_id"].eq(other.records.loc[eligible, "pair_id"].iloc[0]) & other.records["layer"].eq(0)
    low = replace(other, records=other.records.assign(flip_to_target=~eligible | hardly))
    found = contrast(one, low).statistics[ALL]
    assert found["difference"] is None
    assert re.match(
        r"the second curve starts above A's own rate by 1\.[23] percentage points \(95 % interval −", found["reason"]
    )


def test_a_curve_that_never_falls_has_the_largest_area():
    one, other = draw(np.random.default_rng(0))
    never = replace(other, records=other.records.assign(flip_to_target=True))
    alone = area_of(curve_of(one.records, one.pairs, sample_of(one.pairs), eligible=False))
    found = contrast(one, never).statistics[ALL]
    assert found["difference"] == pytest.approx(alone["area"] - LAYERS[-1])


def test_one_text_has_a_difference_without_limits_and_p():
    sides = [
        replace(side, pairs=side.pairs.assign(text_id_a="1", text_id_b="1")) for side in draw(np.random.default_rng(0))
    ]
    found = contrast(*sides).statistics[ALL]
    assert found["difference"] is not None and found["low"] is found["high"] is found["p"] is None
    assert found["reason"] == "an interval needs 6 texts, and there is 1 in the first curve"


def test_models_of_other_depths_are_compared_on_relative_depth_and_not_layer_by_layer():
    one, other = draw(np.random.default_rng(0))
    deeper = replace(other, records=other.records.assign(layer=2 * other.records["layer"]), depth=2 * LAYERS[-1])
    found = contrast(replace(one, depth=LAYERS[-1]), deeper)
    same = contrast(one, other).statistics[ALL]["difference"]
    assert found.table.empty and found.statistics[ALL]["difference"] == pytest.approx(same / LAYERS[-1])


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (None, 5.0, "4.0 (95 % interval from before the first layer patched to 5.0)"),
        (2.0, None, "4.0 (95 % interval 2.0 to after the last layer patched)"),
        (None, None, "4.00 (no interval)"),
    ],
)
def test_an_end_outside_the_patched_layers_is_open_in_the_comparison(low, high, shown):
    row = {"curve": "A", "n_pairs": 20, "alpha": 1.0, "layers": "all", "n_layers": 10, "hand_over_layer": 4.0}
    row |= {"median_span": 12.0, "frames_per_second": None, "low": low, "high": high}
    assert f"hand-over layer {shown}" in _note(row)


def _contrasts(one, other, out):
    runs = {"A": Results(one), "B": Results(other)}
    groups = {
        kind: [of_experiment(name, results, results.main(kind)) for name, results in runs.items()] for kind in KINDS
    }
    return contrast_groups(groups, out)


def test_runs_are_contrasted_kind_by_kind(run_of_two_kinds, two_kinds, tmp_path, monkeypatch):
    monkeypatch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
    out = tmp_path / "comparison"
    table, _ = compare([two_kinds, run_of_two_kinds], out)
    interval = r"\(95 % interval −(\S+) to \+\1, p = 1.00\)"
    of_areas = [line for line in table.attrs["contrasts"] if "areas" in line]
    assert len(of_areas) == 2 and all(
        re.search(f"difference of the areas under the curves 0.00 layers {interval}", line) for line in of_areas
    )
    statistics = json.loads((out / "contrasts.json").read_text())
    assert all(entry[ALL]["difference"] == 0 for entry in statistics.values())
    assert len(list(out.glob("contrast_*_vs_*.csv"))) == 2
    of_same_texts = [entry[ALL]["high"] for entry in statistics.values()]
    change(run_of_two_kinds, "patching_config.json", lambda c: c["data"].update(sha256="0" * 64))
    _contrasts(two_kinds, run_of_two_kinds, out)
    statistics = json.loads((out / "contrasts.json").read_text())
    of_others = [entry[ALL]["high"] for entry in statistics.values()]
    assert all(other > same > 0 for same, other in zip(of_same_texts, of_others, strict=True))
    change(run_of_two_kinds, "patching_config.json", lambda c: c["model"].update(n_layers=20))
    change(
        run_of_two_kinds, "patching_config.json", lambda c: c["experiments"]["semantic"].update(patch_all_layers=False)
    )
    prosody, semantic, *_ = _contrasts(two_kinds, run_of_two_kinds, out)
    assert "of the relative depth" in prosody
    assert "not contrasted: B was not patched at all layers, and the models have different numbers" in semantic
