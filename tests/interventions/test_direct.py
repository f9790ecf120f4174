"""Direct logit attribution: parts sum to the logits, and each is what the weights make of it."""

import pytest
import torch
from torch import nn

from interventions import load_intervention
from tests.engine.decoders import hooked, make_clip, make_llm, value_at
from tests.engine.test_block_layout import make_granite
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.errors import UserError
from voicepatch.models.gemma4_unified import CappedHead

PARTS = (0, 1, 2, 3, "mlp", "embeddings")


def run(llm, engine="tail", parts=PARTS):
    """The direct logits `[layers, parts, vocabulary]`, and the clip's own logits."""
    clip = make_clip(6, seed=1)
    experiment = load_intervention("direct")
    found = Engine(llm, engine).readouts(experiment, align(clip, clip), range(4), [{"head": part} for part in parts])
    assert found.as_written is None
    direct = found.logits[0] - found.logits[1:]
    return direct.reshape(len(parts), 4, -1).transpose(0, 1), found.logits[0]


@pytest.mark.parametrize("engine", ["tail", "sweep", "stepwise"])
def test_all_parts_sum_to_the_logits(engine):
    direct, logits = run(make_llm(), engine)
    torch.testing.assert_close(direct.sum((0, 1)), logits, atol=1e-4, rtol=0)
    assert (direct[:, :5].abs().amax(2) > 1e-2).all() and not direct[1:, 5].any()


def test_parts_of_granite_are_multiplied_before_they_are_added():
    direct, logits = run(make_granite(0.5))
    torch.testing.assert_close(direct.sum((0, 1)), logits, atol=1e-4, rtol=0)


def test_a_part_is_what_the_weights_make_of_it():
    llm, clip = make_llm(), make_clip(6, seed=1)
    direct, _ = run(llm)
    stream = hooked(llm, clip.inputs_embeds)[1][-1][0, -1]
    scale = torch.rsqrt(stream.square().mean() + llm.model.norm.variance_epsilon)
    read = llm.lm_head.weight @ torch.diag(llm.model.norm.weight) * scale
    mixed = value_at(llm, clip, 2, "self_attn.o_proj", "input")[0, -1, 8:16]
    head = read @ (llm.model.layers[2].self_attn.o_proj.weight[:, 8:16] @ mixed)
    mlp = read @ value_at(llm, clip, 2, "mlp", "output")[0, -1]
    torch.testing.assert_close(direct[2, 1], head, atol=1e-4, rtol=0)
    torch.testing.assert_close(direct[2, 4], mlp, atol=1e-4, rtol=0)


def test_a_norm_that_takes_the_mean_away_is_refused():
    llm = make_llm()
    llm.model.norm = nn.LayerNorm(32)
    with pytest.raises(UserError, match="its final norm does more than to scale"):
        run(llm)


def test_a_head_that_caps_the_logits_is_refused():
    llm = make_llm()
    llm.lm_head = CappedHead(llm.lm_head, 5.0)
    with pytest.raises(UserError, match="its head caps or bends the logits"):
        run(llm)
