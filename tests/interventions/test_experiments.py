"""What each experiment writes, and where; and what the controls show on the demo."""

from dataclasses import replace

import pytest
import torch

from interventions import load_intervention
from interventions.mean import class_mean
from interventions.non_audio import prompt_run
from pairs import build_pairs
from tests.engine.decoders import by_hooks, hooked, make_clip, make_llm, textbook, value_at
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.engine.written import WrittenLM
from voicepatch.errors import UserError
from voicepatch.runs.pair_loop import run_table

LAYERS = range(4)


def run(name, pair, layers=LAYERS, llm=None, **options):
    found = Engine(llm or make_llm(), "sweep").readouts(load_intervention(name), pair, layers, [options])
    return found.logits, found.notes


@pytest.fixture
def pair():
    return align(make_clip(6, seed=1), make_clip(9, seed=2))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n_audio", [2, 5, 40])
def test_prompt_runs_lie_outside_the_span_and_never_at_the_readout(seed, n_audio):
    a, b = make_clip(n_audio, 1, before=5, after=7), make_clip(n_audio + 3, 2, before=5, after=7)
    pair = replace(align(a, b), seed=str(seed))
    here, there = prompt_run(pair)
    assert a.span.stop <= here.start and here.stop <= a.readout_pos
    assert here.stop - here.start == min(n_audio, 6)
    assert a.input_ids[here].tolist() == b.input_ids[there].tolist()  # the same tokens of the prompt


def test_prompt_runs_lie_anywhere_between_the_span_and_the_readout():
    pair = align(make_clip(2, 1, after=7), make_clip(2, 2, after=7))
    starts = {prompt_run(replace(pair, seed=str(seed)))[0].start for seed in range(40)}
    assert starts == set(range(pair.a.span.stop, pair.a.readout_pos - 1))


def test_a_prompt_without_text_after_the_span_has_no_prompt_run():
    with pytest.raises(UserError, match="no text between the audio span and the readout"):
        prompt_run(align(make_clip(2, 1, after=1), make_clip(2, 2, after=1)))


@pytest.mark.parametrize("name", ["direction", "non-audio", "noise"])
def test_what_is_drawn_is_drawn_once_for_all_layers_of_a_pair(name):
    llm, pair = make_llm(), align(make_clip(3, seed=1, after=9), make_clip(5, seed=2, after=9))
    drawn = replace(pair, seed="3")
    together, notes = run(name, drawn, llm=llm)
    assert len({(note.start, note.n_positions) for note in notes}) == 1
    alone, _ = run(name, drawn, [2], llm=llm)
    torch.testing.assert_close(together[3], alone[1], atol=1e-5, rtol=0)
    assert not torch.equal(run(name, replace(pair, seed="4"), llm=llm)[0], together)


def test_replacing_the_whole_suffix_at_the_last_layer_gives_the_donors_answer(pair):
    llm = make_llm()
    logits, notes = run("suffix", pair, llm=llm)
    torch.testing.assert_close(logits[-1], hooked(llm, pair.b.inputs_embeds)[0], atol=1e-4, rtol=0)
    assert (logits[1] - logits[-1]).abs().max() > 1e-2
    after = pair.a.readout_pos + 1 - pair.a.span.stop
    assert {(note.start, note.n_positions) for note in notes} == {(pair.a.span.stop, after)}


def test_noise_has_the_norm_of_the_stream(pair):
    for note in run("noise", replace(pair, seed="1"))[1]:  # two independent vectors of one norm are sqrt(2) of it apart
        assert 1.0 < note.relative_change < 1.8


@pytest.mark.parametrize("how", ["truncate_to_min", "resample_linear"])
def test_a_random_direction_is_at_each_position_as_large_as_the_difference_from_the_donor(how):
    llm, pair = make_llm(), replace(align(make_clip(6, seed=1), make_clip(9, seed=2), how), seed="1")
    own = value_at(llm, pair.a, 1, "", "output")[:, pair.a_span]
    donor = pair.resampled(value_at(llm, pair.b, 1, "", "output")[:, pair.b_span])
    added, entered = [], []
    llm.model.layers[2].register_forward_pre_hook(lambda module, args: entered.append(args[0].clone()))
    for alpha in (1.0, 0.5):
        with torch.inference_mode():
            load_intervention("direction")(WrittenLM(llm), pair.reset_rng(), 1, alpha=alpha)
        added.append(entered[-1][:, pair.a_span] - own)
    torch.testing.assert_close(added[0].norm(dim=-1), (donor - own).norm(dim=-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(added[1], added[0] / 2, atol=1e-4, rtol=0)
    cosines = torch.cosine_similarity(added[0], donor - own, dim=-1)
    assert cosines.abs().max() < 0.7  # 32 dimensions


def test_a_window_of_one_is_the_main_experiment(pair):
    llm = make_llm()
    torch.testing.assert_close(run("window", pair, llm=llm, k=1)[0], textbook(llm, pair, LAYERS), atol=1e-4, rtol=0)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_a_window_of_all_writes_the_donor_at_every_layer(pair, alpha):
    llm = make_llm()
    donor = hooked(llm, pair.b.inputs_embeds)[1]

    def write(layer):
        def mix(stream):
            stream[:, pair.a_span] = (1 - alpha) * stream[:, pair.a_span] + alpha * donor[layer][:, pair.b_span]

        return layer, "", "output", mix

    whole, _ = run("window", pair, layers=[0], llm=llm, k=4, alpha=alpha)
    torch.testing.assert_close(whole[1], by_hooks(llm, pair.a, *map(write, LAYERS)), atol=1e-4, rtol=0)


def test_the_class_mean_is_over_the_clips_that_reach_a_position():
    llm = make_llm()
    clips = [make_clip(2, 1), make_clip(4, 2)]
    with torch.inference_mode():
        mean = class_mean(WrittenLM(llm), clips, 1)
    short, long = (hooked(llm, clip.inputs_embeds)[1][1][:, clip.span] for clip in clips)
    expected = torch.cat([(short + long[:, :2]) / 2, long[:, 2:]], dim=1)
    torch.testing.assert_close(mean, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "path"), [("attention", "self_attn"), ("mlp", "mlp")])
def test_a_component_is_the_donors_and_the_stream_it_is_added_to_is_not(pair, name, path):
    llm = make_llm()
    logits, notes = run(name, pair, [2], llm=llm, alpha=0.5)
    donor = value_at(llm, pair.b, 2, path, "output")[:, pair.b_span]

    def mix(value):
        value[:, pair.a_span] = (value[:, pair.a_span] + donor) / 2

    torch.testing.assert_close(logits[1], by_hooks(llm, pair.a, (2, path, "output", mix)), atol=1e-5, rtol=0)
    assert notes[0].site == f"{path}.output"


def test_one_head_is_the_donors_and_the_others_are_not(pair):
    llm = make_llm()
    logits, notes = run("heads", pair, [1], llm=llm, head=3)
    donor = value_at(llm, pair.b, 1, "self_attn.o_proj", "input")[:, pair.b_span, 24:32]

    def write(value):
        value[:, pair.a_span, 24:32] = donor

    expected = by_hooks(llm, pair.a, (1, "self_attn.o_proj", "input", write))
    torch.testing.assert_close(logits[1], expected, atol=1e-5, rtol=0)
    assert notes[0].site == "self_attn.o_proj.input"


def test_all_heads_together_are_the_attention(pair):
    llm = make_llm()
    donor = value_at(llm, pair.b, 1, "self_attn.o_proj", "input")[:, pair.b_span]

    def write(value):
        value[:, pair.a_span] = donor

    every_head = by_hooks(llm, pair.a, (1, "self_attn.o_proj", "input", write))
    torch.testing.assert_close(run("attention", pair, [1], llm=llm)[0][1], every_head, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_steering_moves_the_mean_of_a_by_the_scaled_difference_and_keeps_its_course(pair, scale):
    llm = make_llm()
    own, donor = (value_at(llm, clip, 1, "", "output")[:, clip.span].mean(1) for clip in (pair.a, pair.b))

    def steer(stream):
        stream[:, pair.a.span] += scale * (donor - own)

    expected = by_hooks(llm, pair.a, (1, "", "output", steer))
    torch.testing.assert_close(run("steer", pair, [1], llm=llm, scale=scale)[0][1], expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def tables(demo, demo_data):
    """Records on the demo: the main experiment and its controls."""
    sample = build_pairs(demo_data.clips, "prosody", max_pairs=16)
    tables = {}
    for name in ("patch", "self", "same-label", "random", "non-audio", "suffix", "direction"):
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


def test_on_the_demo_a_random_direction_leaves_the_flips_at_the_rate_of_a_itself(tables):
    own = 1 - tables["direction"]["eligible"].mean()
    assert (curve(tables["direction"]) <= own + 1 / 16).all() and curve(tables["patch"]).max() > own + 0.3


def test_on_the_demo_the_suffix_mirrors_the_span(tables):
    span, suffix = curve(tables["patch"]), curve(tables["suffix"])
    crossing = (suffix > span).argmax()
    assert suffix[0] <= span[-1] and 0 < crossing and (suffix[crossing:] > span[crossing:]).all()


def test_on_the_demo_the_suffix_ends_as_high_as_the_span_starts_where_all_of_the_donor_fits(tables):
    # Where B is longer, its end is cut off: a feeling word there is lost, the voice decides, and the span flips more
    # pairs than B itself would.
    span, suffix = (curve(tables[name].query("len_b <= len_a")) for name in ("patch", "suffix"))
    assert suffix[-1] >= span[0] > 0.4
