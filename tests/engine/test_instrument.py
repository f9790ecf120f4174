"""What activation patching must show on any causal decoder, and on decoders built to have one answer."""

import pytest
import torch
from torch import nn
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from interventions import load_intervention
from tests.engine.decoders import hooked, make_clip, make_llm, value_at
from voicepatch.engine.engine import ENGINES, Engine
from voicepatch.engine.pair_input import align
from voicepatch.engine.written import WrittenLM


@pytest.fixture
def pair():
    return align(make_clip(6, seed=1), make_clip(6, seed=2))


def run(llm, engine, name, pair, layers=range(4), **options):
    return Engine(llm, engine).readouts(load_intervention(name), pair, layers, [options])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("k", range(4))
def test_only_below_the_one_layer_that_moves_information_does_the_span_matter(engine, pair, k):
    llm = make_llm()
    for layer, block in enumerate(llm.model.layers):
        if layer != k:
            block.self_attn.o_proj.weight.zero_()
    base, *patched = run(llm, engine, "patch", pair).logits
    for logits in patched[k:]:
        assert torch.equal(logits, base)
    for logits in patched[:k]:
        assert (logits - base).abs().max() > 1e-2
        torch.testing.assert_close(logits, patched[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_patching_the_last_layer_changes_nothing(engine, llm, pair):
    base, patched = run(llm, engine, "patch", pair, layers=[3]).logits
    assert torch.equal(patched, base)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_a_clip_patched_with_itself_is_silent(engine, llm, pair, alpha):
    base, *patched = run(llm, engine, "self", align(pair.a, pair.a), alpha=alpha).logits
    for logits in patched:
        torch.testing.assert_close(logits, base, atol=1e-5, rtol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_clips_and_recordings_are_not_changed(engine, llm, pair):
    engine = Engine(llm, engine)
    a, b = pair.a.inputs_embeds.clone(), pair.b.inputs_embeds.clone()
    streams = [stream.clone() for stream in engine.record(pair.a).streams]
    for name in ("patch", "window", "attention", "noise"):
        engine.readouts(load_intervention(name), pair, range(4), [{}])
    with torch.inference_mode():
        with engine.written.trace(pair.a):
            engine.written.layers_input[0][:, pair.a_span] = 0
    assert torch.equal(pair.a.inputs_embeds, a) and torch.equal(pair.b.inputs_embeds, b)
    assert all(map(torch.equal, engine.record(pair.a).streams, streams))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_write_is_noted_with_how_far_it_moved_the_stream(engine, llm, pair):
    notes = run(llm, engine, "patch", pair, layers=[0, 2]).notes
    assert [(note.layer, note.site, note.start, note.n_positions) for note in notes] == [
        (0, "output", 3, 6),
        (2, "output", 3, 6),
    ]
    (_, own), (_, donor) = hooked(llm, pair.a.inputs_embeds), hooked(llm, pair.b.inputs_embeds)
    for note in notes:
        a, b = own[note.layer][:, pair.a_span], donor[note.layer][:, pair.b_span]
        assert note.relative_change == pytest.approx(((b - a).norm() / a.norm()).item(), abs=1e-5)


def test_replacing_the_span_at_the_embeddings_reproduces_the_donor(llm, pair):
    lm = WrittenLM(llm)
    with torch.inference_mode():
        with lm.trace(pair.a):
            lm.layers_input[0][:, pair.a_span] = pair.b.inputs_embeds[:, pair.b_span]
            logits = lm.logits.save()
    torch.testing.assert_close(logits[0], hooked(llm, pair.b.inputs_embeds)[0], atol=1e-5, rtol=0)


def test_the_face_reads_what_hooks_read(llm, pair):
    lm, places = WrittenLM(llm), {"layers_input": ("", "input"), "attentions_output": ("self_attn", "output")}
    places |= {"layers_output": ("", "output"), "mlps_output": ("mlp", "output")}
    for name, (path, end) in places.items():
        with torch.inference_mode():
            with lm.trace(pair.a):
                found = getattr(lm, name)[-2].clone().save()
        assert torch.equal(found, value_at(llm, pair.a, 2, path, end)), name
    assert (lm.n_layers, lm.n_heads, lm.head_dim, len(lm.layers)) == (4, 4, 8, 4)


class TupleBlock(Qwen3DecoderLayer):
    """A decoder block that returns a tuple, as transformers' did up to 4.53."""

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs), "attention weights"


class TupleLM(nn.Module):
    """A Qwen3 whose blocks are `TupleBlock`s and which insists on getting the whole tuple back."""

    def __init__(self, llm):
        super().__init__()
        self.config, self.model, self.lm_head = llm.config, nn.Module(), llm.lm_head
        self.model.layers = llm.model.layers
        for block in self.model.layers:
            block.__class__ = TupleBlock
        self.get_input_embeddings = llm.get_input_embeddings
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


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["patch", "mlp", "window"])
def test_blocks_may_return_a_tuple(engine, pair, name):
    tensors, tuples = (run(llm, engine, name, pair).logits for llm in (make_llm(), TupleLM(make_llm())))
    assert (tensors[1] - tensors[0]).abs().max() > 1e-2
    torch.testing.assert_close(tuples, tensors, atol=1e-5, rtol=0)
