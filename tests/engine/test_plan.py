"""What an experiment writes is found wherever it writes."""

import nnsight
import pytest
import torch

from interventions import intervention
from tests.engine.decoders import by_hooks, value_at
from tests.engine.planned import LAYER, SITES, assert_same, place


@pytest.mark.parametrize("name", SITES)
def test_a_write_at_each_site(llm, pair, readouts, name):
    path, end = SITES[name]

    @intervention
    def there(lm, pair, layer):
        with lm.trace(pair.b):
            donor = place(lm, layer, path, end)[:, pair.b_span].save()
        with lm.trace(pair.a):
            place(lm, layer, path, end)[:, pair.a_span] = donor
            logits = lm.logits.save()
        return logits

    found = readouts(there, pair)
    donor = value_at(llm, pair.b, LAYER, path, end)[:, pair.b_span]
    before = value_at(llm, pair.a, LAYER, path, end)[:, pair.a_span]

    def write(value):
        value[:, pair.a_span] = donor

    # What was changed in place is seen by all who have the tensor, so a block's input is the residual stream as well.
    assert_same(found.logits[1], by_hooks(llm, pair.a, (LAYER, path, end, write)))
    assert_same(found.logits[0], by_hooks(llm, pair.a))
    (note,) = found.notes
    assert (note.site, note.start, note.n_positions) == (f"{path}.{end}".lstrip("."), 3, 6)
    assert note.relative_change == pytest.approx(((donor - before).norm() / before.norm()).item(), rel=1e-4)


@pytest.mark.parametrize("name", [*SITES, "shared"])
def test_a_value_that_is_replaced_at_each_site(llm, pair, readouts, name):
    # The queries' input is the keys' and the values' too, which are to see it as it was.
    path, end = SITES.get(name, ("self_attn.q_proj", "input"))

    @intervention
    def doubled(lm, pair, layer):
        with lm.trace(pair.a):
            module = lm.layers[layer]
            for part in path.split(".") if path else ():
                module = getattr(module, part)
            whole = getattr(module, end)
            setattr(module, end, (whole[0] * 2, *whole[1:]) if isinstance(whole, tuple) else whole * 2)
            logits = lm.logits.save()
        return logits

    found = readouts(doubled, pair)
    assert_same(found.logits[1], by_hooks(llm, pair.a, (LAYER, path, end, lambda value: value * 2)))
    assert found.notes[0].n_positions == len(pair.a.input_ids) and found.notes[0].relative_change == pytest.approx(1)


def test_a_heads_slice(llm, pair, readouts):
    columns = slice(8, 16)

    @intervention
    def head(lm, pair, layer):
        with lm.trace(pair.a):
            lm.layers[layer].self_attn.o_proj.input[:, pair.a_span, columns] = 0
            logits = lm.logits.save()
        return logits

    def write(value):
        value[:, pair.a_span, columns] = 0

    assert_same(readouts(head, pair).logits[1], by_hooks(llm, pair.a, (LAYER, "self_attn.o_proj", "input", write)))


def test_what_the_mlp_adds_and_what_leaves_the_same_block(llm, pair, readouts):
    """The row cannot enter behind the block, where the second write has its place."""

    @intervention
    def both(lm, pair, layer):
        with lm.trace(pair.b):
            donor = lm.mlps_output[layer][:, pair.b_span].save()
        with lm.trace(pair.a):
            lm.mlps_output[layer][:, pair.a_span] = donor
            lm.layers_output[layer][:, pair.a_span.start + 1] = 0
            logits = lm.logits.save()
        return logits

    donor = value_at(llm, pair.b, LAYER, "mlp", "output")[:, pair.b_span]

    def add(value):
        value[:, pair.a_span] = donor

    def erase(value):
        value[:, pair.a_span.start + 1] = 0

    writes = (LAYER, "mlp", "output", add), (LAYER, "", "output", erase)
    assert_same(readouts(both, pair).logits[1], by_hooks(llm, pair.a, *writes))


def test_two_writes_in_one_layer_and_one_in_a_later_one(llm, pair, readouts):
    @intervention
    def thrice(lm, pair, layer):
        with lm.trace(pair.b):
            donor = nnsight.save([lm.attentions_output[layer][:, pair.b_span], lm.mlps_output[layer][:, pair.b_span]])
        with lm.trace(pair.a):
            lm.attentions_output[layer][:, pair.a_span] = donor[0]
            lm.mlps_output[layer][:, pair.a_span] = donor[1]
            lm.layers_output[layer + 1][:, -2] = 0
            logits = lm.logits.save()
        return logits

    donors = [value_at(llm, pair.b, LAYER, path, "output")[:, pair.b_span] for path in ("self_attn", "mlp")]

    def writes(donor):
        def write(value):
            value[:, pair.a_span] = donor

        return write

    def at_the_end(value):
        value[:, -2] = 0

    expected = by_hooks(
        llm,
        pair.a,
        (LAYER, "self_attn", "output", writes(donors[0])),
        (LAYER, "mlp", "output", writes(donors[1])),
        (LAYER + 1, "", "output", at_the_end),
    )
    found = readouts(thrice, pair)
    assert_same(found.logits[1], expected)
    assert found.notes[0].site == "self_attn.output + mlp.output + output" and found.notes[0].n_positions == 7


INDICES = {
    "negative": (slice(None), slice(-5, -2)),
    "one position": (0, -4),
    "a list": (slice(None), [5, 2, 7]),
    "a mask": (slice(None), torch.arange(13) % 3 == 0),
    "a tensor": (slice(None), torch.tensor([4, 8])),
    "a step": (slice(None), slice(1, 9, 2)),
    "all": (Ellipsis,),
    "some of the width": (slice(None), slice(3, 6), slice(0, 5)),
    "every row": (slice(None),),
}


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("behind_another", [False, True])
def test_any_index(llm, pair, readouts, name, behind_another):
    index = INDICES[name]

    @intervention
    def indexed(lm, pair, layer):
        with lm.trace(pair.a):
            if behind_another:
                lm.mlps_output[layer - 1][:, 4:6] = 0.3
            lm.layers_output[layer][index] = 0.5
            logits = lm.logits.save()
        return logits

    def write(value):
        value[index] = 0.5

    def before(value):
        value[:, 4:6] = 0.3

    others = [(LAYER - 1, "mlp", "output", before)] if behind_another else []
    found = readouts(indexed, pair)
    assert_same(found.logits[1], by_hooks(llm, pair.a, *others, (LAYER, "", "output", write)))
    if not behind_another:
        reached = torch.zeros(1, 13, 32)
        reached[index] = 1
        assert found.notes[0].n_positions == int(reached.any(2).sum())


def test_arithmetic_in_place_on_a_view_is_seen(llm, pair, readouts):
    @intervention
    def scaled(lm, pair, layer):
        with lm.trace(pair.a):
            lm.layers_output[layer][:, pair.a_span].mul_(3)
            logits = lm.logits.save()
        return logits

    def write(value):
        value[:, pair.a_span] *= 3

    found = readouts(scaled, pair)
    assert_same(found.logits[1], by_hooks(llm, pair.a, (LAYER, "", "output", write)))
    assert (found.notes[0].start, found.notes[0].n_positions) == (3, 6)


def test_augmented_assignment_of_a_complete_value(llm, pair, readouts):
    @intervention
    def more(lm, pair, layer):
        with lm.trace(pair.a):
            lm.mlps_output[layer] *= 3
            logits = lm.logits.save()
        return logits

    assert_same(readouts(more, pair).logits[1], by_hooks(llm, pair.a, (LAYER, "mlp", "output", lambda v: v * 3)))


def test_writes_at_several_layers_in_a_loop(llm, pair, readouts):
    @intervention
    def several(lm, pair, layer):
        layers = range(layer, lm.n_layers)
        with lm.trace(pair.a):
            for at in layers:
                lm.layers_output[at][:, pair.a_span] = 0.1 * at
            logits = lm.logits.save()
        return logits

    def writes(at):
        def write(value):
            value[:, pair.a_span] = 0.1 * at

        return at, "", "output", write

    assert_same(readouts(several, pair).logits[1], by_hooks(llm, pair.a, *map(writes, range(LAYER, 4))))


def test_a_patch_with_what_is_there_is_a_row_that_equals_a(pair, readouts):
    @intervention
    def own(lm, pair, layer):
        with lm.trace(pair.a):
            stream = lm.layers_output[layer]
            stream[:, pair.a_span] = stream[:, pair.a_span].clone()
            logits = lm.logits.save()
        return logits

    found = readouts(own, pair)
    assert_same(found.logits[1], found.logits[0])
    assert (found.notes[0].n_positions, found.notes[0].relative_change) == (6, 0)
