"""What each control and variant writes, and where; both engines agree on all of them."""

import random
from dataclasses import replace

import pytest
import torch

from interventions import catalogue, load_intervention
from runs.pair_loop import run_table
from engine.pair_input import align
from engine.lm import TracedLM
from interventions.mean import class_mean
from interventions.non_audio import prompt_run
from pairs import build_pairs
from tests.engine.decoders import hooked, make_clip, make_llm, textbook

LAYERS = range(4)


def run(name, pair, layers=LAYERS, engine="sweep", llm=None, **options):
    lm = TracedLM(llm or make_llm(), engine)
    with torch.inference_mode():
        return load_intervention(name).run(lm, pair, layers, **options), lm.writes


@pytest.fixture
def pair():
    return align(make_clip(6, seed=1), make_clip(9, seed=2))


@pytest.mark.parametrize("name", catalogue())
def test_both_engines_agree(name, pair):
    clips = [make_clip(n, seed=n) for n in (4, 8)]
    options = {"alphas": (0.3, 1.0)} if name == "dose" else {}
    results = []
    for engine in ("sweep", "stepwise"):
        given = replace(pair, rng=random.Random(5), target_clips=lambda: clips)
        logits, writes = run(name, given, engine=engine, **options)
        assert len(logits) == 1 + len(writes)
        results.append(logits)
    torch.testing.assert_close(*results, atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n_audio", [2, 5, 40])
def test_prompt_runs_lie_outside_the_span_and_never_at_the_readout(seed, n_audio):
    a, b = make_clip(n_audio, 1, before=5, after=7), make_clip(n_audio + 3, 2, before=5, after=7)
    pair = replace(align(a, b), rng=random.Random(seed))
    here, there = prompt_run(pair)
    positions = set(range(here.start, here.stop))
    assert positions and not positions & set(a.audio_indices.tolist()) and a.readout_pos not in positions
    assert len(positions) == min(n_audio, 5 if here.stop <= 5 else 6)
    assert a.input_ids[here].tolist() == b.input_ids[there].tolist()  # the same tokens of the prompt


def test_prompt_runs_lie_before_and_after_the_span():
    pair = align(make_clip(2, 1), make_clip(2, 2))
    starts = {prompt_run(replace(pair, rng=random.Random(seed)))[0].start for seed in range(40)}
    assert min(starts) < pair.a.span.start < max(starts)


def test_the_same_prompt_positions_are_patched_at_every_layer(pair):
    _, writes = run("non-audio", replace(pair, rng=random.Random(3)))
    assert len({(write.start, write.n) for write in writes}) == 1


def test_replacing_the_whole_suffix_at_the_last_layer_gives_the_donors_answer(pair):
    llm = make_llm()
    logits, _ = run("suffix", pair, llm=llm)
    torch.testing.assert_close(logits[-1], hooked(llm, pair.b.inputs_embeds)[0], atol=1e-4, rtol=0)
    assert (logits[1] - logits[-1]).abs().max() > 1e-2


def test_the_suffix_is_every_position_after_the_span(pair):
    _, writes = run("suffix", pair)
    after = pair.a.readout_pos + 1 - pair.a.span.stop
    assert {(write.start, write.n) for write in writes} == {(pair.a.span.stop, after)}


def test_noise_has_the_norm_of_the_stream_and_is_the_same_for_the_same_pair(pair):
    noisy, writes = run("noise", replace(pair, rng=random.Random(1)))
    again, _ = run("noise", replace(pair, rng=random.Random(1)))
    other, _ = run("noise", replace(pair, rng=random.Random(2)))
    assert torch.equal(noisy, again) and not torch.equal(noisy, other)
    for write in writes:  # two independent vectors of one norm are about sqrt(2) of it apart
        assert 1.0 < write.shift < 1.8


def test_a_dose_of_one_is_the_main_experiment_and_doses_come_in_order(pair):
    logits, writes = run("dose", pair, layers=[0, 2], alphas=(0.5, 1.0))
    assert [(write.layer, write.alpha) for write in writes] == [(0, 0.5), (2, 0.5), (0, 1.0), (2, 1.0)]
    main, _ = run("patch", pair, layers=[0, 2])
    torch.testing.assert_close(logits[[0, 3, 4]], main, atol=1e-5, rtol=0)


def test_a_window_of_one_is_the_main_experiment_and_a_window_of_all_repeats_the_donor_at_every_layer(pair):
    llm = make_llm()
    torch.testing.assert_close(run("window", pair, llm=llm, k=1)[0], textbook(llm, pair, LAYERS), atol=1e-4, rtol=0)
    whole, _ = run("window", pair, layers=[0], llm=llm, k=4)
    donor = hooked(llm, pair.b.inputs_embeds)[1]

    def write_all(index):
        def hook(module, args, output):
            output = output.clone()
            output[:, pair.a_span] = donor[index][:, pair.b_span]
            return output

        return hook

    handles = [block.register_forward_hook(write_all(i)) for i, block in enumerate(llm.model.layers)]
    with torch.inference_mode():
        expected = llm(inputs_embeds=pair.a.inputs_embeds, use_cache=False).logits[0, -1]
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(whole[1], expected, atol=1e-4, rtol=0)


def test_the_class_mean_is_over_the_clips_that_reach_a_position():
    llm = make_llm()
    clips = [make_clip(2, 1), make_clip(4, 2)]
    with torch.inference_mode():
        means = class_mean(TracedLM(llm), clips, [1])
    short, long = (hooked(llm, clip.inputs_embeds)[1][1][:, clip.span] for clip in clips)
    expected = torch.cat([(short + long[:, :2]) / 2, long[:, 2:]], dim=1)
    torch.testing.assert_close(means[1], expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def tables(demo, demo_data):
    """Records on the demo: the main experiment with its default pairs, and its controls."""
    sample = build_pairs(demo_data.clips, "prosody")
    tables = {}
    for name in ("patch", "self", "same-label", "random", "non-audio", "suffix"):
        experiment = load_intervention(name)
        pairs = experiment.pairs(sample, demo_data.clips) if experiment.pairs else sample.pairs
        tables[name] = run_table(demo, experiment, pairs, clips=demo_data.clips)
    return tables


def curve(table, column="flip_to_target"):
    return table.groupby("layer")[column].mean().to_numpy()


def test_on_the_demo_self_never_flips(tables):
    assert not tables["self"]["flip_from_base"].any()


@pytest.mark.parametrize(
    ("name", "column"),
    [("random", "flip_to_target"), ("non-audio", "flip_to_target"), ("same-label", "flip_from_base")],
)
def test_on_the_demo_controls_stay_far_below_the_main_curve_where_it_is_high(tables, name, column):
    main, control = curve(tables["patch"]), curve(tables[name], column)
    high = main > 0.3
    assert high.any() and (control[high] < 0.5 * main[high]).all()


def test_on_the_demo_the_suffix_mirrors_the_span(tables):
    span, suffix = curve(tables["patch"]), curve(tables["suffix"])
    crossing = (suffix > span).argmax()
    assert suffix[0] <= span[-1] and 0 < crossing and (suffix[crossing:] > span[crossing:]).all()


def test_on_the_demo_the_suffix_ends_as_high_as_the_span_starts_where_all_of_the_donor_fits(tables):
    # Where B is longer, its end is cut off: a feeling word there is lost, the voice decides, and the span flips more
    # pairs than B itself would.
    span, suffix = (curve(tables[name].query("len_b <= len_a")) for name in ("patch", "suffix"))
    assert suffix[-1] >= span[0] > 0.4
