"""A mistake in an experiment ends in one line with its file and line."""

from dataclasses import replace

import pytest
import torch

from interventions import intervention
from tests.engine.planned import LAYER
from voicepatch.engine.engine import Engine
from voicepatch.errors import UserError


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
        assert f"test_mistakes.py:{line}: IndexError: [:, 3:9, 56:64] selects nothing" in error(head)

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
        assert f"test_mistakes.py:{line}: other ends with a trace over pair.b; the readout must come" in error(other)

    def test_a_readout_of_a_copy_of_a(self, error):
        @intervention
        def other(lm, pair, layer):
            with lm.trace(replace(pair.a)):
                lm.layers_output[layer][:, pair.a_span] = 0
                logits = lm.logits.save()
            return logits

        line = other.run.__code__.co_firstlineno + 2
        assert f"test_mistakes.py:{line}: other ends with a trace over another clip" in error(other)

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
        message = f"test_mistakes.py:{line}: earlier returns a readout that was taken before this trace, its last"
        assert message in error(earlier)

    def test_a_readout_of_no_trace(self, error):
        @intervention
        def made(lm, pair, layer):
            return torch.zeros(1, 50)

        line = made.run.__code__.co_firstlineno
        assert f"test_mistakes.py:{line}: made opens no trace; the readout must come" in error(made)

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
            assert f"test_mistakes.py:{number}: a trace is opened inside another" in error(experiment)

    def test_attention_weights_that_are_not_computed(self, error):
        @intervention
        def weights(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers[layer].self_attn.output[1][:, :, :, pair.a_span] = 0
                logits = lm.logits.save()
            return logits

        line = weights.run.__code__.co_firstlineno + 3
        assert f"test_mistakes.py:{line}: 'NoneType' object" in error(weights)
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
        assert f"test_mistakes.py:{longer.run.__code__.co_firstlineno + 5}:" in message
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
        assert f"test_mistakes.py:{line}:" in error(backwards)
        assert "in the order in which the model computes them" in error(backwards)

    def test_an_error_of_its_own_is_not_blamed_on_anything_else(self, error):
        @intervention
        def wrong(lm, pair, layer):
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = 1 / 0
                logits = lm.logits.save()
            return logits

        line = wrong.run.__code__.co_firstlineno + 3
        assert error(wrong).endswith(f"test_mistakes.py:{line}: ZeroDivisionError: division by zero")

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
        assert str(caught.value).startswith(f"tests/engine/test_mistakes.py:{line}: ")
        assert "only what was saved outlives it, as in answer = (...).save()" in str(caught.value)


@pytest.mark.parametrize("engine", ["tail", "sweep"])
def test_steps_of_a_generation_are_errors(llm, pair, engine):
    @intervention
    def stepping(lm, pair, layer):
        with lm.trace(pair.a) as tracer:
            for _ in tracer.iter[:]:
                lm.layers_output[layer][:, pair.a_span] = 0
            logits = lm.logits.save()
        return logits

    line = stepping.run.__code__.co_firstlineno + 3
    with pytest.raises(UserError, match=f"test_mistakes.py:{line}: tracer.iter runs over the steps of a generation"):
        Engine(llm, engine).readouts(stepping, pair, [LAYER], [{}])
