"""Small decoders to experiment on: random ones, the golden checkpoint, and the demo."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import Qwen3ForCausalLM

from commandline.options import DEMO_DATA, DEMO_MODEL
from engine.pair_input import align
from engine.subject import Subject, load_subject
from models.opens2s import load_model
from models.opens2s_io import ClipInput, expand_ids, find_audio_span
from pairs import Dataset, load_dataset
from tests.interventions.decoders import make_llm

GOLDEN = Path(__file__).parent.parent / "data" / "golden" / "opens2s-tiny"


@pytest.fixture
def llm() -> Qwen3ForCausalLM:
    return make_llm()


@pytest.fixture(scope="session")
def golden() -> tuple[Qwen3ForCausalLM, ClipInput, ClipInput]:
    """The golden checkpoint's decoder and its two clips, of 11 and 21 audio positions."""
    tensors = load_file(GOLDEN / "golden.safetensors")

    def clip(i: int) -> ClipInput:
        first, last = tensors[f"{i}.audio_span"].tolist()
        ids = expand_ids(tensors[f"{i}.input_ids"], last - first + 1)
        return ClipInput(tensors[f"{i}.inputs_embeds"], ids, find_audio_span(ids))

    return load_model(GOLDEN, "cpu").llm_model, clip(0), clip(1)


@pytest.fixture(scope="session")
def demo_data() -> Dataset:
    return load_dataset(DEMO_DATA)


@pytest.fixture(scope="session")
def demo() -> Subject:
    return load_subject(DEMO_MODEL, device="cpu")


@pytest.fixture(scope="session")
def demo_pair(demo, demo_data):
    """Two demo clips of different length: the longest sad one and the shortest one."""
    clips = sorted(demo_data.clips[::7], key=lambda clip: len(demo.clips.frames(clip)))
    return align(demo.clips.get(clips[0]), demo.clips.get(clips[-1]))
