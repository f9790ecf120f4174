"""What an experiment writes is found wherever it writes, and what cannot be found runs as it is written."""

from dataclasses import replace

import nnsight
import pytest
import torch

from interventions import intervention
from tests.engine.decoders import by_hooks, make_clip, make_llm, value_at
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.errors import UserError

LAYER = 1
SITES = {
    "input": ("", "input"),
    "output": ("", "output"),
    "attention": ("self_attn", "output"),
    "mlp": ("mlp", "output"),
    "o_proj": ("self_attn.o_proj", "input"),
    "q_proj": ("self_attn.q_proj", "output"),
    "k_norm": ("self_attn.k_norm", "output"),
    "mlp input": ("mlp", "input"),
    "norm": ("post_attention_layernorm", "output"),
    "down_proj": ("mlp.down_proj", "input"),
}


def place(lm, layer, path, end):
    """The value there, through `lm.layers`."""
    module = lm.layers[layer]
    for name in path.split(".") if path else ():
        module = getattr(module, name)
    value = getattr(module, end)
    return value[0] if isinstance(value, tuple) else value


@pytest.fixture
def pair():
    return align(make_clip(6, seed=1), make_clip(9, seed=2))


@pytest.fixture(params=["tail", "sweep", "stepwise"])
def readouts(request, llm):
    """`readouts(experiment, pair)`: those of layer 1, planned but for stepwise; written holds its note."""

    def compute(experiment, pair, planned=True, layers=(LAYER,)):
        found = Engine(llm, request.param).readouts(experiment, pair, layers, [{}])
        assert (found.as_written is None) == (planned or request.param == "stepwise")
        return found

    return compute


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


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


def test_augmented_assignment_of_a_whole_value(llm, pair, readouts):
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


class TestRunsAsWritten:
    """It gives the same, one line says why, and the line is named."""

    def check(self, llm, pair, experiment, expected, why, line):
        for engine in ("tail", "sweep", "stepwise"):
            found = Engine(llm, engine).readouts(experiment, pair, [LAYER], [{}])
            assert_same(found.logits[1], expected)
            if engine != "stepwise":
                number = experiment.run.__code__.co_firstlineno + line
                assert found.as_written == f"tests/engine/test_plan.py:{number}: {why}"

    def test_a_patched_stream_that_is_read(self, llm, pair):
        @intervention
        def twice(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] *= 2
                lm.layers_output[layer + 1][:, pair.a_span] *= 2
                logits = lm.logits.save()
            return logits

        def write(value):
            value[:, pair.a_span] *= 2

        expected = by_hooks(llm, pair.a, (LAYER, "", "output", write), (LAYER + 1, "", "output", write))
        self.check(llm, pair, twice, expected, "output of layer 2 is read after the first write", 4)

    def test_a_patched_logit_that_is_computed_on(self, llm, pair):
        @intervention
        def louder(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = 0
                logits = lm.logits.save()
            return logits * 2

        def write(value):
            value[:, pair.a_span] = 0

        expected = 2 * by_hooks(llm, pair.a, (LAYER, "", "output", write))
        self.check(llm, pair, louder, expected, "it computes with the patched logits", 5)

    def test_what_lies_outside_the_blocks(self, llm, pair):
        @intervention
        def normed(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = 0
                lm.model.model.norm.output *= 2
                logits = lm.logits.save()
            return logits

        def write(value):
            value[:, pair.a_span] = 0

        expected = 2 * by_hooks(llm, pair.a, (LAYER, "", "output", write))
        self.check(llm, pair, normed, expected, "lm.model reaches outside the blocks", 4)

    def test_a_patched_activation_of_one_trace_in_another(self, llm, pair):
        @intervention
        def path(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = 0
                moved = lm.mlps_output[layer + 1].save()
            with lm.trace(pair.a):
                lm.mlps_output[layer + 1] = moved + 0
                logits = lm.logits.save()
            return logits

        def write(value):
            value[:, pair.a_span] = 0

        found = []
        by_hooks(llm, pair.a, (LAYER, "", "output", write), (LAYER + 1, "mlp", "output", found.append))
        expected = by_hooks(llm, pair.a, (LAYER + 1, "mlp", "output", lambda value: found[0]))
        self.check(llm, pair, path, expected, "mlp.output of layer 2 is read after the first write", 6)

    @pytest.mark.parametrize("behind_another", [False, True])
    def test_a_value_that_is_written_to_when_the_model_has_gone_on(self, llm, pair, behind_another):
        @intervention
        def late(lm, pair, layer):
            with lm.trace(pair.a):
                if behind_another:
                    lm.layers_output[0][:, 4] = 0.5
                early, later = lm.layers_output[layer], lm.layers_output[layer + 1]
                early[:, pair.a_span] = 0
                later[:, 4] = 0.5
                logits = lm.logits.save()
            return logits

        def write(value):
            value[:, 4] = 0.5

        first = [(0, "", "output", write)] if behind_another else []
        expected = by_hooks(llm, pair.a, *first, (LAYER + 1, "", "output", write))
        line = 6 if behind_another else 0
        why = "a value is written to after a later one was used"
        for engine in ("tail", "stepwise"):
            found = Engine(llm, engine).readouts(late, pair, [LAYER], [{}])
            assert_same(found.logits[1], expected)
            assert (
                engine == "stepwise"
                or why in found.as_written
                and (not line or f":{late.run.__code__.co_firstlineno + line}:" in found.as_written)
            )

    @pytest.mark.parametrize("where", ["donor", "readout"])
    def test_a_trace_that_is_stopped(self, llm, pair, where):
        @intervention
        def stopped(lm, pair, layer):
            with lm.trace(pair.b) as tracer:
                donor = lm.layers_output[layer][:, pair.b_span].save()
                tracer.stop()
            with lm.trace(pair.a) as tracer:
                lm.layers_output[layer][:, pair.a_span] = donor
                logits = lm.logits.save()
                if where == "readout":
                    tracer.stop()
            return logits

        donor = value_at(llm, pair.b, LAYER, "", "output")[:, pair.b_span]

        def write(value):
            value[:, pair.a_span] = donor

        expected = by_hooks(llm, pair.a, (LAYER, "", "output", write))
        self.check(llm, pair, stopped, expected, "tracer.stop needs a trace that runs", 4)

    def test_a_trace_with_a_cache(self, llm, pair):
        @intervention
        def cached(lm, pair, layer):
            with lm.trace(pair.b) as tracer:
                cache = tracer.cache()
            donor = cache.model.model.layers[layer].output[:, pair.b_span]
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = donor
                logits = lm.logits.save()
            return logits

        donor = value_at(llm, pair.b, LAYER, "", "output")[:, pair.b_span]

        def write(value):
            value[:, pair.a_span] = donor

        expected = by_hooks(llm, pair.a, (LAYER, "", "output", write))
        self.check(llm, pair, cached, expected, "tracer.cache needs a trace that runs", 3)

    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_a_knockout_of_attention(self, llm, pair, attention):
        llm.set_attn_implementation(attention)

        @intervention
        def knockout(lm, pair, layer):
            n = pair.a.readout_pos + 1
            mask = torch.full((n, n), -torch.inf).triu(1)[None, None]
            mask[..., pair.a.span.stop :, pair.a_span] = -torch.inf
            with lm.trace(pair.a):
                args, kwargs = lm.layers[layer].self_attn.inputs
                lm.layers[layer].self_attn.inputs = (args, {**kwargs, "attention_mask": mask})
                logits = lm.logits.save()
            return logits

        def hide(module, args, kwargs):
            n = pair.a.readout_pos + 1
            seen = torch.ones(n, n).tril()
            seen[pair.a.span.stop :, pair.a_span] = 0
            return args, {**kwargs, "attention_mask": torch.where(seen == 1, 0.0, -torch.inf)[None, None]}

        handle = llm.model.layers[LAYER].self_attn.register_forward_pre_hook(hide, with_kwargs=True)
        expected = by_hooks(llm, pair.a)
        handle.remove()
        assert (expected - by_hooks(llm, pair.a)).abs().max() > 1e-2
        self.check(llm, pair, knockout, expected, "self_attn.inputs is not a place that the engine can plan", 6)

    def test_inputs_that_hold_what_was_written(self, llm, pair):
        @intervention
        def given(lm, pair, layer):
            with lm.trace(pair.a):
                stream = lm.layers[layer].mlp.input
                stream[:, pair.a_span] = 0
                lm.layers[layer].mlp.inputs = ((stream,), {})
                logits = lm.logits.save()
            return logits

        def write(value):
            value[:, pair.a_span] = 0

        found = Engine(llm, "tail").readouts(given, pair, [LAYER], [{}])
        assert_same(found.logits[1], by_hooks(llm, pair.a, (LAYER, "mlp", "input", write)))
        assert "mlp.inputs is not a place that the engine can plan" in found.as_written


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


@pytest.mark.parametrize("engine", ["sweep", "stepwise"])
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


class TestMistakes:
    """Each ends in one line with the file and line of the experiment, by every engine."""

    @pytest.fixture(params=["tail", "stepwise"])
    def error(self, request, llm, pair):
        def error(experiment):
            with pytest.raises(UserError) as caught:
                Engine(llm, request.param).readouts(experiment, pair, [LAYER], [{}])
            return str(caught.value)

        return error

    def test_an_index_that_reaches_nothing(self, error):
        @intervention
        def head(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers[layer].self_attn.o_proj.input[:, pair.a_span, 56:64] = 0
                logits = lm.logits.save()
            return logits

        line = head.run.__code__.co_firstlineno + 3
        assert f"test_plan.py:{line}: IndexError: [:, 3:9, 56:64] selects nothing" in error(head)

    def test_a_layer_that_the_model_lacks(self, error):
        @intervention
        def deep(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[40][:, pair.a_span] = 0
                logits = lm.logits.save()
            return logits

        assert "the model has layers 0-3" in error(deep)

    def test_nothing_is_written(self, error):
        @intervention
        def idle(lm, pair, layer):
            with lm.trace(pair.a):
                logits = lm.logits.save()
            return logits

        assert "idle writes nothing in its last trace" in error(idle)

    def test_nothing_is_returned(self, error):
        @intervention
        def silent(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = 0
                lm.logits.save()

        assert "silent returned None" in error(silent) and "return logits" in error(silent)

    def test_something_else_is_returned(self, error):
        @intervention
        def stream(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = 0
                last = lm.logits.save()
            return [last]

        assert "stream returned a list, not logits [1, 50]" in error(stream)

    def test_a_readout_of_another_clip(self, error):
        @intervention
        def other(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = 0
                lm.logits.save()
            with lm.trace(pair.b):
                lm.layers_output[layer][:, pair.b_span] = 0
                logits = lm.logits.save()
            return logits

        line = other.run.__code__.co_firstlineno + 5
        assert f"test_plan.py:{line}: other ends with a trace over pair.b; the readout must come" in error(other)

    def test_a_readout_of_a_copy_of_a(self, error):
        @intervention
        def other(lm, pair, layer):
            with lm.trace(replace(pair.a)):
                lm.layers_output[layer][:, pair.a_span] = 0
                logits = lm.logits.save()
            return logits

        line = other.run.__code__.co_firstlineno + 2
        assert f"test_plan.py:{line}: other ends with a trace over another clip" in error(other)

    @pytest.mark.parametrize("whose", ["a", "b"])
    @pytest.mark.parametrize("how", [lambda x: x, lambda x: x[:], lambda x: x.clone(), lambda x: x.float() + 0])
    def test_a_readout_of_an_earlier_trace(self, error, whose, how):
        @intervention
        def earlier(lm, pair, layer):
            with lm.trace(getattr(pair, whose)):
                logits = lm.logits.save()
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = 0
                lm.logits.save()
            return how(logits)

        line = earlier.run.__code__.co_firstlineno + 4
        message = f"test_plan.py:{line}: earlier returns a readout that was taken before this trace, its last"
        assert message in error(earlier)

    def test_a_readout_of_no_trace(self, error):
        @intervention
        def made(lm, pair, layer):
            return torch.zeros(1, 50)

        line = made.run.__code__.co_firstlineno
        assert f"test_plan.py:{line}: made opens no trace; the readout must come" in error(made)

    def test_a_trace_in_another(self, error):
        @intervention
        def nested(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = 0
                with lm.trace(pair.b):
                    donor = lm.layers_output[layer].save()  # noqa: F841
                logits = lm.logits.save()
            return logits

        @intervention
        def together(lm, pair, layer):
            with lm.trace(pair.b), lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = 0
                logits = lm.logits.save()
            return logits

        for experiment, line in ((nested, 4), (together, 2)):
            number = experiment.run.__code__.co_firstlineno + line
            assert f"test_plan.py:{number}: a trace is opened inside another" in error(experiment)

    def test_attention_weights_that_are_not_computed(self, error):
        @intervention
        def weights(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers[layer].self_attn.output[1][:, :, :, pair.a_span] = 0
                logits = lm.logits.save()
            return logits

        line = weights.run.__code__.co_firstlineno + 3
        assert f"test_plan.py:{line}: 'NoneType' object" in error(weights)
        assert "sdpa computes none" in error(weights) and 'set_attn_implementation("eager")' in error(weights)

    def test_another_thing_of_a_module_that_is_assigned(self, error):
        @intervention
        def assigned(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers[layer].mlp.act_fn = torch.nn.Identity()
                logits = lm.logits.save()
            return logits

        assert "act_fn of a module cannot be assigned; its input, inputs and output can" in error(assigned)

    def test_probabilities_are_returned(self, error):
        @intervention
        def softmaxed(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = 0
                answer = lm.logits.softmax(-1).save()
            return answer

        @intervention
        def logged(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = 0
                answer = lm.logits.log_softmax(-1).save()
            return answer

        assert "softmaxed returned probabilities, not logits" in error(softmaxed)
        assert "logged returned logarithms of probabilities, not logits" in error(logged)

    def test_another_clips_longer_span(self, error):
        @intervention
        def longer(lm, pair, layer):
            with lm.trace(pair.b):
                donor = lm.layers_output[layer][:, pair.b.span].save()
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a.span] = donor
                logits = lm.logits.save()
            return logits

        message = error(longer)
        assert f"test_plan.py:{longer.run.__code__.co_firstlineno + 5}:" in message
        assert "pair.resampled(value) brings B's values at pair.b_span to the length of pair.a_span" in message

    def test_a_replacement_of_another_shape(self, error):
        @intervention
        def small(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[layer] = torch.zeros(1, 2, 32)
                logits = lm.logits.save()
            return logits

        assert "a value of shape [1, 2, 32] cannot replace output, which has shape [1, 13, 32]" in error(small)

    def test_layers_out_of_order(self, error):
        @intervention
        def backwards(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[3][:, pair.a_span] = 0
                lm.layers_output[0][:, pair.a_span] = 0
                logits = lm.logits.save()
            return logits

        line = backwards.run.__code__.co_firstlineno + 4
        assert f"test_plan.py:{line}:" in error(backwards)
        assert "in the order in which the model computes them" in error(backwards)

    def test_an_error_of_its_own_is_not_blamed_on_anything_else(self, error):
        @intervention
        def wrong(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = 1 / 0
                logits = lm.logits.save()
            return logits

        line = wrong.run.__code__.co_firstlineno + 3
        assert error(wrong).endswith(f"test_plan.py:{line}: ZeroDivisionError: division by zero")

    def test_nothing_is_saved(self, llm, pair):
        @intervention
        def unsaved(lm, pair, layer):
            with lm.trace(pair.b):
                donor = lm.layers_output[layer][:, pair.b_span]
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = donor
                logits = lm.logits.save()
            return logits

        with pytest.raises(UserError, match="only what was saved outlives it"):
            Engine(llm, "stepwise").readouts(unsaved, pair, [LAYER], [{}])

    def test_logits_that_are_not_saved(self, llm, pair):
        @intervention
        def unsaved(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = 0
                answer = lm.logits
            return answer

        line = unsaved.run.__code__.co_firstlineno + 5
        with pytest.raises(UserError) as caught:
            Engine(llm, "stepwise").readouts(unsaved, pair, [LAYER], [{}])
        assert str(caught.value).startswith(f"tests/engine/test_plan.py:{line}: ")
        assert "only what was saved outlives it, as in answer = (...).save()" in str(caught.value)


def test_readouts_of_two_traces_over_a_may_be_put_together(llm, pair, readouts):
    @intervention
    def both(lm, pair, layer):
        with lm.trace(pair.a):
            lm.layers_output[layer][:, pair.a_span] = 0
            first = lm.logits.save()
        with lm.trace(pair.a):
            lm.mlps_output[layer][:, pair.a_span] = 0
            second = lm.logits.save()
        return (first + second) / 2

    def write(value):
        value[:, pair.a_span] = 0

    expected = [by_hooks(llm, pair.a, (LAYER, path, "output", write)) for path in ("", "mlp")]
    assert_same(readouts(both, pair, planned=False).logits[1], sum(expected) / 2)


def test_attention_weights_are_read_where_they_are_computed(llm, pair):
    llm.set_attn_implementation("eager")
    weights = []

    @intervention
    def looks(lm, pair, layer):
        with lm.trace(pair.a):
            found = lm.layers[layer].self_attn.output[1].clone().save()
            lm.layers_output[layer][:, pair.a_span] = 0
            logits = lm.logits.save()
        weights.append(found)
        return logits

    handle = llm.model.layers[LAYER].self_attn.register_forward_hook(lambda *all: weights.append(all[2][1]))
    by_hooks(llm, pair.a)
    handle.remove()
    for engine in ("tail", "stepwise"):
        Engine(llm, engine).readouts(looks, pair, [LAYER], [{}])
    assert weights[0].shape == (1, 4, 13, 13) and len(weights) == 3
    for found in weights[1:]:
        assert_same(found, weights[0])


@pytest.mark.parametrize("engine", ["tail", "sweep"])
def test_steps_of_a_generation_are_refused(llm, pair, engine):
    @intervention
    def stepping(lm, pair, layer):
        with lm.trace(pair.a) as tracer:
            for _ in tracer.iter[:]:
                lm.layers_output[layer][:, pair.a_span] = 0
            logits = lm.logits.save()
        return logits

    line = stepping.run.__code__.co_firstlineno + 3
    with pytest.raises(UserError, match=f"test_plan.py:{line}: tracer.iter runs over the steps of a generation"):
        Engine(llm, engine).readouts(stepping, pair, [LAYER], [{}])
