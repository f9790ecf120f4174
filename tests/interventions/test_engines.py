"""Every engine computes what plain forward hooks compute, and `tail` no more than a patch can change."""

from dataclasses import replace

import pytest
import torch

from errors import UserError
from interventions import catalogue, load_intervention
from engine.pair_input import align
from engine.lm import ENGINES, TracedLM
from interventions.patch import patch
from tests.interventions.decoders import make_clip, make_llm, textbook

DOSED = [item for item in catalogue().items() if "alpha" in item[1].options]


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


@pytest.mark.parametrize("engine", ["tail", "sweep"])
@pytest.mark.parametrize("max_rows", [1, 3, 4])
def test_a_sweep_in_parts_gives_the_same_rows(golden, engine, max_rows):
    llm, a, b = golden
    whole, lm = run(llm, engine, align(a, b), range(4)), TracedLM(llm, engine, max_rows)
    batches = []
    with watched(llm.lm_head, lambda args, kwargs: batches.append(len(args[0]))), torch.inference_mode():
        parts = patch.run(lm, align(a, b), range(4))
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
    assert max(batches) == 1 + max_rows


class TestStepwise:
    def test_it_overwrites_the_only_row_and_runs_once_a_layer(self, golden):
        llm, a, b = golden
        batches = []
        with watched(llm.lm_head, lambda args, kwargs: batches.append(len(args[0]))):
            run(llm, "stepwise", align(a, b), range(4))
        assert batches[-5:] == [1] * 5  # A itself, then one forward a layer


class TestTail:
    @pytest.mark.parametrize(("len_a", "len_b"), [(6, 9), (9, 6)])
    def test_only_what_comes_after_the_patch_is_computed_a_row_for_each_layer_before(self, llm, len_a, len_b):
        pair, lm = align(make_clip(len_a, seed=1), make_clip(len_b, seed=2)), TracedLM(llm, "tail")
        with torch.inference_mode():
            for clip in (pair.a, pair.b):
                lm.record(clip)
        entered = []
        with watched(llm.model.layers, lambda args, kwargs: entered.append(args[0].shape[:2])), torch.inference_mode():
            patch.run(lm, pair, range(4))
        after = len(pair.a.input_ids) - pair.a_span.stop
        assert entered == [(1, after), (1, after), (2, after), (3, after)]

    @pytest.mark.parametrize(
        ("name", "options"),
        [("patch", {"alpha": 0.5}), ("suffix", {}), ("non-audio", {}), ("noise", {}), ("window", {"alpha": 0.5})],
    )
    def test_nothing_before_the_first_changed_position_is_computed(self, llm, name, options):
        pair, lm = align(make_clip(6, seed=1), make_clip(6, seed=2)), TracedLM(llm, "tail")
        with torch.inference_mode():
            for clip in (pair.a, pair.b):
                lm.record(clip)
        lengths = set()
        with watched(llm.model.layers, lambda a, kw: lengths.add(a[0].shape[1])), torch.inference_mode():
            load_intervention(name).run(lm, pair, range(4), **options)
        assert lengths == {len(pair.a.input_ids) - min(write.start for write in lm.writes)}

    def test_a_clip_is_run_unpatched_once_for_all_its_pairs_and_both_directions(self, llm):
        a, b, c = (make_clip(6, seed=seed) for seed in range(3))
        lm, forwards = TracedLM(llm, "tail"), []
        with watched(llm.model, lambda args, kwargs: forwards.append(1)), torch.inference_mode():
            for pair in (align(a, b), align(b, a), align(b, c), align(c, a)):
                patch.run(lm, pair, range(4))
        assert len(forwards) == 3 + 4

    def test_a_record_lives_as_long_as_its_clip(self, llm):
        lm, clip = TracedLM(llm, "tail"), make_clip(6, seed=1)
        assert lm.recorded_bytes(clip) == 0
        lm.record(clip)
        stream, keys = 4 * 13 * 32, 4 * 2 * 13 * 8
        assert lm.recorded_bytes(clip) == 4 * (stream + 2 * keys + 50)
        del clip
        assert not lm._tapes

    @pytest.mark.parametrize("engine", ["tail", "sweep"])
    @pytest.mark.parametrize(
        ("name", "alpha"),
        [
            (name, alpha)
            for name, entry in catalogue().items()
            for alpha in (1.0, 0.4)[: 1 + ("alpha" in entry.options)]
        ],
    )
    def test_every_intervention_gives_what_stepwise_gives(self, llm, name, alpha, engine):
        experiment = load_intervention(name)
        clips = [make_clip(length, seed) for seed, length in enumerate((5, 7, 9))]
        options = {"alpha": alpha} if alpha != 1 else {}
        for a, b in ((clips[0], clips[1]), (clips[2], clips[1])):
            pair = replace(align(a, b), target_clips=lambda: clips)
            found, expected = (
                experiment.run(TracedLM(llm, by), fresh(pair), [0, 1, 3], **options) for by in (engine, "stepwise")
            )
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

    def test_a_window_of_whole_spans_is_one_patch(self, llm):
        # A span that is B's stays B's: nothing of A can enter it.
        pair = align(make_clip(6, seed=1), make_clip(8, seed=2))
        whole, one = (load_intervention(name).run(TracedLM(llm), pair, range(4)) for name in ("window", "patch"))
        torch.testing.assert_close(whole, one, atol=1e-5, rtol=0)

    def test_what_stands_before_n_must_be_what_was_known(self, llm):
        pair, lm = align(make_clip(6, seed=1), make_clip(6, seed=2)), TracedLM(llm, "tail")
        for known, writes in (((pair.a, 5), pair.a_span), ((pair.b, pair.a_span.stop), pair.a_span)):
            lm.reset()
            with torch.inference_mode():
                with lm.trace(pair.a, known=known):
                    lm.branch(1, writes, torch.ones(1, 6, 32))
                    lm.readout().save()
            with pytest.raises(UserError, match="known="):
                lm.check_known()

    def test_prompts_that_differ_before_the_span_are_no_common_past(self):
        a, b = make_clip(6, seed=1), make_clip(6, seed=2)
        assert align(a, b).known() == (b, 9)
        assert align(a, replace(b, input_ids=b.input_ids + 1)).known() == (a, 3)

    def test_blocks_with_a_window_of_their_own_are_swept_instead(self):
        llm = make_llm()
        llm.config.layer_types = ["full_attention"] * 3 + ["sliding_attention"]
        assert (TracedLM(make_llm()).engine, TracedLM(llm).engine) == ("tail", "sweep")
        with pytest.raises(UserError, match="use sweep"):
            TracedLM(llm, "tail")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_no_forward_keeps_a_cache(golden, engine, alpha):
    llm, a, b = golden
    flags, returned = [], []
    handle = llm.model.register_forward_hook(lambda m, args, output: returned.append(output.past_key_values))
    with watched(llm.model, lambda args, kwargs: flags.append(kwargs["use_cache"])):
        run(llm, engine, align(a, b), range(4), alpha=alpha)
    handle.remove()
    assert len(flags) > 1 and not any(flags) and returned == [None] * len(flags)


def test_an_unknown_engine_is_refused(llm):
    with pytest.raises(UserError, match="sweep"):
        TracedLM(llm, "quick")


def fresh(pair):
    """The pair with its random numbers at their beginning."""
    return replace(pair, rng=type(pair.rng)(0))


class watched:
    """Inside, `see(args, kwargs)` is told of every call of a module, or of each in a list."""

    def __init__(self, modules, see):
        self.modules = modules if isinstance(modules, torch.nn.ModuleList) else [modules]
        self.see = see

    def __enter__(self):
        hook = lambda module, args, kwargs: self.see(args, kwargs)  # noqa: E731
        self.handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module in self.modules]

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()
