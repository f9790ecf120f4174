"""What activation patching must show on any causal decoder, and on decoders built to have one answer."""

import nnsight
import pytest
import torch
from torch import nn

from engine.lm import ENGINES, TracedLM
from engine.pair_input import align
from interventions.patch import patch
from interventions.self import self as self_patch
from tests.engine.decoders import hooked, make_clip, make_llm

pytestmark = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture
def pair():
    return align(make_clip(6, seed=1), make_clip(6, seed=2))


def run(llm, engine, experiment, pair, layers=range(4), **options):
    with torch.inference_mode():
        return experiment.run(TracedLM(llm, engine), pair, layers, **options)


@pytest.mark.parametrize("k", range(4))
def test_only_below_the_one_layer_that_moves_information_does_the_span_matter(engine, pair, k):
    llm = make_llm()
    for layer, block in enumerate(llm.model.layers):
        if layer != k:
            block.self_attn.o_proj.weight.zero_()
    base, *patched = run(llm, engine, patch, pair)
    for logits in patched[k:]:
        assert torch.equal(logits, base)
    for logits in patched[:k]:
        assert (logits - base).abs().max() > 1e-2
        torch.testing.assert_close(logits, patched[0], atol=1e-5, rtol=0)


def test_patching_the_last_layer_changes_nothing(engine, llm, pair):
    base, patched = run(llm, engine, patch, pair, layers=[3])
    assert torch.equal(patched, base)


def test_replacing_the_span_at_the_embeddings_reproduces_the_donor(engine, llm, pair):
    lm = TracedLM(llm, engine)
    with torch.inference_mode():
        with lm.trace(pair.a):
            lm.write_embeddings(pair.a_span, pair.b.inputs_embeds[:, pair.b_span])
            logits = lm.readout().save()
    torch.testing.assert_close(logits[0], hooked(llm, pair.b.inputs_embeds)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_a_clip_patched_with_itself_is_silent(engine, llm, pair, alpha):
    base, *patched = run(llm, engine, self_patch, align(pair.a, pair.a), alpha=alpha)
    for logits in patched:
        torch.testing.assert_close(logits, base, atol=1e-5, rtol=0)


def test_inputs_are_not_changed(engine, llm, pair):
    a, b = pair.a.inputs_embeds.clone(), pair.b.inputs_embeds.clone()
    run(llm, engine, patch, pair)
    lm = TracedLM(llm, engine)
    with torch.inference_mode(), lm.trace(pair.a):
        lm.write_embeddings(pair.a_span, pair.b.inputs_embeds[:, pair.b_span])
    assert torch.equal(pair.a.inputs_embeds, a) and torch.equal(pair.b.inputs_embeds, b)


@pytest.mark.parametrize(("len_a", "len_b"), [(6, 9), (9, 6), (6, 6), (1, 5)])
def test_exactly_the_aligned_positions_are_replaced(engine, llm, len_a, len_b):
    pair = align(make_clip(len_a, seed=1), make_clip(len_b, seed=2))
    lm = TracedLM(llm, engine)
    with torch.inference_mode():
        with lm.trace(pair.b):
            donor = lm.hidden(1)[:, pair.b_span].clone().save()
        with lm.trace(pair.a):
            own = lm.hidden(1)[:1].clone().save()
            lm.branch(1, pair.a_span, donor)
            patched = lm.hidden(1)[-1:].clone().save()
    length, start = min(len_a, len_b), 3
    assert pair.n_patched == length
    assert torch.equal(patched[:, start : start + length], donor)
    assert torch.equal(patched[:, :start], own[:, :start])
    assert torch.equal(patched[:, start + length :], own[:, start + length :])
    expected = hooked(llm, pair.b.inputs_embeds)[1][1][:, start : start + length]
    torch.testing.assert_close(donor, expected, atol=1e-5, rtol=0)


def test_alpha_mixes_the_two_streams(engine, llm, pair):
    lm = TracedLM(llm, engine)
    value = torch.randn(1, 6, 32)
    with torch.inference_mode():
        with lm.trace(pair.a):
            own = lm.hidden(2)[:1, pair.a_span].clone().save()
            lm.branch(2, pair.a_span, value, alpha=0.25)
            mixed = lm.hidden(2)[-1:, pair.a_span].clone().save()
    torch.testing.assert_close(mixed, 0.75 * own + 0.25 * value)


def test_every_write_is_noted_with_how_far_it_moved_the_stream(engine, llm, pair):
    lm = TracedLM(llm, engine)
    with torch.inference_mode():
        patch.run(lm, pair, [0, 2])
    assert [(write.layer, write.start, write.n, write.alpha) for write in lm.writes] == [(0, 3, 6, 1), (2, 3, 6, 1)]
    (_, own), (_, donor) = hooked(llm, pair.a.inputs_embeds), hooked(llm, pair.b.inputs_embeds)
    for write in lm.writes:
        a, b = own[write.layer][:, pair.a_span], donor[write.layer][:, pair.b_span]
        torch.testing.assert_close(write.shift, (b - a).norm() / a.norm(), atol=1e-5, rtol=0)


def test_a_value_of_another_shape_is_refused(engine, llm, pair):
    lm = TracedLM(llm, engine)
    with pytest.raises(Exception, match=r"shape \[1, 2, 32\] cannot replace .* shape \[1, 6, 32\]"):
        with torch.inference_mode():
            with lm.trace(pair.a):
                lm.branch(0, pair.a_span, torch.zeros(1, 2, 32))


class TupleBlock(nn.Module):
    """A decoder block that returns a tuple, as transformers' did up to 4.53."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, hidden, **kwargs):
        return self.block(hidden, **kwargs), "attention weights"


class TupleLM(nn.Module):
    """A Qwen3 whose blocks are `TupleBlock`s and which insists on getting the whole tuple back."""

    def __init__(self, llm):
        super().__init__()
        self.config, self.model, self.lm_head = llm.config, nn.Module(), llm.lm_head
        self.model.layers = nn.ModuleList(TupleBlock(block) for block in llm.model.layers)
        self.model.norm, self.model.rotary_emb = llm.model.norm, llm.model.rotary_emb

    def forward(self, inputs_embeds, use_cache, logits_to_keep, past_key_values=None):
        before, new = past_key_values.get_seq_length() if past_key_values else 0, inputs_embeds.shape[1]
        rotary = self.model.rotary_emb(inputs_embeds, torch.arange(before, before + new)[None])
        how = {
            "position_embeddings": rotary,
            "attention_mask": torch.ones(1, 1, new, before + new, dtype=torch.bool).tril(before),
            "past_key_values": past_key_values,
        }
        hidden = inputs_embeds
        for block in self.model.layers:
            hidden, weights = block(hidden, **how)
            assert weights == "attention weights"
        return self.lm_head(self.model.norm(hidden)[:, -logits_to_keep:])


def test_blocks_that_return_tuples_behave_like_blocks_that_return_tensors(engine, llm, pair):
    tensors = run(llm, engine, patch, pair)
    tuples = run(TupleLM(llm), engine, patch, pair)
    assert (tensors[1] - tensors[0]).abs().max() > 1e-2
    torch.testing.assert_close(tuples, tensors, atol=1e-5, rtol=0)


def test_the_donor_stays_alive_as_the_span_only(engine, llm, pair):
    lm = TracedLM(llm, engine)
    with torch.inference_mode():
        with lm.trace(pair.b):
            donor = nnsight.save({layer: lm.hidden(layer)[:, pair.b_span].clone() for layer in range(4)})
    for value in donor.values():
        assert value.untyped_storage().nbytes() == value.numel() * value.element_size()
        assert not value.requires_grad
