"""How one model is shared by two devices, which are not there; tests/test_hardware.py has what it computes there."""

import json
from types import SimpleNamespace

import pytest
import torch

from tests.commands import call, fails
from tests.engine.decoders import make_llm
from tests.fake_devices import fake_devices
from tests.small import small_model
from voicepatch.engine.bench_case import FULL_SIZE
from voicepatch.engine.needed_memory import needed_memory
from voicepatch.engine.subject import load_subject
from voicepatch.errors import UserError
from voicepatch.models.placement import shares, spread, weight_bytes

DEVICES = "cuda:0,cuda:1"
FIRST, SECOND = map(torch.device, DEVICES.split(","))


@pytest.fixture(autouse=True)
def memory():
    with fake_devices(2) as used:
        yield used


def test_each_device_holds_its_share(memory):
    model = SimpleNamespace(llm=make_llm(8))
    whole = weight_bytes(model)
    first, second = shares(model, 2)
    spread(model, (FIRST, SECOND))
    assert (first.blocks, second.blocks) == (range(4), range(4, 8))
    assert first.nbytes + second.nbytes == whole and max(first.nbytes, second.nbytes) < 0.6 * whole
    assert [memory.now[FIRST], memory.now[SECOND]] == pytest.approx([first.nbytes, second.nbytes], rel=0.01)


def test_at_the_real_size_two_devices_hold_half_each(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(FULL_SIZE))
    one, two = (needed_memory(tmp_path, torch.bfloat16, max_rows=1, n_devices=n) for n in (1, 2))
    assert 0.5 * one.weights <= two.weights < 0.53 * one.weights
    assert two.pair == one.pair and 0.5 * one.clip <= two.clip < 0.7 * one.clip


def test_tied_embeddings_stay_tied_on_the_first_device():
    llm = make_llm()
    llm.lm_head.weight = llm.model.embed_tokens.weight
    spread(SimpleNamespace(llm=llm), (FIRST, SECOND))
    assert llm.lm_head.weight is llm.model.embed_tokens.weight and llm.lm_head.weight.device == FIRST


def test_blocks_are_shared_so_that_the_fullest_device_holds_least():
    sizes = lambda found: [len(share.blocks) for share in found]  # noqa: E731
    assert sizes(shares(SimpleNamespace(llm=make_llm(8)), 4)) == [2, 2, 2, 2]
    large = SimpleNamespace(llm=make_llm(4), encoder=torch.nn.Linear(400, 400))
    assert (sizes(shares(large, 2)), sizes(shares(large, 3))) == ([0, 4], [0, 3, 1])


@pytest.mark.parametrize(
    "devices, said",
    [
        ("cuda:0,cuda:2", "--device cuda:2: no such device"),
        ("cuda:0,cuda:0", "names a device twice"),
        ("cpu,cuda:1", "write cuda:0,cuda:1"),
        ("cuda,cuda:1", "write cuda:0,cuda:1"),
        ("cuda:0;cuda:1", "use cpu, cuda or cuda:N"),
    ],
)
def test_devices_that_cannot_be_used_together_end_in_one_line(devices, said):
    assert said in fails("check", "--device", devices, status=2)


def test_more_devices_than_blocks_are_refused():
    with pytest.raises(UserError, match="4 blocks are too few for 6 devices; name fewer"):
        spread(SimpleNamespace(llm=make_llm()), [torch.device("cuda", number) for number in range(6)])


def test_a_model_that_fits_two_devices_alone_is_told_so_and_then_loaded():
    weights = needed_memory(small_model(), torch.float32).weights
    with fake_devices(2, memory=int(0.97 * weights)):
        said = fails(
            "check", "--dry-run", "--model", small_model(), "--device", "cuda:0", "--dtype", "float32", status=1
        )
        assert f"--device {DEVICES}" in said
        load_subject(small_model(), device=DEVICES, dtype="float32")
        shown = call("check", "--dry-run", "--model", small_model(), "--device", DEVICES, "--store-mb", "0")
        assert "each of cuda:0, cuda:1; other lines: the fullest one" in shown
    with fake_devices(2, memory=int(0.3 * weights)), pytest.raises(UserError, match="on one of cuda:0,cuda:1"):
        load_subject(small_model(), device=DEVICES, dtype="float32")
