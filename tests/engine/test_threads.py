"""One thread where a second one is not worth it, by one measurement; what was chosen outside stays."""

import pytest
import torch

from tests.engine.decoders import make_llm
from voicepatch.engine import threads


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("together", "expected"), [(0.5, 2), (0.9, 1), (3.0, 1)])
def test_a_second_thread_must_be_worth_it(monkeypatch, together, expected):
    seconds = {1: 1.0, 2: together}
    monkeypatch.setattr(threads, "_seconds", lambda llm: seconds[torch.get_num_threads()])
    assert threads.settle_threads(make_llm()) == expected == torch.get_num_threads()


def test_a_slow_start_of_the_threads_does_not_count(monkeypatch):
    times = {1: [1.0, 1.0], 2: [1.5, 0.5]}
    monkeypatch.setattr(threads, "_seconds", lambda llm: times[torch.get_num_threads()].pop(0))
    assert threads.settle_threads(make_llm()) == 2


def test_a_number_that_was_chosen_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(threads, "_seconds", lambda llm: 1 / 0)
    assert threads.settle_threads(make_llm()) == 2
