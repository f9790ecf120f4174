"""What an experiment can reach stays as it is for every other, and what `pair.cached` keeps is correct."""

from dataclasses import replace

import pytest
import torch

from interventions import intervention, run_table
from pairs import build_pairs
from tests.engine.decoders import by_hooks, make_clip, make_llm, value_at
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.errors import UserError
from voicepatch.runs.engine_check import engine_check
from voicepatch.runs.job import make_job

LAYER = 1
ENGINES = ["tail", "sweep", "stepwise"]


@pytest.fixture
def pair():
    a, b = make_clip(6, seed=1), make_clip(9, seed=2)
    clips = [make_clip(4, seed=3), make_clip(7, seed=4)]
    return replace(align(a, b), target_clips=lambda: list(clips), cache={}, target="sad", label_ids={"sad": 5})


def readouts(llm, engine, experiment, pair, layers=(LAYER,), options=({},)):
    return Engine(llm, engine).readouts(experiment, pair, layers, options).logits


def message(*args, **how):
    with pytest.raises(UserError) as caught:
        readouts(*args, **how)
    return str(caught.value)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["inputs_embeds", "input_ids", "audio_indices"])
@pytest.mark.parametrize("whose", ["pair.a", "pair.b", "a clip of pair.target_clips()"])
def test_a_clip_that_is_changed_in_place_is_refused_and_stays_what_it_was(llm, pair, engine, name, whose):
    clips = [pair.a, pair.b, *pair.target_clips()]
    before = [getattr(clip, name).clone() for clip in clips]

    @intervention
    def louder(lm, pair, layer):
        clip = {"pair.a": pair.a, "pair.b": pair.b}.get(whose) or pair.target_clips()[0]
        getattr(clip, name)[..., 1:2].mul_(2)
        with lm.trace(pair.a):
            lm.layers_output[layer][:, pair.a_span] = 0
            logits = lm.logits.save()
        return logits

    found = message(llm, engine, louder, pair)
    assert f"louder changes {name} of {whose} in place" in found and found.startswith(
        "tests/engine/test_clip_copies.py:"
    )
    assert all(torch.equal(getattr(clip, name), was) for clip, was in zip(clips, before, strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_changed_copy_of_a_clip_is_traced_as_it_is(llm, pair, engine):
    @intervention
    def quiet(lm, pair, layer):
        half = replace(pair.b, inputs_embeds=pair.b.inputs_embeds * 0.5)
        with lm.trace(half):
            donor = pair.resampled(lm.layers_output[layer][:, pair.b_span]).save()
        with lm.trace(pair.a):
            lm.layers_output[layer][:, pair.a_span] = donor
            logits = lm.logits.save()
        return logits

    half = replace(pair.b, inputs_embeds=pair.b.inputs_embeds * 0.5)
    donor = value_at(llm, half, LAYER, "", "output")[:, pair.b_span]

    def write(value):
        value[:, pair.a_span] = donor

    found = readouts(llm, engine, quiet, pair)[1]
    torch.testing.assert_close(found, by_hooks(llm, pair.a, (LAYER, "", "output", write)), atol=2e-5, rtol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_an_experiment_is_given_is_what_the_model_hears(llm, pair, engine):
    seen = {}

    @intervention
    def looks(lm, pair, layer):
        seen.update(target=pair.target, ids=pair.label_ids, same=pair.a is pair.b, a=pair.a, b=pair.b)
        with lm.trace(pair.a):
            lm.layers_output[layer][:, pair.a_span] = 0
            logits = lm.logits.save()
        return logits

    readouts(llm, engine, looks, pair)
    assert (seen["target"], seen["ids"], seen["same"]) == ("sad", {"sad": 5}, False)
    for clip, copy in ((pair.a, seen["a"]), (pair.b, seen["b"])):
        assert torch.equal(clip.inputs_embeds, copy.inputs_embeds) and clip.span == copy.span
    readouts(llm, engine, looks, align(pair.a, pair.a))
    assert seen["same"]


@intervention
def keeps_weights(lm, pair, layer):
    weight = lm.layers[layer].mlp.down_proj.weight
    before = weight.clone()
    weight.mul_(2)
    with lm.trace(pair.a):
        lm.layers_output[layer][:, pair.a_span] = 0
        logits = lm.logits.save()
    weight.copy_(before)
    return logits


@intervention
def leaves_weights(lm, pair, layer):
    lm.layers[layer].mlp.down_proj.weight.mul_(2)
    with lm.trace(pair.a):
        lm.layers_output[layer][:, pair.a_span] = 0
        logits = lm.logits.save()
    return logits


@intervention
def leaves_data(lm, pair, layer):
    lm.layers[layer].mlp.down_proj.weight.data.mul_(1.01)  # which counts no change of the weight
    with lm.trace(pair.a):
        lm.layers_output[layer][:, pair.a_span] = 0
        logits = lm.logits.save()
    return logits


@intervention
def leaves_setting(lm, pair, layer):
    lm.layers[layer].input_layernorm._module.variance_epsilon = 5.0
    with lm.trace(pair.a):
        lm.layers_output[layer][:, pair.a_span] = 0
        logits = lm.logits.save()
    return logits


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("leaves", [leaves_weights, leaves_data, leaves_setting], ids=lambda leaves: leaves.name)
def test_a_model_that_stays_changed_is_refused(pair, engine, leaves):
    assert f"{leaves.name} changes the model" in message(make_llm(), engine, leaves, pair)


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_are_put_back_are_not_refused(pair, engine):
    llm, louder = make_llm(), make_llm()
    with torch.no_grad():
        louder.model.layers[LAYER].mlp.down_proj.weight.mul_(2)

    def write(value):
        value[:, pair.a_span] = 0

    base, found = readouts(llm, engine, keeps_weights, pair)
    torch.testing.assert_close(base, by_hooks(llm, pair.a), atol=2e-5, rtol=0)
    # What is written behind the block hides its MLP at the span, and the rest of A's stream shows it.
    torch.testing.assert_close(found, by_hooks(louder, pair.a, (LAYER, "", "output", write)), atol=2e-5, rtol=0)


def basis(lm, clips, layer, k):
    """The first `k` principal directions `[k, hidden]` of the clips' spans after a block."""
    streams = []
    for clip in clips:
        with lm.trace(clip):
            stream = lm.layers_output[layer][0, clip.span].float().save()
        streams.append(stream)
    streams = torch.cat(streams)
    return torch.linalg.svd(streams - streams.mean(0), full_matrices=False).Vh[:k]


@intervention
def without_basis(lm, pair, layer, k=2):
    """Twice, with another basis each time, what the clips of the target vary in is taken out of A's span."""
    first = pair.cached(basis, lm, layer, k)
    second = pair.cached(basis, lm, layer, k + 1)
    with lm.trace(pair.a):
        stream = lm.layers_output[layer]
        for directions in (first, second):
            span = stream[:, pair.a_span].float()
            stream[:, pair.a_span] = (span - span @ directions.mT @ directions).to(stream.dtype)
        logits = lm.logits.save()
    return logits


def without_basis_by_hooks(llm, a, span, clips, layer, k):
    def streams():
        return torch.cat([value_at(llm, clip, layer, "", "output")[0, clip.span] for clip in clips])

    directions = torch.linalg.svd(streams() - streams().mean(0), full_matrices=False).Vh[: k + 1]

    def write(value):
        value[:, span] -= value[:, span] @ directions.mT @ directions

    return by_hooks(llm, a, (layer, "", "output", write))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_kept_is_that_of_its_layer_and_arguments(llm, engine):
    a, b = make_clip(6, seed=1), make_clip(6, seed=2)
    clips = [make_clip(4, seed=3), make_clip(7, seed=4)]
    pair = replace(align(a, b), target_clips=lambda: clips, cache={})
    options = [{"k": 1}, {"k": 3}]
    for _ in range(2):  # the second time, from what is kept
        found = iter(readouts(llm, engine, without_basis, pair, range(4), options)[1:])
        for option in options:
            for layer in range(4):
                expected = without_basis_by_hooks(llm, a, a.span, clips, layer, option["k"])
                torch.testing.assert_close(next(found), expected, atol=1e-4, rtol=0)
    assert len(pair.cache) == 4 * len({1, 2, 3, 4})


def test_in_a_table_of_the_demo_each_layer_has_its_own(demo, demo_data):
    pairs = build_pairs(demo_data.clips, "prosody", max_pairs=2).pairs
    table = run_table(demo, without_basis, pairs, layers=[0, 4, 8], clips=demo_data.clips, log=lambda line: None)
    job = make_job(demo, without_basis, [0, 4, 8], clips=demo_data.clips)
    for pair in pairs:
        inputs = job.inputs().of(pair)
        clips = inputs.target_clips()
        for layer in (0, 4, 8):
            logits = without_basis_by_hooks(demo.model.llm, inputs.a, inputs.a_span, clips, layer, 2)
            (row,) = table[(table.pair_id == pair.pair_id) & (table.layer == layer)].to_dict("records")
            expected = {label: logits[token].item() for label, token in inputs.label_ids.items()}
            assert row["logits_patch"] == pytest.approx(expected, abs=1e-3)


def test_the_engine_is_held_against_what_is_computed_every_time(demo, demo_data, monkeypatch):
    pairs = build_pairs(demo_data.clips, "prosody", max_pairs=1).pairs
    job = make_job(demo, without_basis, [0, 4, 8], clips=demo_data.clips)
    assert engine_check(job, pairs)[0]["passed"]
    monkeypatch.setattr("voicepatch.engine.pair_input._key", lambda make, lm, arguments: "the same for all")
    assert not engine_check(job, pairs)[0]["passed"]


def ones(lm, clips, size):
    ones.calls += 1
    return {"a": [torch.ones(size)], "b": (torch.ones(size), 2)}


def test_what_is_kept_is_computed_once_and_not_what_was_done_to_it(llm, pair):
    ones.calls = 0
    lm = Engine(llm).written
    for _ in range(3):
        value = pair.cached(ones, lm, 2)
        assert value["a"][0].tolist() == [1, 1] and value["b"][0].tolist() == [1, 1] and len(value) == 2
        value["a"][0].mul_(5)
        value["b"][0][0] = 7
        value["c"] = 0
    assert ones.calls == 1
    for size in (2.0, True):  # equal to 2 and to 1, and other arguments
        with pytest.raises(TypeError):
            pair.cached(ones, lm, size)
    assert pair.cached(ones, lm, 1)["a"][0].tolist() == [1] and ones.calls == 4


class TestOnceIsRefused:
    """What could change without the key: with file and line."""

    def check(self, llm, pair, make, words, *arguments):
        @intervention
        def keeping(lm, pair, layer):
            pair.cached(make, lm, *arguments)
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = 0
                logits = lm.logits.save()
            return logits

        for engine in ("tail", "stepwise"):
            found = message(llm, engine, keeping, pair)
            line = keeping.run.__code__.co_firstlineno + 2
            assert found.startswith(f"tests/engine/test_clip_copies.py:{line}: pair.cached") and words in found
            assert "as in pair.cached(class_mean, lm, layer)" in found

    def test_a_variable_of_the_function_around_it(self, llm, pair):
        layer = 3
        self.check(llm, pair, lambda lm, clips: layer, "<lambda> uses layer of the function around it")

    @pytest.mark.parametrize("argument", [torch.ones(2), [1], {"k": 1}, (1, [2])])
    def test_an_argument_that_can_change(self, llm, pair, argument):
        self.check(llm, pair, ones, "must be numbers or text", argument)

    def test_a_default_that_can_change(self, llm, pair):
        def make(lm, clips, found=[]):  # noqa: B006
            return found

        self.check(llm, pair, make, "make has a list among its arguments or defaults")

    def test_what_is_no_function(self, llm, pair):
        self.check(llm, pair, dict, "takes a function")
