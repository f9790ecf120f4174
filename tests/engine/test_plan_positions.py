"""Writes at positions of their own, in spans of different lengths, and behind a sliding window."""

import pytest

from interventions import intervention
from tests.engine.decoders import by_hooks, make_clip, make_llm, value_at
from tests.engine.planned import LAYER, assert_same
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align


def test_rows_that_begin_at_different_positions_share_a_forward(llm, pair, readouts):
    @intervention
    def part(lm, pair, layer):
        start = pair.a_span.start + layer
        with lm.trace(pair.a):
            lm.layers_output[layer][:, start : start + 2] = 0.5
            logits = lm.logits.save()
        return logits

    def writes(layer):
        def write(value):
            value[:, 3 + layer : 5 + layer] = 0.5

        return layer, "", "output", write

    found = readouts(part, pair, layers=(0, 2))
    for logits, layer in zip(found.logits[1:], (0, 2), strict=True):
        assert_same(logits, by_hooks(llm, pair.a, writes(layer)))


def test_all_of_the_donor_up_to_the_readout_leaves_the_readout_to_compute(llm, readouts):
    pair = align(make_clip(6, seed=1), make_clip(6, seed=2))

    @intervention
    def everything(lm, pair, layer):
        with lm.trace(pair.b):
            donor = lm.layers_output[layer].save()
        with lm.trace(pair.a):
            lm.layers_output[layer] = donor
            logits = lm.logits.save()
        return logits

    assert_same(readouts(everything, pair).logits[1], by_hooks(llm, pair.b))


@pytest.mark.parametrize(("len_a", "len_b"), [(6, 9), (9, 6), (6, 6), (1, 5)])
def test_spans_that_differ_in_length_are_replaced_at_exactly_the_aligned_positions(llm, readouts, len_a, len_b):
    pair = align(make_clip(len_a, seed=1), make_clip(len_b, seed=2))

    @intervention
    def patch(lm, pair, layer):
        with lm.trace(pair.b):
            donor = lm.layers_output[layer][:, pair.b_span].save()
        with lm.trace(pair.a):
            lm.layers_output[layer][:, pair.a_span] = donor
            logits = lm.logits.save()
        return logits

    length = min(len_a, len_b)
    donor = value_at(llm, pair.b, LAYER, "", "output")[:, 3 : 3 + length]

    def write(value):
        value[:, 3 : 3 + length] = donor

    found = readouts(patch, pair)
    assert_same(found.logits[1], by_hooks(llm, pair.a, (LAYER, "", "output", write)))
    assert (found.notes[0].start, found.notes[0].n_positions) == (3, length)


@pytest.mark.parametrize("engine", ["tail", "sweep", "stepwise"])
def test_blocks_with_a_sliding_window(pair, engine):
    llm = make_llm(sliding_window=4)

    @intervention
    def mixed(lm, pair, layer):
        with lm.trace(pair.a):
            lm.mlps_output[layer][:, pair.a_span] = 0
            lm.layers_output[layer + 1][:, 5] = 1
            logits = lm.logits.save()
        return logits

    def silence(value):
        value[:, pair.a_span] = 0

    def one(value):
        value[:, 5] = 1

    expected = by_hooks(llm, pair.a, (LAYER, "mlp", "output", silence), (LAYER + 1, "", "output", one))
    found = Engine(llm, engine).readouts(mixed, pair, [LAYER], [{}])
    assert_same(found.logits[1], expected)
    full = make_llm()
    full.load_state_dict(llm.state_dict())
    assert (by_hooks(full, pair.a) - found.logits[0]).abs().max() > 1e-3, "the window must matter"
