"""An experiment that cannot be planned runs as it is written, with the same result."""

import pytest
import torch

from interventions import intervention
from tests.engine.decoders import by_hooks, value_at
from tests.engine.planned import LAYER, assert_same
from voicepatch.engine.engine import Engine


class TestRunsAsWritten:
    """It gives the same, one line says why, and the line is named."""

    def check(self, llm, pair, experiment, expected, why, line):
        for engine in ("tail", "sweep", "stepwise"):
            found = Engine(llm, engine).readouts(experiment, pair, [LAYER], [{}])
            assert_same(found.logits[1], expected)
            if engine != "stepwise":
                number = experiment.run.__code__.co_firstlineno + line
                assert found.as_written == f"tests/engine/test_as_written.py:{number}: {why}"

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
