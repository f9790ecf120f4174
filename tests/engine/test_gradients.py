"""Gradients of the readout at the values of a run, and first-order estimates made with them."""

from dataclasses import replace

import pytest
import torch

from interventions import intervention, load_intervention
from tests.engine.decoders import by_hooks, make_clip, make_llm, value_at
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.errors import UserError

LAYERS = range(4)
ENGINES = ["tail", "sweep", "stepwise"]
LABELS = {"sad": 7, "happy": 3}
SITES = [
    ("", "output"),
    ("", "input"),
    ("mlp", "output"),
    ("self_attn.o_proj", "input"),
    ("self_attn.k_proj", "output"),
]


@pytest.fixture
def pair():
    return replace(align(make_clip(6, seed=1), make_clip(9, seed=2)), label_ids=LABELS, target="sad")


def gradient_at(engine, clip, site):
    module = engine.written.gradient(clip, LABELS.values()).layers[2]
    for name in site[0].split(".") if site[0] else ():
        module = getattr(module, name)
    return getattr(module, site[1])


@pytest.mark.parametrize("site", SITES)
def test_a_gradient_is_the_slope_of_the_logits(pair, site):
    """Held against a difference of plain forwards in float64 along a random direction."""
    llm = make_llm().double()
    clip = replace(pair.a, inputs_embeds=pair.a.inputs_embeds.double())
    gradient = gradient_at(Engine(llm), clip, site)
    torch.manual_seed(0)
    direction, step = torch.randn_like(gradient[:1]), 1e-5

    def moved(by):
        return by_hooks(llm, clip, (2, *site, lambda value: value + by * direction))[list(LABELS.values())]

    slope = (moved(step) - moved(-step)) / (2 * step)
    # The readout is in float32, whose last digits the difference magnifies.
    torch.testing.assert_close((gradient * direction).sum((1, 2)), slope.double(), rtol=0.05, atol=0.2)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_attribution_estimates_the_exact_patch_of_a_small_dose(pair, engine):
    llm, experiment = make_llm(), load_intervention("attribution")
    dose = 1e-2
    found = Engine(llm, engine).readouts(experiment, pair, LAYERS, [{"head": 1, "at": "after"}])
    assert found.as_written is None
    exact = Engine(llm, engine).readouts(
        load_intervention("heads"), pair, LAYERS, [{"head": 1, "at": "after", "alpha": dose}]
    )
    ids = list(LABELS.values())
    estimate = found.logits[1:, ids] - found.logits[:1, ids]
    torch.testing.assert_close(dose * estimate, exact.logits[1:, ids] - exact.logits[:1, ids], rtol=0.1, atol=2e-4)
    assert estimate.abs().max() > 0.1


@pytest.mark.parametrize("engine", ENGINES)
def test_an_attribution_of_a_clip_with_itself_is_exactly_0(pair, engine):
    mine = replace(align(pair.a, pair.a), label_ids=LABELS)
    found = Engine(make_llm(), engine).readouts(load_intervention("attribution"), mine, LAYERS, [{"head": 0}])
    assert torch.equal(found.logits[1:], found.logits[:1].expand(4, -1))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_gradient_experiment_of_ones_own(pair, engine):
    """A step along the gradient raises the target's logit, and runs planned."""
    llm = make_llm()

    @intervention
    def uphill(lm, pair, layer):
        gradient = lm.gradient(pair.a, [pair.label_ids[pair.target]]).layers_output[layer]
        with lm.trace(pair.a):
            lm.layers_output[layer][:, pair.a_span] += 1e-3 * gradient[:, pair.a_span]
            logits = lm.logits.save()
        return logits

    found = Engine(llm, engine).readouts(uphill, pair, LAYERS[:3], [{}])
    assert found.as_written is None
    rises = found.logits[1:, LABELS["sad"]] - found.logits[0, LABELS["sad"]]
    gradients = [gradient_at(Engine(llm), pair.a, ("", "output"))[0, pair.a_span]]
    assert (rises > 0).all()
    torch.testing.assert_close(rises[2], 1e-3 * (gradients[0] ** 2).sum(), rtol=0.1, atol=1e-4)


def test_a_gradient_cannot_be_written(pair):
    @intervention
    def wrong(lm, pair, layer):
        lm.gradient(pair.a, [1]).layers_output[layer] = 0

    with pytest.raises(UserError, match="a gradient is read, not written"):
        Engine(make_llm()).readouts(wrong, pair, LAYERS, [{}])


@pytest.mark.parametrize("tokens", [[], [50], [1, -1]])
def test_a_gradient_of_no_token_or_one_that_the_model_lacks_is_a_line_with_its_place(pair, tokens):
    @intervention
    def wrong(lm, pair, layer):
        return lm.gradient(pair.a, tokens).layers_output[layer]

    line = r"test_gradients\.py:\d+: lm\.gradient: tokens \[.*\]: give at least one, each from 0 to 49, as in "
    with pytest.raises(UserError, match=line):
        Engine(make_llm()).readouts(wrong, pair, LAYERS, [{}])


@pytest.mark.parametrize("engine", ["tail", "stepwise"])
def test_whoever_differentiates_a_trace_is_told_of_lm_gradient(pair, engine):
    @intervention
    def wrong(lm, pair, layer):
        with lm.trace(pair.a):
            logits = lm.logits.save()
        logits[0, 1].backward()
        return logits

    with pytest.raises(
        UserError, match=r"test_gradients\.py:\d+: .*traces run without gradients; lm\.gradient\(pair\.a, "
    ):
        Engine(make_llm(), engine).readouts(wrong, pair, LAYERS, [{}])


def test_an_estimate_counts_as_a_readout_only_where_it_is_declared(pair):
    def body(lm, pair, layer):
        with lm.trace(pair.a):
            value = lm.layers_output[layer][:, -1].sum().save()
            logits = lm.logits.save()
        return logits + 0 * value

    with pytest.raises(UserError, match="writes nothing"):
        Engine(make_llm()).readouts(intervention(body), pair, LAYERS, [{}])
    found = Engine(make_llm()).readouts(intervention(body, approximate=True), pair, LAYERS, [{}])
    assert found.as_written is None and {note.site for note in found.notes} == {"nothing"}


def test_gradients_are_counted_and_made_once(pair):
    engine = Engine(make_llm())
    before = engine.nbytes(pair.a)
    site = ("mlp", "output")
    first = gradient_at(engine, pair.a, site)
    assert gradient_at(engine, pair.a, site).data_ptr() == first.data_ptr()
    assert engine.nbytes(pair.a) - before >= 4 * first.nbytes
    assert value_at(engine.llm, pair.a, 2, *site).shape[1:] == first.shape[1:]


def test_gradients_of_several_places_are_those_of_each_alone(pair):
    """After two places were read of one clip, both are computed together for the next one."""
    together, sites = Engine(make_llm()), (("mlp", "output"), ("self_attn.o_proj", "input"))
    for site in sites:
        gradient_at(together, pair.a, site)
    for site in sites:
        alone = gradient_at(Engine(make_llm()), pair.b, site)
        torch.testing.assert_close(gradient_at(together, pair.b, site), alone, atol=1e-6, rtol=0)
