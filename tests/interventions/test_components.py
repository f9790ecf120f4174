"""A set of heads and MLPs is patched at once, held against plain hooks."""

import pytest
import torch

from interventions import load_intervention
from interventions.components import parts_of
from tests.engine.decoders import by_hooks, hooked, make_clip, make_llm, value_at
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.errors import BAD_USAGE, UserError


@pytest.fixture
def pair():
    return align(make_clip(6, seed=1), make_clip(9, seed=2))


def run(llm, pair, engine="tail", **options):
    found = Engine(llm, engine).readouts(load_intervention("components"), pair, [0], [options])
    assert found.as_written is None
    return found.logits[1]


@pytest.mark.parametrize("engine", ["tail", "sweep", "stepwise"])
@pytest.mark.parametrize("at", ["after", "span"])
def test_a_set_is_the_donors_and_nothing_else_is(pair, engine, at):
    llm = make_llm()
    a_at, b_at = pair.positions(at)

    def put(path, end, layer, columns):
        donor = value_at(llm, pair.b, layer, path, end)[:, b_at, columns]

        def write(value):
            value[:, a_at, columns] = donor

        return layer, path, end, write

    o_proj = ("self_attn.o_proj", "input")
    expected = by_hooks(
        llm,
        pair.a,
        put(*o_proj, 0, slice(8, 16)),
        put("mlp", "output", 0, slice(None)),
        put(*o_proj, 2, slice(0, 8)),
        put(*o_proj, 2, slice(24, 32)),
    )
    found = run(llm, pair, engine, components="2.3+0.mlp+0.1+2.0", at=at)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_all_of_them_leave_only_the_embeddings_to_a(pair):
    """After the span both clips have the same embeddings, so that all parts together give B's answer."""
    llm = make_llm()
    donor, own = hooked(llm, pair.b.inputs_embeds)[0], hooked(llm, pair.a.inputs_embeds)[0]
    torch.testing.assert_close(run(llm, pair, components="all"), donor, atol=2e-4, rtol=0)
    assert (donor - own).abs().max() > 0.1


def test_all_but_some_are_the_others():
    lm = Engine(make_llm()).written
    names = [f"{layer}.{part}" for layer in range(4) for part in (0, 1, 2, 3, "mlp")]
    rest = parts_of(lm, "all-1.mlp-2.0")
    assert rest == parts_of(lm, "+".join(name for name in names if name not in ("1.mlp", "2.0"))) and len(rest) == 18


@pytest.mark.parametrize("text", ["4.0", "0.4", "mlp", "", "all-9.0", "0.0+", "all+0.0"])
def test_a_part_that_the_model_lacks_is_named(text):
    with pytest.raises(UserError, match="is no head or MLP of the model") as caught:
        parts_of(Engine(make_llm()).written, text)
    assert caught.value.status == BAD_USAGE


@pytest.mark.parametrize("text", ["0.0+1.mlp+0.0", "all-0.0-0.0"])
def test_a_part_that_is_named_twice_is_an_error(text):
    with pytest.raises(UserError, match=r"0\.0 is there twice"):
        parts_of(Engine(make_llm()).written, text)
