"""The devices that are not there refuse what a real one refuses, and commands run on them."""

import pytest
import torch

from interventions import load_intervention
from tests.commands import FEW, NO_FIGURES, call, rows
from tests.engine.decoders import make_llm
from tests.engine.every_experiment import moved, pairs_of
from tests.fake_devices import fake_devices
from voicepatch.engine.engine import Engine
from voicepatch.engine.masks import additive
from voicepatch.errors import UserError
from voicepatch.models.devices import pick_device


@pytest.fixture
def devices():
    with fake_devices(2) as memory:
        yield memory


class TestTheDevice:
    def test_a_tensor_and_what_is_made_of_it_claim_the_device(self, devices):
        x = torch.zeros(4, 3, device="cuda")
        assert {str(part.device) for part in (x, x[1:], x + 1, x.half(), torch.zeros_like(x))} == {"cuda:0"}
        assert x.is_cuda and x.cpu().device.type == "cpu" and x.to("cuda:1").device.index == 1
        assert torch.nn.Linear(3, 3).to("cuda:1").weight.device.index == 1

    @pytest.mark.parametrize(
        "mix",
        [
            lambda x, y: x + y,
            lambda x, y: torch.cat([x, y]),
            lambda x, y: torch.where(y > 0, x, x),
            lambda x, y: x.index_put_((torch.tensor([0]),), y[:1]),
            lambda x, y: torch.nn.functional.linear(x, y),
            lambda x, y: x.to("cuda:1") + x,
        ],
    )
    def test_tensors_of_two_devices_are_refused(self, devices, mix):
        with pytest.raises(RuntimeError, match="same device"):
            mix(torch.zeros(4, 4, device="cuda"), torch.ones(4, 4))

    def test_numbers_indices_and_copies_are_not_refused(self, devices):
        x = torch.zeros(4, 4, device="cuda")
        x[1:] = torch.ones(3, 4)
        assert (x * torch.tensor(2.0))[torch.tensor([0, 1])].sum().item() == 8
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()

    def test_memory_is_counted_as_long_as_it_is_held(self, devices):
        x = torch.zeros(256, device="cuda")
        assert torch.cuda.memory_allocated("cuda") == 1024
        del x
        assert (torch.cuda.memory_allocated("cuda"), torch.cuda.max_memory_allocated("cuda")) == (0, 1024)

    def test_a_device_beyond_the_last_one_is_refused(self, devices):
        assert pick_device("cuda:1").index == 1
        with pytest.raises(UserError, match="no such device"):
            pick_device("cuda:2")


def test_a_tensor_that_is_left_on_the_processor_is_found(monkeypatch):
    def left_there(given, n_queries, n_keys, like):
        return additive(given, n_queries, n_keys, like.cpu()).cpu()

    monkeypatch.setattr("voicepatch.engine.recordings.additive", left_there)
    pair = next(pairs_of("need"))
    with fake_devices(), pytest.raises(RuntimeError, match="same device"):
        Engine(make_llm().to("cuda"), "tail").readouts(load_intervention("need"), moved(pair, "cuda"), [0], [{}])


def test_commands_run_there(tmp_path):
    few = [word for word in FEW if word not in ("--device", "cpu")]
    with fake_devices(2):
        for command in (["check"], ["answers"], ["patch", "--kind", "prosody", "--no-need", NO_FIGURES]):
            more = few if command[0] != "answers" else few[2:]
            call(*command, *more, "--device", "cuda:0,cuda:1", "--dtype", "float32", "--out", tmp_path / "there")
    call("patch", "--kind", "prosody", "--no-need", NO_FIGURES, *few, "--device", "cpu", "--out", tmp_path / "here")
    there, here = (rows(tmp_path / name / "patching_records_prosody.jsonl") for name in ("there", "here"))
    assert there == here
