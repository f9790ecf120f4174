"""Each family gives what the outer class of transformers gives, from the sound to the patched readout."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from tests.models.families.conftest import sound
from tests.models.families.tiny import N_LAYERS
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.engine.positions import question_positions, token_texts
from voicepatch.engine.subject import load_subject
from voicepatch.engine.textbook import hooked
from voicepatch.errors import UserError
from voicepatch.models.gemma4_unified import Gemma4Unified
from voicepatch.models.speech_lm import join, load_speech_lm
from voicepatch.registry.catalogue import load_intervention
from voicepatch.runs.planted import planted_check
from voicepatch.types.task import default_task

SECONDS = (0.025, 0.11, 0.5, 1, 3.3, 10, 29.99, 30, 30.5, 61)
NOISE = 2e-5


class Face:
    """What `hooked` needs of a decoder, over an outer model."""

    def __init__(self, tiny):
        self.model = tiny.text


def outer_readouts(case):
    """`[1 + layers, vocabulary]` of the outer class: A's own, and with B's span written in by plain hooks."""
    a, b, pair = case.sounds[0], case.sounds[1], case.pair
    donor, rows = {}, []
    with hooked(Face(case.tiny), lambda layer, stream: donor.__setitem__(layer, stream[:, pair.b_span].clone())):
        case.tiny.logits(pair.b, b)
    rows.append(case.tiny.logits(pair.a, a))
    for patched in range(N_LAYERS):

        def write(layer, stream, patched=patched):
            if layer != patched:
                return None
            stream = stream.clone()
            stream[:, pair.a_span] = donor[layer]
            return stream

        with hooked(Face(case.tiny), write):
            rows.append(case.tiny.logits(pair.a, a))
    return torch.stack(rows)


@pytest.fixture(scope="session")
def expected():
    """The outer class's readouts of a case, computed once."""
    cache = {}

    def of(case):
        if id(case) not in cache:
            with torch.inference_mode():
                cache[id(case)] = outer_readouts(case)
        return cache[id(case)]

    return of


def test_unpatched_logits_are_those_of_the_outer_class(case, expected):
    for clip, waveform in zip((case.pair.a, case.pair.b), case.sounds, strict=True):
        logits = case.speech.llm(inputs_embeds=clip.inputs_embeds, use_cache=False, logits_to_keep=1).logits
        assert logits.shape[1] == 1
        assert (logits[0, -1] - case.tiny.logits(clip, waveform)).abs().max() < NOISE
    assert (expected(case)[0] - case.tiny.logits(case.pair.b, case.sounds[1])).abs().max() > 100 * NOISE


def test_a_clip_of_two_windows_gives_the_logits_of_the_outer_class(case):
    """And of several seconds more than the maximum audio length, where it is 30 s."""
    waveform = sound(33, seed=4)
    clip = join(case.speech, case.speech.encode(case.speech.features(waveform)))
    logits = case.speech.llm(inputs_embeds=clip.inputs_embeds, use_cache=False, logits_to_keep=1).logits
    assert (logits[0, -1] - case.tiny.logits(clip, waveform)).abs().max() < NOISE


@pytest.mark.parametrize("name", ["stepwise", "sweep", "tail"])
def test_every_engine_patches_as_plain_hooks_in_the_outer_class_do(case, expected, name):
    engine = Engine(case.speech.llm, name)
    found = engine.readouts(load_intervention("patch"), case.pair, range(N_LAYERS), [{"alpha": 1.0}])
    assert found.as_written is None
    assert (found.logits - expected(case)).abs().max() < NOISE
    assert (expected(case)[1:-1] - expected(case)[0]).abs().amax(1).min() > 100 * NOISE, "patching moves nothing"


@pytest.mark.parametrize("experiment", ["reads", "knockout"])
def test_keys_and_masks_are_written_by_every_engine_as_they_are_in_a_trace(case, experiment):
    options, experiment = {"k": 2}, load_intervention(experiment)
    found = {
        name: Engine(case.speech.llm, name).readouts(experiment, case.pair, range(N_LAYERS), [options])
        for name in ("stepwise", "sweep", "tail")
    }
    written = found["stepwise"].logits
    assert (written[1:] - written[0]).abs().amax(1).min() > 10 * NOISE, "the experiment moves nothing"
    for name in ("sweep", "tail"):
        assert found[name].as_written is None
        assert (found[name].logits - written).abs().max() < NOISE


def test_the_heads_of_a_block_share_all_columns_of_what_attention_mixes(case):
    lm = Engine(case.speech.llm).written
    for layer, block in enumerate(case.speech.llm.model.layers):
        columns = [column for head in range(lm.n_heads) for column in range(1000)[lm.head_columns(layer, head)]]
        assert columns == list(range(block.self_attn.o_proj.in_features))
    differ = isinstance(case.speech, Gemma4Unified)
    with pytest.raises(UserError, match="16 or 32 columns.*lm.head_columns") if differ else nullcontext():
        assert lm.head_dim == 16


@pytest.mark.parametrize("part", [1, "mlp"])
def test_an_estimate_is_the_slope_of_the_patch_that_it_estimates(case, part):
    engine, layers, step = Engine(case.speech.llm), range(N_LAYERS), 0.01
    pair, labels = replace(case.pair, label_ids={"happy": 7, "sad": 70}), [7, 70]
    estimates = engine.readouts(load_intervention("attribution"), pair, layers, [{"head": part, "at": "after"}])
    patch, own = load_intervention("mlp" if part == "mlp" else "heads"), {} if part == "mlp" else {"head": part}
    up, down = (
        engine.readouts(patch, pair, layers, [own | {"alpha": alpha, "at": "after"}]).logits[1:, labels]
        for alpha in (step, -step)
    )
    slope = (up - down) / (2 * step)
    found = estimates.logits[1:, labels] - estimates.logits[0, labels]
    assert slope.abs().max() > 0.01, "the part moves nothing"
    assert (found - slope).abs().max() < 0.01 * slope.abs().max() + NOISE / step


def test_the_stream_is_the_sum_of_its_parts_or_the_experiments_that_need_the_sum_are_refused(case):
    is_sum = not isinstance(case.speech, Gemma4Unified)
    engine, options = Engine(case.speech.llm), [{"head": 0}]
    for name in ("direct", "all_but"):
        with nullcontext() if is_sum else pytest.raises(UserError, match="no sum of heads and MLPs"):
            engine.readouts(load_intervention(name), case.pair, [1], options)


def test_the_questions_tokens_are_found_after_the_sound(case):
    prompt, question = case.speech.prompt, default_task().question
    found = question_positions(prompt.after, case.speech.tokenizer, question)
    assert "".join(token_texts(case.speech.tokenizer, prompt.after)[found]) == question


def test_block_0_reads_the_embeddings_as_they_are(case):
    """Else writing B's embeddings into A's first block would not give B's answer."""
    seen = []

    def see(module, args, kwargs):
        seen.append(args[0] if args else kwargs["hidden_states"])

    handle = case.speech.llm.model.layers[0].register_forward_pre_hook(see, with_kwargs=True)
    case.speech.llm(inputs_embeds=case.pair.a.inputs_embeds, use_cache=False)
    handle.remove()
    assert torch.equal(seen[0], case.pair.a.inputs_embeds)


def test_the_engine_is_the_fastest_one_unless_told_otherwise(case):
    assert Engine(case.speech.llm).name == "tail"


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_clip_of_any_length_takes_the_positions_that_its_duration_asks_for(case, seconds):
    waveform = sound(seconds, seed=3)
    frames = case.speech.encode(case.speech.features(waveform))
    assert len(frames) == case.speech.n_audio(len(waveform)) > 0
    assert frames.isfinite().all()


def test_a_planted_reading_layer_is_recovered(case):
    subject, speech = load_subject(case.tiny.folder, device="cpu"), case.speech
    clips = [join(speech, speech.encode(speech.features(sound(1.1, seed)))) for seed in (1, 2)]
    report = planted_check(subject, [align(*clips)])
    assert report["passed"] and [one["layer"] for one in report["planted"]] == [1, 2]


def test_random_weights_are_of_the_seed(case):
    one, again, other = (load_speech_lm(case.tiny.folder, "cpu", "float32", random_weights=seed) for seed in (1, 1, 2))
    weights = [speech.llm.get_input_embeddings().weight for speech in (one, again, other, case.speech)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[3])
