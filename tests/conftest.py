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
    "test_hardware.py",
    "test_report.py",
    "test_where_it_is_read.py",
    "test_variants.py",
    "test_paper.py",
    "test_example_families.py",
    "test_adapters.py",
    "test_coverage.py",
    "test_interrupt.py",
    "test_families.py",
    "test_numbers.py",
    "test_charts.py",
    "test_report_checks.py",
    "test_needed_memory.py",
    "test_checkpoints.py",
    "test_reproduce.py",
    "test_fake_devices.py",
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
def small():
    """The small model, for what does not depend on the answers."""
    from tests.small import small_model
    from voicepatch.engine.subject import load_subject

    return load_subject(small_model(), device="cpu")


@pytest.fixture(scope="session")
def demo_pair(demo, demo_data):
    """Two demo clips of different length: the longest sad one and the shortest one."""
    from voicepatch.engine.pair_input import align

    clips = sorted(demo_data.clips[::7], key=lambda clip: len(demo.clips.frames(clip)))
    return align(demo.clips.get(clips[0]), demo.clips.get(clips[-1]))
