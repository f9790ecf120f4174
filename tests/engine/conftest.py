"""A pair of clips, and readouts by each engine."""

import pytest

from tests.engine.decoders import make_clip
from tests.engine.planned import LAYER
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align


@pytest.fixture
def pair():
    return align(make_clip(6, seed=1), make_clip(9, seed=2))


@pytest.fixture(params=["tail", "sweep", "stepwise"])
def readouts(request, llm):
    """`readouts(experiment, pair)`: those of layer 1, planned but for stepwise; written holds its note."""

    def compute(experiment, pair, planned=True, layers=(LAYER,)):
        found = Engine(llm, request.param).readouts(experiment, pair, layers, [{}])
        assert (found.as_written is None) == (planned or request.param == "stepwise")
        return found

    return compute
