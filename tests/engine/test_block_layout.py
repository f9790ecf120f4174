"""What a decoder's blocks are made of, found by looking; what is added to the stream enters behind the block."""

import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM

from interventions import load_intervention
from tests.engine.decoders import HIDDEN, by_hooks, make_clip, make_llm, value_at
from voicepatch.engine.block_layout import block_layout
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align


def make_granite(residual_multiplier):
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=50, hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4
    )
    config.residual_multiplier = residual_multiplier
    llm = GraniteForCausalLM(config).eval().requires_grad_(False)
    for parameter in llm.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 0.3)
    return llm


def test_places_are_in_the_order_of_computing():
    for order in block_layout(make_llm()).order:
        locations = [("input_layernorm", "output"), ("self_attn", "input"), ("self_attn.o_proj", "input")]
        locations += [("self_attn", "output"), ("mlp", "input"), ("mlp.down_proj", "output"), ("mlp", "output")]
        locations = [location for location in locations if location in order]
        assert len(locations) >= 6 and sorted(locations, key=order.get) == locations


def test_what_is_added_to_the_stream_last_is_found_in_every_block():
    for added_to in block_layout(make_llm()).added_to:
        assert added_to[("mlp", "output")] == ("post_attention_layernorm", "input")
        assert ("self_attn", "output") not in added_to and ("mlp", "input") not in added_to


def test_where_it_is_scaled_before_nothing_is_found():
    assert block_layout(make_granite(0.5)).added_to == [{}] * 4
    assert all(("mlp", "output") in found for found in block_layout(make_granite(1.0)).added_to)


@pytest.mark.parametrize(
    ("llm", "entered"),
    [(make_llm(), [1, 1, 2, 3]), (make_granite(1.0), [1, 1, 2, 3]), (make_granite(0.5), [1, 2, 3, 4])],
)
def test_a_row_of_mlp_is_one_block_shorter_where_it_is_and_the_same_everywhere(llm, entered):
    pair, mlp, engine = align(make_clip(6, seed=1), make_clip(6, seed=2)), load_intervention("mlp"), Engine(llm)
    engine.readouts(mlp, pair, [0], [{}])
    batches = []
    handles = [
        block.mlp.register_forward_pre_hook(lambda _, args: batches.append(len(args[0]))) for block in llm.model.layers
    ]
    found = engine.readouts(mlp, pair, range(4), [{}]).logits
    for handle in handles:
        handle.remove()
    assert batches == entered
    for layer in range(4):
        donor = value_at(llm, pair.b, layer, "mlp", "output")[:, pair.b_span]

        def write(value, donor=donor):
            value[:, pair.a_span] = donor

        expected = by_hooks(llm, pair.a, (layer, "mlp", "output", write))
        torch.testing.assert_close(found[1 + layer], expected, atol=1e-5, rtol=0)
