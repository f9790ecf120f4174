"""The planted check recovers the layer where the span is read, and fails on an engine that patches wrongly."""

from types import SimpleNamespace

import pytest

from tests.commands import MODEL, call, fails
from tests.engine.decoders import make_clip, make_llm
from voicepatch.engine import fused
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.runs.planted import EXACT, N_PAIRS, N_PLANTED, RECOVERED, equally_long, planted_check
from voicepatch.store.reading import read_document


@pytest.fixture(scope="module")
def pairs(small, demo_data):
    return equally_long(small, demo_data.clips[::37])


def passed(report):
    return {check["name"]: check["passed"] for check in report["checks"]}


def test_each_layer_but_the_first_is_recovered(small, pairs):
    assert {pair.n_patched for pair in pairs} == {pair.a.n_audio for pair in pairs} == {p.b.n_audio for p in pairs}
    report = planted_check(small, pairs)
    assert passed(report) == {RECOVERED: True, EXACT: True}
    assert [one["layer"] for one in report["planted"]] == [1, 2, 3]
    for one in report["planted"]:
        assert one["recovered"] == pytest.approx(one["layer"] - 0.5, abs=1e-3)
        assert one["area"] == pytest.approx(one["layer"] - 0.5, abs=1e-3)
        assert one["curve"] == pytest.approx([1] * one["layer"] + [0] * (4 - one["layer"]), abs=1e-3)


@pytest.mark.parametrize("name", ["stepwise", "sweep"])
def test_the_other_engines_recover_it_too(small, pairs, name):
    subject = SimpleNamespace(engine=Engine(small.model.llm, name), labels=small.labels, model=small.model)
    report = planted_check(subject, pairs[:1])
    assert report["passed"] and report["engine"] == name


def test_an_engine_that_ignores_masks_fails(small, pairs, monkeypatch):
    monkeypatch.setattr(fused._Batch, "_write_mask", lambda *_: None)
    assert not any(passed(planted_check(small, pairs)).values())


def test_an_engine_that_patches_one_layer_later_fails(small, pairs, monkeypatch):
    readouts, last = Engine.readouts, small.engine.n_layers - 1

    def later(self, experiment, pair, layers, options):
        return readouts(self, experiment, pair, [min(layer + 1, last) for layer in layers], options)

    monkeypatch.setattr(Engine, "readouts", later)
    assert not any(passed(planted_check(small, pairs)).values())


def test_an_engine_that_writes_nothing_has_no_layer_to_plant(small, pairs, monkeypatch):
    """All readouts are equal then, and a check that compares nothing must not pass."""
    readouts = Engine.readouts

    def unpatched(self, experiment, pair, layers, options):
        found = readouts(self, experiment, pairs[0], layers, options)
        found.logits[:] = found.logits[0]
        return found

    monkeypatch.setattr(Engine, "readouts", unpatched)
    report = planted_check(small, pairs)
    assert not passed(report)[RECOVERED] and report["planted"] == []


def test_a_layer_whose_window_does_not_reach_the_span_is_not_planted():
    llm = make_llm(sliding_window=4)  # in layers 1 and 3; layer 2 hands on what layer 1 read
    model, labels = SimpleNamespace(llm=llm), SimpleNamespace(token_ids=[1, 2, 3, 4, 5])
    subject = SimpleNamespace(engine=Engine(llm), model=model, labels=labels)
    clips = [make_clip(6, seed, after=10) for seed in range(4)]
    report = planted_check(subject, [align(*clips[:2]), align(*clips[2:])])
    assert report["passed"] and [one["layer"] for one in report["planted"]] == [1, 2]
    assert "does not change the readout: layers 3" in report["checks"][0]["text"] and report["checks"][0]["note"]


def test_the_command_stores_what_the_report_shows(tmp_path):
    out = call("check", "--planted", "--out", tmp_path, *MODEL)
    stored = read_document(tmp_path / "sanity_check_planted.json")
    assert stored["passed"] and stored["n_pairs"] == 8
    assert all(f"check: {check['name']}: {check['text']}" in out for check in stored["checks"])


def test_a_failure_ends_with_status_3(tmp_path, monkeypatch):
    monkeypatch.setattr(fused._Batch, "_write_mask", lambda *_: None)
    assert "check failed: " + RECOVERED in fails("check", "--planted", "--out", tmp_path, *MODEL, status=3)


def test_its_layers_and_pairs_are_its_own_and_the_help_says_so(tmp_path):
    call("check", "--planted", "--layers", "3", "--max-pairs", "2", "--out", tmp_path, *MODEL)
    stored = read_document(tmp_path / "sanity_check_planted.json")
    assert [one["layer"] for one in stored["planted"]] == [1, 2, 3] and stored["n_pairs"] == 8
    assert (N_PLANTED, N_PAIRS) == (5, 8)
    assert "up to five layers and eight pairs of its own" in " ".join(call("check", "--help").split())
