"""Engines, experiments and families on the device of tests/hardware.py give what they give on the processor."""

import pytest
import torch

from interventions import catalogue, load_intervention
from tests.engine.decoders import make_llm
from tests.engine.every_experiment import moved, options_of, pairs_of
from tests.hardware import DEVICE, DTYPE, DTYPE_NAME, FIRST, NAME, placed, there
from tests.models.families.builders import BUILDERS
from tests.models.families.conftest import sound
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.engine.textbook import textbook
from voicepatch.models.speech_lm import join, load_speech_lm
from voicepatch.runs.checks import NOISE, NOISE_AT

LAYERS = [0, 3]


@pytest.fixture(autouse=True)
def device():
    with there():
        yield


def assert_same(found, expected):
    """Exactly the same numbers on a fake device, else the same within the noise that a run allows."""
    found, expected = found.float().cpu(), expected.float().cpu()
    if NAME is None and DTYPE == torch.float32:
        assert torch.equal(found, expected)
    else:
        tolerance = NOISE[DTYPE] / NOISE_AT * expected.abs().max().item()
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("engine", ["tail", "sweep", "stepwise"])
@pytest.mark.parametrize("name", catalogue())
def test_every_experiment_by_every_engine(name, engine):
    experiment = load_intervention(name)
    options = options_of(experiment)[:2]
    on_processor, on_device = Engine(make_llm().to(DTYPE), engine), Engine(placed(make_llm()), engine)
    for pair in pairs_of(name):
        on_cpu = on_processor.readouts(experiment, moved(pair, DTYPE), LAYERS, options)
        found = on_device.readouts(experiment, moved(pair, FIRST, DTYPE), LAYERS, options)
        assert found.logits.device == FIRST
        assert_same(found.logits, on_cpu.logits)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_family(tmp_path, name):
    folder = BUILDERS[name](tmp_path).folder
    speech, here = load_speech_lm(folder, DEVICE, DTYPE_NAME), load_speech_lm(folder, "cpu", DTYPE_NAME)
    with torch.inference_mode():
        there, on_cpu = (
            align(*(join(model, model.encode(model.features(sound(seconds, seed=1)))) for seconds in (1.3, 0.9)))
            for model in (speech, here)
        )
    engine = Engine(speech.llm)
    found = engine.readouts(load_intervention("patch"), there, range(3), [{}]).logits
    a, b = (lambda clip=clip: clip.inputs_embeds for clip in (on_cpu.a, on_cpu.b))
    expected = textbook(here.llm, a, b, on_cpu.a_span, on_cpu.b_span, range(3))
    assert found.device == FIRST
    tolerance = NOISE[DTYPE] / NOISE_AT * expected.abs().max().item()
    torch.testing.assert_close(found.cpu(), expected, atol=tolerance, rtol=0)
    for number, block in enumerate(speech.llm.model.layers):
        recording = engine.record(there.a)
        recorded = [of_layers[number] for of_layers in (recording.streams, recording.keys, recording.values)]
        assert {tensor.device for tensor in recorded} == {next(block.parameters()).device}
