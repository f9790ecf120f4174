"""Contrasts of simulated experiments cover the truth and seldom reject without an effect."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.analysis.simulated_kinds import OWN, draw, truth
from voicepatch.analysis.contrasts import ALL, ELIGIBLE, contrast
from voicepatch.analysis.samples import ENOUGH_SPEAKERS, sample_of
from voicepatch.errors import UserError


def simulated(n, **how):
    """Of n experiments: coverage by layer, share with any p_max below 0.05; coverage of the difference of the areas,
    and share with p below 0.05."""
    random, later = np.random.default_rng(5), how.get("later", 0.0)
    by_layer, of_areas = truth(later, how.get("n_speakers", 1))
    inside, rejected, covered, told_apart = [], [], [], []
    for seed in range(n):
        found = contrast(*draw(random, **how), seed=seed, resamples=250)
        for group, scale in ((ALL, 1), (ELIGIBLE, 1 - OWN)):
            table = found.table[found.table["pairs"] == group]
            true = by_layer / scale
            inside.append(((table["low"] <= true) & (true <= table["high"]))[1:7].mean())
            rejected.append((table["p_max"] < 0.05).any())
        of = found.statistics[ALL]
        if of["reason"] is None:
            covered.append(of["low"] <= of_areas <= of["high"])
            told_apart.append(of["p"] < 0.05)
    return [np.mean(shares) for shares in (inside, rejected, covered, told_apart)]


def test_without_an_effect_the_intervals_cover_and_the_tests_seldom_reject():
    coverage, rejected, covered, told_apart = simulated(50, n_texts=30)
    assert 0.92 <= coverage <= 0.98 and covered >= 0.92
    assert rejected <= 0.10 and told_apart <= 0.08


def test_with_ten_texts_they_are_on_the_safe_side():
    coverage, rejected, covered, told_apart = simulated(30, n_texts=10)
    assert coverage >= 0.94 and covered >= 0.94 and rejected <= 0.06 and told_apart <= 0.06


def test_an_effect_is_found_and_covered():
    coverage, rejected, covered, told_apart = simulated(24, n_texts=30, later=1.0)
    assert coverage >= 0.92 and covered >= 0.9 and told_apart >= 0.7 and rejected >= 0.25


def test_the_sides_are_independent_of_the_order_of_their_rows_and_signs_follow_their_order():
    one, other = draw(np.random.default_rng(0), later=1.0)
    found, mirrored = contrast(one, other), contrast(other, one)
    np.testing.assert_allclose(found.table["difference"], -mirrored.table["difference"])
    shuffled = replace(one, records=one.records.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(contrast(shuffled, other).table, found.table)
    assert found.statistics[ALL]["difference"] == pytest.approx(-mirrored.statistics[ALL]["difference"])
    assert {"difference", "low", "high", "p", "reason"} <= set(found.statistics[ALL])
    assert found.table.columns.tolist()[:7] == ["pairs", "layer", "difference", "low", "high", "p", "p_max"]
    eligible = int(one.records.drop_duplicates("pair_id")["eligible"].sum())
    assert found.table.query("pairs == 'eligible'")["n_prosody"].eq(eligible).all()


def test_texts_and_speakers_of_one_data_set_are_the_same_in_both_and_of_two_are_not():
    pairs = [side.pairs for side in draw(np.random.default_rng(0), n_texts=30, n_speakers=ENOUGH_SPEAKERS)]
    sample = sample_of(*pairs)
    assert sample.n_speakers == ENOUGH_SPEAKERS and sample.sharing.n_codes == 30 + ENOUGH_SPEAKERS
    apart = sample_of(*pairs, within=["one corpus", "another"])
    n_texts = sum(len({*table["text_id_a"], *table["text_id_b"]}) for table in pairs)
    assert apart.n_speakers == 2 * ENOUGH_SPEAKERS and apart.sharing.n_codes == n_texts + 2 * ENOUGH_SPEAKERS
    few = [side.pairs for side in draw(np.random.default_rng(0), n_speakers=ENOUGH_SPEAKERS - 1)]
    assert sample_of(*few).n_speakers == 0 and sample_of(*few).sharing.n_codes == 30
    assert len(sample_of(*few).named) == ENOUGH_SPEAKERS - 1
    unnamed = sample_of(*(table.assign(speaker_a=None, speaker_b="") for table in pairs))
    assert unnamed.n_speakers == len(unnamed.named) == 0


def test_other_layers_are_one_line():
    one, other = draw(np.random.default_rng(0))
    fewer = replace(other, records=other.records[other.records["layer"].isin([0, 3])])
    with pytest.raises(UserError, match="prosody was patched at layers 0-7, semantic at 0,3; run both at the same"):
        contrast(one, fewer)
