"""Settings for every test, and the decoders to experiment on: random ones, the golden checkpoint, and the demo."""

import gc
import os
from pathlib import Path

import pytest

import interventions  # noqa: F401  its experiments register themselves
from voicepatch.registry.catalogue import reset_plugins
from voicepatch.registry.plugins import plugins

# The models here are so small that a second thread only waits for the first, most of all where processes run side by
# side. Torch reads this when it is imported, which the process that only hands tests out need not wait for.
os.environ["OMP_NUM_THREADS"] = "1"

# Files that take longest, which go first, so that none of several processes is left alone with one at the end.
LONGEST = (
    "test_cli.py",
    "test_killed.py",
    "test_interrupt.py",
    "test_report.py",
    "test_charts.py",
    "test_uncertainty.py",
    "test_demo.py",
)
GOLDEN = Path(__file__).parent / "data" / "golden" / "opens2s-tiny"


# What collecting the tests makes stays to the end, so that looking through it for garbage only takes time.
gc.disable()


@pytest.fixture(autouse=True)
def no_plugins_left():
    before = plugins()
    yield
    if plugins() != before:
        reset_plugins()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


_frames = {}


@pytest.fixture(scope="module", autouse=True)
def encoded_once():
    """The same sound is encoded once by the same weights: the encoder sees 30 s of each, and takes most of the time.

    Tests of encoding itself have a fixture of this name that does nothing.
    """
    from voicepatch.models.opens2s import OpenS2S

    encode = OpenS2S.encode

    def remembered(self, mel, n_frames):
        weights = [*self.audio_encoder_model.parameters(), *self.audio_adapter.parameters()]
        # A weight that is not a number equals nothing, so what is made with it is not remembered.
        key = (n_frames, hash(mel.numpy().tobytes()), weights[0].dtype, *(float(weight.sum()) for weight in weights))
        if key not in _frames:
            _frames[key] = encode(self, mel, n_frames)
        return _frames[key].clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenS2S, "encode", remembered)
        yield


@pytest.fixture(scope="module")
def few_checks():
    """The checks before a run are made on one clip and one pair, and self-patching once for each model and layers."""
    from voicepatch.runs import preflight

    found, check = {}, preflight.self_patch_check

    def once(subject, clips, layers):
        key = (subject.sha256, subject.model.llm.dtype, subject.engine.name, clips[0].path, tuple(layers))
        if key not in found:
            found[key] = check(subject, clips, layers)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("voicepatch.runs.preflight.N_CHECK_CLIPS", 1)
        patch.setattr("voicepatch.runs.engine_check.N_ENGINE_PAIRS", 1)
        patch.setattr("voicepatch.runs.preflight.self_patch_check", once)
        yield


@pytest.fixture(scope="module")
def loaded_once():
    """The demo's weights are read once for all commands of a file; what each builds around them is its own."""
    from voicepatch.engine import subject
    from voicepatch.paths import DEMO_MODEL

    load, loaded = subject.load_speech_lm, {}

    def once(folder, *how):
        if folder != DEMO_MODEL:
            return load(folder, *how)
        if how not in loaded:
            loaded[how] = load(folder, *how)
        return loaded[how]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("voicepatch.engine.subject.load_speech_lm", once)
        yield


@pytest.fixture
def blank_figures(monkeypatch):
    """Figures are written as always, with nothing drawn in them."""

    def save(chart, file, **_):
        file.write('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>')

    monkeypatch.setattr("altair.TopLevelMixin.save", save)


@pytest.fixture
def llm():
    from tests.engine.decoders import make_llm

    return make_llm()


@pytest.fixture(scope="session")
def golden():
    """The golden checkpoint's decoder and its two clips, of 11 and 21 audio positions."""
    from safetensors.torch import load_file

    from voicepatch.models.opens2s import load_model
    from voicepatch.models.opens2s_io import expand_ids, find_audio_span
    from voicepatch.models.speech_lm import ClipInput

    tensors = load_file(GOLDEN / "golden.safetensors")

    def clip(i):
        first, last = tensors[f"{i}.audio_span"].tolist()
        ids = expand_ids(tensors[f"{i}.input_ids"], last - first + 1)
        return ClipInput(tensors[f"{i}.inputs_embeds"], ids, find_audio_span(ids))

    return load_model(GOLDEN, "cpu").llm_model, clip(0), clip(1)


@pytest.fixture(scope="session")
def demo_data():
    from pairs import load_dataset
    from voicepatch.paths import DEMO_DATA

    return load_dataset(DEMO_DATA)


@pytest.fixture(scope="session")
def demo():
    from voicepatch.engine.subject import load_subject
    from voicepatch.paths import DEMO_MODEL

    return load_subject(DEMO_MODEL, device="cpu")


@pytest.fixture(scope="session")
def demo_pair(demo, demo_data):
    """Two demo clips of different length: the longest sad one and the shortest one."""
    from voicepatch.engine.pair_input import align

    clips = sorted(demo_data.clips[::7], key=lambda clip: len(demo.clips.frames(clip)))
    return align(demo.clips.get(clips[0]), demo.clips.get(clips[-1]))
