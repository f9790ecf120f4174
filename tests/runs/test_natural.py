"""How far patched states are from unpatched ones: the distance, the states, and what the command makes of them."""

import numpy as np
import pandas as pd
import pytest
import torch

from interventions import load_intervention
from pairs import build_pairs
from tests.commands import MODEL, call, fails
from voicepatch.analysis.distances import distances, left_out_distances, n_components
from voicepatch.engine.pair_input import align
from voicepatch.runs.natural import NOISE, OWN, PATCHED, natural_table, states_of

RNG = np.random.default_rng(1)


def test_with_all_components_it_is_the_mahalanobis_distance():
    natural, states = RNG.normal(size=(40, 3)) @ RNG.normal(size=(3, 3)), RNG.normal(size=(5, 3))
    inverse = np.linalg.inv(np.cov(natural.T))
    gap = states - natural.mean(0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", gap, inverse, gap))
    np.testing.assert_allclose(distances(natural, states, 3), expected)


def test_a_state_is_measured_without_itself():
    natural = RNG.normal(size=(30, 50))
    found = left_out_distances(natural, 6)
    assert found[3] == pytest.approx(distances(np.delete(natural, 3, axis=0), natural[3:4], 6)[0])
    natural[3] *= 20  # it lies far from the others, though not from a mean and directions that it draws to itself
    assert left_out_distances(natural, 6)[3] > 5 * distances(natural, natural[3:4], 6)[0]


def test_states_like_the_natural_ones_lie_outside_at_the_nominal_rate():
    natural, more = RNG.normal(size=(150, 40)), RNG.normal(size=(1000, 40))
    k = n_components(len(natural))
    limit = np.quantile(left_out_distances(natural, k), 0.95)
    assert k == 16 and 0.02 < (distances(natural, more, k) > limit).mean() < 0.10


def test_states_are_those_of_the_patched_readouts(small, demo_data):
    pair = align(*(small.clips.get(clip) for clip in demo_data.clips[:2]))
    donors = [stream[:, pair.b_span] for stream in small.engine.record(pair.b).streams]
    llm, layers = small.model.llm, range(small.engine.n_layers)
    states = torch.from_numpy(states_of(small, pair, donors)).float()
    with torch.inference_mode():
        logits = llm.lm_head(llm.model.norm(states))
    expected = small.engine.readouts(load_intervention("patch"), pair, layers, [{}]).logits[1:]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_a_patch_of_the_last_layer_changes_no_state(small, demo_data):
    pairs = build_pairs(demo_data.clips, "prosody", max_pairs=30).pairs
    table = natural_table(small, {"prosody": pairs}, seed=42).set_index(["written", "layer"])
    last = small.engine.n_layers - 1
    assert table.loc[(PATCHED, last), "median_distance"] == table.loc[(NOISE, last), "median_distance"]
    own = table.loc[OWN].iloc[0]
    assert own["outside_rate"] == pytest.approx(0.05, abs=0.02) and own["n_components"] == own["n_clips"] // 4
    assert table.loc[(NOISE, 0), "median_distance"] > own["median_distance"]


def test_the_command_writes_a_table_and_a_figure_and_the_report_shows_it(tmp_path):
    run = tmp_path / "run"
    call("patch", "--kind", "prosody", "--max-pairs", "20", "--no-figures", "--out", run, *MODEL)
    out = call("check", "--natural", "--max-pairs", "20", "--out", run, *MODEL)
    table = pd.read_csv(run / "natural.csv")
    assert len(table) == 2 * (1 + 2 * 4) and (run / "natural.svg").is_file()
    assert "Inside does not mean natural" in out
    page = (run / "report.html").read_text()
    assert "How many patched readout states lie outside the unpatched ones" in page
    assert 'data-figure="natural"' in page
    (run / "natural.csv").write_text("kind,written\nprosody,noise\n")
    assert "natural.csv: is not the table of `check --natural`" in fails("report", run, status=1)
    (run / "natural.csv").unlink()
    call("report", run)
    assert 'data-figure="natural"' not in (run / "report.html").read_text()


def test_too_few_clips_are_an_error_before_the_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("voicepatch.commandline.loading.load_model", lambda *_: pytest.fail("the model is loaded"))
    line = fails("check", "--natural", "--max-pairs", "5", "--out", tmp_path, *MODEL, status=1)
    assert "needs 24 clips in the prosody pairs, which have 10; take more pairs" in line
