"""Spans of unequal length: what is interpolated, that every engine writes it, and what `tail` knows of it."""

import pytest
import torch

from interventions import intervention, load_intervention
from tests.engine.decoders import by_hooks, make_clip, value_at
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.errors import UserError

PLACES = {"patch": ("", "output"), "attention": ("self_attn", "output"), "mlp": ("mlp", "output")}


def resampled(n_a, value):
    pair = align(make_clip(n_a, 1), make_clip(value.shape[1], 2), "resample_linear")
    assert pair.a_span == pair.a.span and pair.b_span == pair.b.span and pair.n_patched == n_a
    return pair.resampled(value)


def test_the_ends_are_fixed_and_what_lies_between_is_linear():
    ramp = torch.linspace(0, 1, 5).view(1, 5, 1)
    torch.testing.assert_close(resampled(9, ramp), torch.linspace(0, 1, 9).view(1, 9, 1), atol=1e-7, rtol=0)
    torch.testing.assert_close(resampled(3, ramp), ramp[:, [0, 2, 4]], atol=0, rtol=0)


@pytest.mark.parametrize(("n_a", "n_b"), [(7, 4), (4, 7), (40, 33), (5, 1)])
def test_it_is_torchs_interpolation_with_ends_that_are_exactly_bs(n_a, n_b):
    value = torch.randn(1, n_b, 6)
    found = resampled(n_a, value)
    expected = torch.nn.functional.interpolate(value.mT, n_a, mode="linear", align_corners=True).mT
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert torch.equal(found[:, [0, -1]], value[:, [0, -1]])


def test_one_position_gets_the_first():
    value = torch.randn(1, 4, 6)
    assert torch.equal(resampled(1, value), value[:, :1])


def test_half_precision_is_interpolated_in_float32():
    value = torch.randn(1, 4, 6).bfloat16()
    assert torch.equal(resampled(7, value), resampled(7, value.float()).bfloat16())


def test_equal_lengths_are_left_as_they_are():
    value = torch.randn(1, 4, 6)
    assert resampled(4, value) is value


def test_values_of_another_length_than_the_span_are_refused():
    pair = align(make_clip(4, 1), make_clip(6, 2), "resample_linear")
    with pytest.raises(ValueError, match="a value of 3 positions cannot be resampled: B has 6 positions of the span"):
        pair.resampled(torch.zeros(1, 3, 2))


@pytest.mark.parametrize("engine", ["tail", "sweep", "stepwise"])
@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize(("n_a", "n_b"), [(6, 9), (9, 6)])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_a_resampled_donor_is_written_and_the_rest_is_as_it_is(llm, engine, name, n_a, n_b, alpha):
    pair = align(make_clip(n_a, 1), make_clip(n_b, 2), "resample_linear")
    found = Engine(llm, engine).readouts(load_intervention(name), pair, range(4), [{"alpha": alpha}])
    assert found.as_written is None
    for layer, logits in enumerate(found.logits[1:]):
        donor = value_at(llm, pair.b, layer, *PLACES[name])[:, pair.b.span]
        donor = torch.nn.functional.interpolate(donor.mT, n_a, mode="linear", align_corners=True).mT

        def write(value, donor=donor):
            value[:, pair.a.span] = torch.lerp(value[:, pair.a.span], donor, alpha)

        expected = by_hooks(llm, pair.a, (layer, *PLACES[name], write))
        torch.testing.assert_close(logits, expected, atol=2e-5, rtol=0)
        assert (found.notes[layer].start, found.notes[layer].n_positions) == (pair.a.span.start, n_a)


def test_of_a_resampled_donor_tail_knows_the_first_position_and_no_other(llm):
    def known(how, n_a=6, n_b=9):
        pair = align(make_clip(n_a, 1), make_clip(n_b, 2), how)
        (row,) = Engine(llm, "tail").plan(load_intervention("patch"), pair, [1], [{}])
        return row.source is pair.b, row.n - pair.a.span.start

    assert known("truncate_to_min") == (True, 6)
    assert known("resample_linear") == (True, 1)  # B's first frame behind the same prompt
    assert known("resample_linear", n_b=6) == (True, 6)


def test_a_donor_that_is_not_resampled_is_explained(llm):
    @intervention
    def careless(lm, pair, layer):
        with lm.trace(pair.b):
            donor = lm.layers_output[layer][:, pair.b_span].save()
        with lm.trace(pair.a):
            lm.layers_output[layer][:, pair.a_span] = donor
            logits = lm.logits.save()
        return logits

    pair = align(make_clip(6, 1), make_clip(9, 2), "resample_linear")
    for engine in ("tail", "stepwise"):
        with pytest.raises(UserError, match=r"test_alignment.py:\d+: .*pair.resampled\(value\) brings B's values"):
            Engine(llm, engine).readouts(careless, pair, [1], [{}])
