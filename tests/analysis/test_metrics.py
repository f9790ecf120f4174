"""Metrics of records written by hand, whose values can be read off."""

import numpy as np
import pandas as pd
import pytest

from voicepatch.analysis.layer_metrics import layer_metrics, near_ties

LABELS = ["neutral", "happy", "sad", "angry", "surprised"]
FIXED_COLUMNS = [
    *("layer", "n_pairs", "eligible_count", "flip_to_target_rate", "flip_from_base_rate", "delta_logit_target_mean"),
]


def logits(**given):
    return {label: float(given.get(label, 0)) for label in LABELS}


def record(layer, target, base, patch, donor):
    answers = [max(LABELS, key=x.get) for x in (base, patch)]
    return {
        "layer": layer,
        "target": target,
        "pred_base": answers[0],
        "pred_patch": answers[1],
        "eligible": answers[0] != target,
        "flip_to_target": answers[1] == target,
        "flip_from_base": answers[1] != answers[0],
        "delta_logit_target": patch[target] - base[target],
        "logits_base": base,
        "logits_patch": patch,
        "logits_donor": donor,
        "label_mass_patch": 0.9,
        "patch_alpha": 1.0,
        "semantic_label_b": "happy",
        "prosody_label_b": "sad",
        "stream_shift": 0.5,
        "patched_from": 3,
        "site": "output",
    }


@pytest.fixture
def records():
    sad, happy = logits(sad=4), logits(happy=4)
    return pd.DataFrame(
        [
            record(0, "happy", sad, happy, happy),  # flips
            record(0, "happy", happy, happy, happy),  # not eligible: was the target before
            record(0, "happy", sad, logits(angry=2, sad=1), happy),  # leaves its answer for another one
            record(0, "happy", sad, sad, sad),  # the donor is no better: no recovery can be had
            record(3, "happy", sad, logits(sad=4, happy=2), happy),  # moves half the way, does not flip
        ]
    )


def test_the_fixed_columns_come_first(records):
    assert list(layer_metrics(records).columns)[:6] == FIXED_COLUMNS


def test_rates_are_over_all_pairs_and_over_the_eligible(records):
    first, last = layer_metrics(records).to_dict("records")
    assert (first["layer"], first["n_pairs"], first["eligible_count"]) == (0, 4, 3)
    assert first["flip_to_target_rate"] == 2 / 4
    assert first["flip_to_target_rate_eligible"] == 1 / 3
    assert first["flip_from_base_rate"] == 2 / 4
    assert first["base_is_target_rate"] == 1 / 4
    assert first["donor_is_target_rate"] == 3 / 4
    assert first["delta_logit_target_mean"] == 1.0  # 4, 0, 0, 0
    assert (last["layer"], last["flip_to_target_rate"], last["delta_logit_target_mean"]) == (3, 0, 2)


def test_recovery_is_the_share_of_the_way_to_the_donor_and_guards_small_ways(records):
    first, last = layer_metrics(records).to_dict("records")
    # happy − sad goes from −4 to 4 at the flip, to −1 in the third; the fourth has no way to go.
    assert first["recovery_n"] == 2
    assert first["normalised_recovery_mean"] == pytest.approx((8 / 8 + 3 / 8) / 2)
    assert last["normalised_recovery_mean"] == pytest.approx(2 / 8)


def test_kl_is_zero_where_the_patched_answer_is_the_donors(records):
    table = layer_metrics(records[:2])
    assert table["kl_to_donor_mean"].item() == pytest.approx(0, abs=1e-12)
    p, q = (np.exp(list(x.values())) for x in (logits(happy=4), logits(sad=4, happy=2)))
    p, q = p / p.sum(), q / q.sum()
    assert layer_metrics(records)["kl_to_donor_mean"].iloc[1] == pytest.approx((p * np.log(p / q)).sum())


def test_a_layer_without_an_eligible_pair_has_no_eligible_rate(records):
    table = layer_metrics(records[1:2])
    assert table["flip_to_target_rate_eligible"].isna().all() and table["recovery_n"].item() == 0


@pytest.mark.parametrize(
    ("best", "second", "tie"), [(4, 4, True), (4, 3.9995, True), (4, 3.998, False), (-4, -4.0005, True)]
)
def test_an_answer_is_a_near_tie_when_its_best_two_labels_are_within_the_margin(best, second, tie):
    far = dict.fromkeys(LABELS, -9.0)
    for one, other in (("sad", "happy"), ("neutral", "surprised"), ("surprised", "angry")):
        assert near_ties(pd.Series([far | {one: best, other: second}]), 1e-3).tolist() == [tie]


def test_two_equal_labels_are_a_near_tie_at_any_margin():
    assert near_ties(pd.Series([logits(sad=1, happy=1), logits(sad=1)]), 0.0).tolist() == [True, False]


def test_near_ties_are_counted_by_layer_over_patched_answers_alone(records):
    assert layer_metrics(records)["near_tie_count"].tolist() == [0, 0]
    # The angry answer of layer 0 leads by 1 logit, that of layer 3 by 2; A's own and B's stay as clear as they were.
    assert layer_metrics(records, 1.5)["near_tie_count"].tolist() == [1, 0]
    assert layer_metrics(records, 2.5)["near_tie_count"].tolist() == [1, 1]
    assert layer_metrics(records, 4.5)["near_tie_count"].tolist() == [4, 1]
