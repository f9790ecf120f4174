"""A logit lens: what it reads, that the last layer is the model's answer, and what a run says of it."""

import pytest
import torch
from torch import nn

from interventions import intervention, load_intervention
from pairs import build_pairs
from pairs.controls import each_clip
from tests.engine.decoders import hooked, make_clip, make_llm
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.errors import UserError
from voicepatch.runs.pair_loop import run_table

LENS = load_intervention("lens")


@pytest.mark.parametrize("engine", ["tail", "sweep", "stepwise"])
def test_the_lens_is_the_norm_and_the_head_of_the_readout_positions_stream(llm, engine):
    clip = make_clip(6, 1)
    found = Engine(llm, engine).readouts(LENS, align(clip, clip), range(4), [{}])
    assert found.as_written is None
    logits, streams = hooked(llm, clip.inputs_embeds)
    for lens, stream in zip(found.logits[1:], streams, strict=True):
        with torch.inference_mode():
            expected = llm.lm_head(llm.model.norm(stream))[0, -1]
        torch.testing.assert_close(lens, expected, atol=1e-5, rtol=0)
    assert torch.equal(found.logits[-1], found.logits[0])  # the last layer is the answer, exactly
    torch.testing.assert_close(found.logits[0], logits, atol=1e-5, rtol=0)
    assert {(note.site, note.n_positions, note.start, note.relative_change) for note in found.notes} == {
        ("nothing", 0, None, 0)
    }


def test_a_lens_behind_a_patch_runs_as_it_is_written(llm):
    @intervention
    def patched_lens(lm, pair, layer):
        with lm.trace(pair.a):
            lm.layers_output[layer][:, pair.a_span] = 0
            logits = lm.unembed(lm.layers_output[2]).save()
        return logits

    pair = align(make_clip(6, 1), make_clip(6, 2))
    found = Engine(llm, "tail").readouts(patched_lens, pair, [1], [{}])
    assert "output of layer 2 is read after the first write" in found.as_written
    assert found.notes[0].n_positions == 6 and not torch.equal(found.logits[1], found.logits[0])


@pytest.mark.parametrize("engine", ["tail", "stepwise"])
def test_a_stream_that_was_written_and_then_read_out_counts_as_written(llm, engine):
    @intervention
    def written_lens(lm, pair, layer):
        with lm.trace(pair.a):
            stream = lm.layers_output[layer]
            stream[:, pair.a.span.start :] = 0
            logits = lm.unembed(stream).save()
        return logits

    pair = align(make_clip(6, 1), make_clip(6, 2))
    found = Engine(llm, engine).readouts(written_lens, pair, [1], [{}])
    with torch.inference_mode():
        expected = llm.lm_head(llm.model.norm(torch.zeros(1, llm.config.hidden_size)))[0]
    torch.testing.assert_close(found.logits[1], expected, atol=1e-5, rtol=0)
    assert (found.notes[0].site, found.notes[0].start) == ("output", pair.a.span.start)


@pytest.mark.parametrize("engine", ["tail", "stepwise"])
@pytest.mark.parametrize(("part", "said"), [("norm", r"final norm \(model.norm\)"), ("lm_head", r"head \(lm_head\)")])
def test_a_model_without_norm_or_head_is_named(engine, part, said):
    llm = make_llm()
    engine = Engine(llm, engine)
    lm, owner = (engine.written, llm.model if part == "norm" else llm)
    module = getattr(owner, part)
    delattr(owner, part)
    with pytest.raises(UserError, match=f"Qwen3ForCausalLM: its {said} is not found"):
        lm.unembed(torch.zeros(1, 1, 32))
    assert isinstance(module, nn.Module)


def test_every_clip_of_the_pairs_is_read_once(demo_data):
    sample = build_pairs(demo_data.clips, "semantic", max_pairs=30)
    pairs = each_clip(sample, demo_data.clips)
    clips = {clip.clip_id for pair in sample.pairs for clip in (pair.a, pair.b)}
    assert sorted(pair.a.clip_id for pair in pairs) == sorted(clips)
    assert all(pair.a is pair.b and pair.target == pair.a.semantic_label for pair in pairs)


def test_on_the_demo_the_last_layer_is_the_answer_and_the_first_is_not(demo, demo_data):
    sample = build_pairs(demo_data.clips, "prosody", max_pairs=10)
    table = run_table(demo, LENS, each_clip(sample, demo_data.clips))
    last, first = (table[table["layer"] == layer] for layer in (table["layer"].max(), 0))
    assert (last["logits_patch"] == last["logits_base"]).all() and not last["flip_from_base"].any()
    assert first["flip_from_base"].mean() > 0.3
