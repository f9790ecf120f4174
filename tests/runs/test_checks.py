"""The checks pass on a sound set-up, and fail on the mistakes that they are there for."""

from dataclasses import replace

import pytest
import torch

from interventions import intervention, load_intervention
from pairs import build_pairs
from voicepatch.engine import engine as engine_module
from voicepatch.engine import fused
from voicepatch.engine.engine import Engine, Readouts
from voicepatch.engine.sites import Tracked
from voicepatch.models.speech_lm import ClipInput
from voicepatch.runs import checks
from voicepatch.runs.engine_check import engine_check, moves
from voicepatch.runs.job import make_job


def with_engine(subject, name):
    """The same model and clips, experiments run by another engine."""
    return replace(subject, engine=Engine(subject.model.llm, name))


@pytest.fixture(scope="module")
def clips(demo_data):
    return demo_data.clips[:5]


def test_spans_are_found_with_the_length_that_the_duration_asks_for(small, clips):
    report = checks.span_check(small, clips)
    assert report["passed"] and len(report["clips"]) == 5
    for row in report["clips"]:
        assert row["n_audio"] == row["n_audio_expected"] == row["span_end"] - row["span_start"]
        assert row["tokens_before"][-1] == "<|im_audio_start|>" and row["tokens_after"][0] == "<|im_audio_end|>"
        assert row["ids_in_span"] == [-200]


def test_a_span_that_is_too_short_fails(small, clips, monkeypatch):
    get = small.clips.get
    monkeypatch.setattr(small.clips, "get", lambda clip: get(clip, get(clip).n_audio - 1))
    assert not checks.span_check(small, clips)["passed"]


def test_self_patching_passes_with_floor_and_ceiling(small, clips):
    report = checks.self_patch_check(small, clips, range(small.engine.n_layers))
    assert report["passed"] and report["prediction_agreement"] == 1
    assert report["n_predictions"] == 5 * small.engine.n_layers
    assert report["max_abs_delta_logit"] < 1e-4
    assert report["last_layer_max_abs_delta_logit"] == 0
    assert report["embeddings_max_abs_difference_from_donor"] < 1e-4


def _elsewhere(write):
    return lambda self, index, value: write(self, (index[0], slice(index[1].start - 1, index[1].stop - 1)), value)


def _scaled(write, factor=1.5):
    return lambda self, index, value: write(self, index, value * factor)


@pytest.mark.parametrize("fault", [_elsewhere, _scaled])
def test_a_faulty_write_fails_the_self_patch(small, clips, monkeypatch, fault):
    monkeypatch.setattr(Tracked, "__setitem__", fault(Tracked.__setitem__))
    assert not checks.self_patch_check(small, clips, range(small.engine.n_layers))["passed"]


def test_a_patch_that_reaches_the_readout_fails_at_the_last_layer(small, clips, monkeypatch):
    other = {"patch": "suffix", "self": "self"}
    monkeypatch.setattr(checks, "load_intervention", lambda name: load_intervention(other[name]))
    report = checks.self_patch_check(small, clips, [0])
    assert not report["passed"] and report["last_layer_max_abs_delta_logit"] > 0
    assert report["max_abs_delta_logit"] <= report["tolerance"] and report["prediction_agreement"] == 1


def test_changed_answers_fail_however_much_noise_is_allowed(small, clips, monkeypatch):
    monkeypatch.setattr(checks, "NOISE", dict.fromkeys(checks.NOISE, float("inf")))
    monkeypatch.setattr(Tracked, "__setitem__", _scaled(Tracked.__setitem__, -1))
    report = checks.self_patch_check(small, clips, range(small.engine.n_layers - 1))
    assert report["prediction_agreement"] < 1 and not report["passed"]


def test_a_prompt_that_differs_between_clips_fails_the_ceiling(small, clips, monkeypatch):
    get = small.clips.get

    def with_noise(clip, n_audio=None):
        inputs = get(clip, n_audio)
        embeds = inputs.inputs_embeds.clone()
        embeds[:, -1] += clips.index(clip)
        return ClipInput(embeds, inputs.input_ids, inputs.audio_indices)

    monkeypatch.setattr(small.clips, "get", with_noise)
    assert not checks.self_patch_check(small, clips, [0])["passed"]


def test_not_a_number_is_as_far_as_can_be_from_any_number():
    assert checks.largest_difference(torch.tensor([torch.nan, 0.0]), torch.zeros(2)) > 1e38


class TestEngineCheck:
    @pytest.fixture
    def pairs(self, demo_data):
        return build_pairs(demo_data.clips, "prosody", max_pairs=4).pairs

    def check(self, subject, pairs, name="patch", **options):
        experiment = load_intervention(name) if isinstance(name, str) else name
        return engine_check(make_job(subject, experiment, [0, 2, 3], options), pairs)[0]

    @pytest.mark.parametrize("engine", ["tail", "sweep", "stepwise"])
    def test_the_first_pairs_are_computed_by_both(self, small, pairs, engine):
        report = self.check(with_engine(small, engine), pairs)
        assert report["passed"] and (report["engine"], report["reference"]) == (engine, "stepwise")
        assert report["pairs"] == [pair.pair_id for pair in pairs[:2]] and report["n_predictions"] == 2 * (1 + 3)
        assert report["max_abs_logit_difference"] < 1e-4 and report["differing_predictions"] == []

    def test_random_numbers_of_an_intervention_are_the_same_for_both(self, small, pairs):
        assert self.check(small, pairs, "noise", alpha=0.5)["passed"]

    def test_an_engine_that_stands_on_the_wrong_past_is_caught(self, small, pairs, monkeypatch):
        past = fused.Past.__init__

        def shifted(self, *how):
            past(self, *how)
            for layer in self.layers:
                layer.keys = layer.keys.roll(1, dims=2)

        monkeypatch.setattr(fused.Past, "__init__", shifted)
        report = self.check(with_engine(small, "tail"), pairs)
        assert not report["passed"] and report["max_abs_logit_difference"] > report["tolerance"]

    def test_an_answer_that_noise_flips_is_counted_with_its_margin(self, small, pairs, monkeypatch):
        def nearly_tied(other):
            logits = torch.full((4, small.model.llm.config.vocab_size), 9.0)
            logits[:, small.labels.token_ids[3]] += 1e-4
            logits[2, small.labels.token_ids[1]] += other
            return lambda *rest: Readouts(logits, [])

        monkeypatch.setattr(small.engine, "readouts", nearly_tied(2e-4), raising=False)
        monkeypatch.setattr(small.engine, "as_written", nearly_tied(0), raising=False)
        report = self.check(small, pairs[:1])
        assert report["passed"] and report["n_differing_predictions"] == 1
        (flip,) = report["differing_predictions"]
        assert (flip["pair_id"], flip["row"]) == (pairs[0].pair_id, 2)
        assert flip["stepwise_margin"] == pytest.approx(1e-4, rel=0.02)

    def test_an_experiment_that_is_not_the_same_twice_is_not_blamed_on_the_engine(self, small, pairs):
        @intervention
        def restless(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = torch.randn(1)
                logits = lm.logits.save()
            return logits

        report = self.check(small, pairs[:1], restless)
        assert not report["passed"] and report["max_abs_logit_difference_when_repeated"] > report["tolerance"]

    def test_it_says_whether_anything_moved(self, small, pairs):
        @intervention
        def still(lm, pair, layer):
            with lm.trace(pair.a):
                stream = lm.layers_output[layer]
                stream[:, pair.a_span] = stream[:, pair.a_span].clone()
                logits = lm.logits.save()
            return logits

        for experiment, moved in ((still, False), (load_intervention("patch"), True)):
            report, readouts = engine_check(make_job(small, experiment, [0]), pairs[:1])
            assert report["passed"] and moves(small, readouts[0]) == moved

    @pytest.fixture(params=[1e-3, 1.0, 1e3])
    def scaled(self, request, small, monkeypatch):
        """The model with logits so many times as large, and that number."""
        llm = small.model.llm
        head = torch.nn.Linear(*reversed(llm.lm_head.weight.shape), bias=False).requires_grad_(False)
        head.weight.copy_(llm.lm_head.weight * request.param)  # of its own: the demo's is its embeddings as well
        monkeypatch.setitem(llm._modules, "lm_head", head)
        return replace(small, engine=Engine(llm, "tail")), request.param

    def test_noise_grows_with_the_logits(self, scaled, clips, pairs):
        subject, times = scaled
        report = self.check(subject, pairs)
        assert report["passed"] and report["largest_logit"] == pytest.approx(7.6 * times, rel=0.4)
        assert report["tolerance"] == pytest.approx(1e-4 * report["largest_logit"], rel=0.01)
        silent = checks.self_patch_check(subject, clips[:2], range(subject.engine.n_layers))
        assert silent["passed"] and silent["tolerance"] == pytest.approx(1e-4 * silent["largest_logit"], rel=0.01)

    @pytest.mark.parametrize("wrong_by", [1.0, 1e-2])
    def test_a_wrong_engine_fails_at_any_size_of_logits(self, scaled, pairs, monkeypatch, wrong_by):
        run_rows = engine_module.run_rows

        def wrong(*args):
            logits = run_rows(*args)
            return logits + wrong_by * 0.1 * logits.std() * torch.arange(len(logits))[:, None]

        monkeypatch.setattr(engine_module, "run_rows", wrong)
        report = self.check(scaled[0], pairs)
        assert not report["passed"] and report["max_abs_logit_difference"] > report["tolerance"]

    def test_logits_that_a_model_never_reaches_do_not_count(self, small):
        logits = torch.zeros(2, small.model.llm.config.vocab_size)
        logits[:, small.labels.token_ids[0]], logits[:, -1] = 5, torch.finfo(torch.float32).min
        assert checks.largest_logit(small, logits) == 5
