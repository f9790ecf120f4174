"""Both engines compute what plain forward hooks compute."""

import pytest
import torch

from errors import UserError
from interventions.core.experiment import align
from interventions.core.traced import ENGINES, TracedLM
from interventions.patch import patch
from tests.interventions.decoders import textbook


def run(llm, engine, pair, layers, **options):
    with torch.inference_mode():
        return patch.run(TracedLM(llm, engine), pair, layers, **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("longer", ["donor", "recipient"])
class TestAgainstHooks:
    def test_on_the_golden_checkpoint(self, golden, engine, alpha, longer):
        llm, short, long = golden
        pair = align(short, long) if longer == "donor" else align(long, short)
        self.holds(llm, engine, pair, alpha)

    def test_on_the_demo(self, demo, demo_pair, engine, alpha, longer):
        short, long = demo_pair.a, demo_pair.b
        assert short.n_audio < long.n_audio
        pair = align(short, long) if longer == "donor" else align(long, short)
        self.holds(demo.model.llm_model, engine, pair, alpha)

    def holds(self, llm, engine, pair, alpha):
        layers = range(llm.config.num_hidden_layers)
        expected = textbook(llm, pair, layers, alpha)
        found = run(llm, engine, pair, layers, alpha=alpha)
        assert (expected[1:-1] - expected[0]).abs().amax() > 0.01, "the patch must do something"
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_subset_of_layers_gives_the_same_rows(golden, engine):
    llm, a, b = golden
    pair = align(a, b)
    every, some = run(llm, engine, pair, range(4)), run(llm, engine, pair, [0, 2])
    torch.testing.assert_close(some, every[[0, 1, 3]], atol=1e-5, rtol=0)


def test_stepwise_overwrites_the_only_row_and_runs_once_a_layer(golden):
    llm, a, b = golden
    batches = []
    handle = llm.lm_head.register_forward_hook(lambda module, args, output: batches.append(len(output)))
    try:
        run(llm, "stepwise", align(a, b), range(4))
    finally:
        handle.remove()
    assert batches[-5:] == [1] * 5  # A itself, then one forward a layer


def test_no_forward_keeps_a_cache(golden):
    llm, a, b = golden
    flags = []
    handle = llm.model.register_forward_pre_hook(lambda m, args, kw: flags.append(kw["use_cache"]), with_kwargs=True)
    try:
        run(llm, "sweep", align(a, b), range(4))
    finally:
        handle.remove()
    assert flags == [False, False]


def test_an_unknown_engine_is_refused(llm):
    with pytest.raises(UserError, match="sweep"):
        TracedLM(llm, "quick")
