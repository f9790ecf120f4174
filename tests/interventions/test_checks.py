"""The checks pass on a sound set-up, and fail on the mistakes that they are there for."""

import pytest
import torch

from interventions import load_intervention
from interventions.core import checks
from interventions.core.traced import TracedLM
from models.opens2s_io import ClipInput


@pytest.fixture(scope="module")
def clips(demo_data):
    return demo_data.clips[:5]


def test_spans_are_found_with_the_length_that_the_duration_asks_for(demo, clips):
    report = checks.span_check(demo, clips)
    assert report["passed"] and len(report["clips"]) == 5
    for row in report["clips"]:
        assert row["n_audio"] == row["n_audio_expected"] == row["span_end"] - row["span_start"] + 1
        assert row["tokens_before"][-1] == "<|im_audio_start|>" and row["tokens_after"][0] == "<|im_audio_end|>"
        assert row["ids_in_span"] == [-200]


def test_a_span_that_is_too_short_fails(demo, clips, monkeypatch):
    frames = demo.clips.frames
    monkeypatch.setattr(demo.clips, "frames", lambda clip: frames(clip)[:-1])
    assert not checks.span_check(demo, clips)["passed"]


def test_self_patching_passes_with_floor_and_ceiling(demo, clips):
    report = checks.self_patch_check(demo, clips, range(demo.lm.n_layers))
    assert report["passed"] and report["prediction_agreement"] == 1
    assert report["n_predictions"] == 5 * demo.lm.n_layers
    assert report["max_abs_delta_logit"] < 1e-4
    assert report["last_layer_max_abs_delta_logit"] == 0
    assert report["embeddings_max_abs_difference_from_donor"] < 1e-4


def _shifted(branch):
    def write(self, layer, span, value, alpha=1.0):
        branch(self, layer, slice(span.start - 1, span.stop - 1), value, alpha)

    return write


def _scaled(branch, factor=1.5):
    def write(self, layer, span, value, alpha=1.0):
        branch(self, layer, span, value * factor, alpha)

    return write


@pytest.mark.parametrize("fault", [_shifted, _scaled])
def test_a_faulty_write_fails_the_self_patch(demo, clips, monkeypatch, fault):
    monkeypatch.setattr(TracedLM, "branch", fault(TracedLM.branch))
    assert not checks.self_patch_check(demo, clips, range(demo.lm.n_layers))["passed"]


def test_a_patch_that_reaches_the_readout_fails_at_the_last_layer(demo, clips, monkeypatch):
    monkeypatch.setattr(checks, "patch", load_intervention("suffix"))
    report = checks.self_patch_check(demo, clips, [0])
    assert not report["passed"] and report["last_layer_max_abs_delta_logit"] > 0
    assert report["max_abs_delta_logit"] <= report["tolerance"] and report["prediction_agreement"] == 1


def test_changed_answers_fail_however_much_noise_is_allowed(demo, clips, monkeypatch):
    monkeypatch.setattr(checks, "NOISE", dict.fromkeys(checks.NOISE, float("inf")))
    monkeypatch.setattr(TracedLM, "branch", _scaled(TracedLM.branch, -1))
    report = checks.self_patch_check(demo, clips, range(demo.lm.n_layers - 1))
    assert report["prediction_agreement"] < 1 and not report["passed"]


def test_a_prompt_that_differs_between_clips_fails_the_ceiling(demo, clips, monkeypatch):
    get = demo.clips.get

    def with_noise(clip, n_audio=None):
        inputs = get(clip, n_audio)
        embeds = inputs.inputs_embeds.clone()
        embeds[:, -1] += clips.index(clip)
        return ClipInput(embeds, inputs.input_ids, inputs.audio_indices)

    monkeypatch.setattr(demo.clips, "get", with_noise)
    assert not checks.self_patch_check(demo, clips, [0])["passed"]


def test_not_a_number_is_infinitely_far_from_any_number():
    assert checks._distance(torch.tensor([torch.nan, 0.0]), torch.zeros(2)) == torch.inf
