"""Every engine computes what plain forward hooks compute, and `tail` no more than a row can change."""

from dataclasses import replace

import pytest
import torch

from interventions import catalogue, intervention, load_intervention
from tests.engine.decoders import make_clip, make_llm, textbook
from tests.engine.every_experiment import options_of, pairs_of
from voicepatch.engine.engine import ENGINES, Engine
from voicepatch.engine.pair_input import align
from voicepatch.errors import UserError

SWEPT = ("tail", "sweep")


def run(llm, engine, pair, layers, name="patch", **options):
    return Engine(llm, engine).readouts(load_intervention(name), pair, layers, [options]).logits


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("longer", ["donor", "recipient"])
class TestAgainstHooks:
    def test_on_the_golden_checkpoint(self, golden, engine, alpha, longer):
        llm, short, long = golden
        self.holds(llm, engine, align(short, long) if longer == "donor" else align(long, short), alpha)

    def test_on_the_demo(self, demo, demo_pair, engine, alpha, longer):
        short, long = demo_pair.a, demo_pair.b
        assert short.n_audio < long.n_audio
        pair = align(short, long) if longer == "donor" else align(long, short)
        self.holds(demo.model.llm, engine, pair, alpha)

    def holds(self, llm, engine, pair, alpha):
        layers = range(llm.config.num_hidden_layers)
        expected = textbook(llm, pair, layers, alpha)
        found = run(llm, engine, pair, layers, alpha=alpha)
        assert (expected[1:-1] - expected[0]).abs().amax() > 0.01, "the patch must do something"
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("engine", SWEPT)
@pytest.mark.parametrize("name", catalogue())
def test_every_experiment_gives_what_it_gives_as_it_is_written_and_the_same_notes(llm, name, engine):
    experiment = load_intervention(name)
    options = options_of(experiment)
    for pair in pairs_of(name):
        found = Engine(llm, engine).readouts(experiment, pair, [0, 1, 3], options)
        expected = Engine(llm, "stepwise").readouts(experiment, pair, [0, 1, 3], options)
        torch.testing.assert_close(found.logits, expected.logits, atol=2e-5, rtol=0)
        for note, plain in zip(found.notes, expected.notes, strict=True):
            assert replace(note, relative_change=0) == replace(plain, relative_change=0)
            assert note.relative_change == pytest.approx(plain.relative_change, abs=1e-4)
        assert name == "self" or (found.logits[1:] - found.logits[0]).abs().max() > 1e-3


@pytest.mark.parametrize("engine", ENGINES)
def test_a_subset_of_layers_and_a_sweep_give_the_same_rows_as_each_alone(golden, engine):
    llm, a, b = golden
    pair, patch = align(a, b), load_intervention("patch")
    options = [{"alpha": alpha} for alpha in (0.25, 1.0)]
    swept = Engine(llm, engine).readouts(patch, pair, [0, 2], options)
    assert [(note.layer, note.options["alpha"]) for note in swept.notes] == [(0, 0.25), (2, 0.25), (0, 1.0), (2, 1.0)]
    for at, alpha in ((1, 0.25), (3, 1.0)):
        alone = run(llm, engine, pair, range(4), alpha=alpha)
        torch.testing.assert_close(swept.logits[[0, at, at + 1]], alone[[0, 1, 3]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("engine", SWEPT)
@pytest.mark.parametrize("max_rows", [1, 3])
def test_rows_in_parts_are_the_same_rows(golden, engine, max_rows):
    llm, a, b = golden
    whole, heads = run(llm, engine, align(a, b), range(4)), load_intervention("heads")
    batches = []
    with watched(llm.lm_head, lambda args, kwargs: batches.append(len(args[0]))):
        parts = Engine(llm, engine, max_rows).readouts(load_intervention("patch"), align(a, b), range(4), [{}])
    torch.testing.assert_close(parts.logits, whole, atol=1e-5, rtol=0)
    assert max(batches) == 1 + max_rows
    every = [{"head": head} for head in range(2)]
    one, other = (Engine(llm, engine, n).readouts(heads, align(a, b), range(4), every) for n in (None, max_rows))
    torch.testing.assert_close(one.logits, other.logits, atol=1e-5, rtol=0)


def test_stepwise_runs_two_forwards_a_layer_of_one_row_each_and_records_nothing(golden):
    llm, a, b = golden
    batches, starts, engine = [], [], Engine(llm, "stepwise")
    with (
        watched(llm.lm_head, lambda args, kwargs: batches.append(len(args[0]))),
        watched(llm.model, lambda args, kwargs: starts.append(1)),
    ):
        engine.readouts(load_intervention("patch"), align(a, b), range(4), [{}])
    assert batches == [1] * (1 + 4) and len(starts) == 1 + 2 * 4 and engine.recordings.nbytes(a) == 0


@pytest.mark.parametrize("layer", range(4))
def test_a_trace_as_written_ends_behind_its_last_read(golden, layer):
    llm, a, b = golden
    engine, ran = Engine(llm, "stepwise"), []
    with watched(llm.model.layers, lambda args, kwargs: ran.append(1)):
        engine.readouts(load_intervention("patch"), align(a, b), [layer], [{}])
    assert len(ran) == 4 + (layer + 1) + 4


def test_a_trace_that_keeps_a_cache_of_values_runs_to_its_end(golden):
    llm, a, _ = golden
    lm = Engine(llm, "stepwise").written
    with lm.trace(a) as tracer:
        kept = tracer.cache(modules=["model.model.layers.3"])
    assert kept["model.model.layers.3"].output.shape == a.inputs_embeds.shape


class TestTail:
    @pytest.mark.parametrize(("len_a", "len_b"), [(6, 9), (9, 6)])
    def test_only_what_comes_after_the_patch_is_computed_a_row_for_each_layer_before(self, llm, len_a, len_b):
        pair, engine = align(make_clip(len_a, seed=1), make_clip(len_b, seed=2)), Engine(llm, "tail")
        for clip in (pair.a, pair.b):
            engine.record(clip)
        entered = []
        with watched(llm.model.layers, lambda args, kwargs: entered.append(args[0].shape[:2])):
            engine.readouts(load_intervention("patch"), pair, range(4), [{}])
        after = len(pair.a.input_ids) - pair.a_span.stop
        assert entered == [(1, after), (1, after), (2, after), (3, after)]

    @pytest.mark.parametrize(
        ("name", "options", "start"),
        [
            ("patch", {"alpha": 0.5}, "span"),
            ("suffix", {}, "suffix"),
            ("noise", {}, "span"),
            ("direction", {}, "span"),
            ("heads", {"head": 2}, "span"),
            ("mlp", {}, "span"),
        ],
    )
    def test_nothing_before_the_first_changed_position_is_computed(self, llm, name, options, start):
        pair, engine = align(make_clip(6, seed=1), make_clip(6, seed=2)), Engine(llm, "tail")
        experiment = load_intervention(name)
        engine.readouts(experiment, pair, [0], [options])
        lengths = set()
        with watched(llm.model.layers, lambda args, kwargs: lengths.add(args[0].shape[1])):
            engine.readouts(experiment, pair, range(4), [options])
        first = pair.a.span.start if start == "span" else pair.a.span.stop
        assert lengths == {len(pair.a.input_ids) - first}

    def test_a_clip_is_run_unpatched_once_for_all_its_pairs_and_both_directions(self, llm):
        a, b, c = (make_clip(6, seed=seed) for seed in range(3))
        engine, forwards = Engine(llm, "tail"), []
        with watched(llm.model, lambda args, kwargs: forwards.append(1)):
            for pair in (align(a, b), align(b, a), align(b, c), align(c, a)):
                engine.readouts(load_intervention("patch"), pair, range(4), [{}])
        assert len(forwards) == 3 + 4

    def test_a_place_that_was_asked_for_is_recorded_with_the_rest_from_then_on(self, llm):
        a, b, c = (make_clip(6, seed=seed) for seed in range(3))
        engine, forwards, mlp = Engine(llm, "tail"), [], load_intervention("mlp")
        engine.readouts(mlp, align(a, b), range(4), [{}])
        with watched(llm.model, lambda args, kwargs: forwards.append(1)):
            engine.readouts(mlp, align(a, c), range(4), [{}])
        assert len(forwards) == 1 + 1

    def test_a_recording_lives_as_long_as_its_clip(self, llm):
        engine, clip = Engine(llm, "tail"), make_clip(6, seed=1)
        assert engine.recordings.nbytes(clip) == 0
        engine.record(clip)
        stream, keys = 4 * 13 * 32, 4 * 2 * 13 * 8
        assert engine.recordings.nbytes(clip) == 4 * (stream + 2 * keys + 50)
        del clip
        assert not engine.recordings._made

    def test_a_window_of_whole_spans_is_one_patch(self, llm):
        # A span that is B's stays B's: nothing of A can enter it.
        pair = align(make_clip(6, seed=1), make_clip(8, seed=2))
        torch.testing.assert_close(
            run(llm, "tail", pair, range(4), "window"), run(llm, "tail", pair, range(4)), atol=1e-5, rtol=0
        )


class TestWhatIsKnownIsFound:
    """The run that a row stands on, and up to where."""

    def known(self, experiment, pair, **options):
        rows = Engine(make_llm(), "tail").plan(experiment, pair, [1, 3], [options])
        ((source, n),) = {(row.source, row.n) for row in rows}
        return source, n

    @pytest.fixture
    def pair(self):
        return align(make_clip(6, seed=1), make_clip(9, seed=2))

    def test_a_span_that_is_all_the_donors_is_the_donors_run(self, pair):
        assert self.known(load_intervention("patch"), pair) == (pair.b, pair.a_span.stop)
        assert self.known(load_intervention("window"), pair) == (pair.b, pair.a_span.stop)

    def test_a_mixture_another_place_and_the_clip_itself_are_not(self, pair):
        start = pair.a_span.start
        assert self.known(load_intervention("patch"), pair, alpha=0.5) == (pair.a, start)
        assert self.known(load_intervention("mlp"), pair) == (pair.a, start)
        assert self.known(load_intervention("self"), align(pair.a, pair.a)) == (pair.a, start)

    def test_where_the_donors_values_end_so_does_its_run(self, pair):
        @intervention
        def half(lm, pair, layer):
            with lm.trace(pair.b):
                donor = lm.layers_output[layer][:, pair.b_span].save()
            with lm.trace(pair.a):
                stream = lm.layers_output[layer]
                stream[:, pair.a_span] = donor
                stream[:, pair.a_span.start + 4] = 0
                logits = lm.logits.save()
            return logits

        assert self.known(half, pair) == (pair.b, pair.a_span.start + 4)

    def test_a_later_write_ends_the_donors_run_where_it_differs(self, pair):
        @intervention
        def twice(lm, pair, layer):
            with lm.trace(pair.b):
                donor = lm.layers_output[layer][:, pair.b_span].save()
            with lm.trace(pair.a):
                lm.layers_output[layer][:, pair.a_span] = donor
                if layer + 1 < lm.n_layers:
                    lm.mlps_output[layer + 1][:, pair.a_span.start + 2] = 0
                logits = lm.logits.save()
            return logits

        rows = Engine(make_llm(), "tail").plan(twice, pair, [1, 3], [{}])
        assert [row.n for row in rows] == [pair.a_span.start + 2, pair.a_span.stop]

    def test_donors_at_other_positions_or_after_other_tokens_are_no_run_to_stand_on(self, pair):
        @intervention
        def shifted(lm, pair, layer):
            with lm.trace(pair.b):
                donor = lm.layers_output[layer][:, 4:7].save()
            with lm.trace(pair.a):
                lm.layers_output[layer][:, 3:6] = donor
                logits = lm.logits.save()
            return logits

        assert self.known(shifted, pair) == (pair.a, 3)
        other = replace(pair, b=replace(pair.b, input_ids=pair.b.input_ids + (pair.b.input_ids >= 0)))
        assert self.known(load_intervention("patch"), other) == (pair.a, 3)


@pytest.mark.parametrize("window", [2, 3, 5, 8, 30])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_a_tail_behind_a_sliding_window_is_what_plain_hooks_give(window, alpha):
    """Recordings keep all keys, and the window is a mask over positions: from before the span to behind the end."""
    llm, pair = make_llm(sliding_window=window), align(make_clip(9, seed=1), make_clip(6, seed=2))
    found = run(llm, "tail", pair, range(4), alpha=alpha)
    assert (found - textbook(llm, pair, range(4), alpha)).abs().max() < 1e-5


def test_blocks_of_another_kind_are_swept():
    llm = make_llm()
    llm.config.layer_types = ["full_attention"] * 3 + ["linear_attention"]
    windows = make_llm(sliding_window=4)
    assert [Engine(model).name for model in (make_llm(), windows, llm)] == ["tail", "tail", "sweep"]
    with pytest.raises(UserError, match="linear_attention.*use sweep"):
        Engine(llm, "tail")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_no_forward_keeps_a_cache(golden, engine, alpha):
    llm, a, b = golden
    flags, returned = [], []
    handle = llm.model.register_forward_hook(lambda m, args, output: returned.append(output.past_key_values))
    with watched(llm.model, lambda args, kwargs: flags.append(kwargs["use_cache"])):
        run(llm, engine, align(a, b), range(4), alpha=alpha)
    handle.remove()
    # A trace as it is written ends before the decoder returns, where nothing more is read.
    assert len(flags) > 1 and not any(flags) and returned and set(returned) == {None}


def test_an_unknown_engine_is_refused(llm):
    with pytest.raises(UserError, match="sweep"):
        Engine(llm, "quick")


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


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_leaves_no_hook_on_the_model(golden, engine):
    llm, a, b = golden

    def n_hooks():
        return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in llm.modules())

    def fails(lm, pair, layer):
        raise ValueError

    before = n_hooks()
    for _ in range(3):
        made = Engine(llm, engine)
        made.readouts(load_intervention("patch"), align(a, b), [1], [{}])
        with pytest.raises(UserError):
            made.readouts(intervention(fails), align(a, b), [1], [{}])
        assert n_hooks() == before
