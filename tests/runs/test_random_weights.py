"""Random weights: a negative control of the whole pipeline, which is another run than that of the checkpoint."""

import json

import pytest
import torch

from tests.commands import FEW, MODEL, NO_FIGURES, call, fails
from tests.small import small_model
from voicepatch.commandline.loading import load_arguments
from voicepatch.engine.subject import load_subject
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.types.settings import Settings


def drawn(seed):
    return load_subject(small_model(), device="cpu", random_weights=seed)


def test_they_are_of_the_seed_alone(small):
    one = drawn(1)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        again = drawn(1)
    finally:
        torch.set_num_threads(n_threads)
    assert one.sha256 == again.sha256 != drawn(2).sha256
    assert one.sha256 != small.sha256 and one.name == "opens2s-small (random weights, seed 1)"
    assert torch.equal(torch.random.get_rng_state(), before), "the caller's own random numbers go on as they were"


def test_no_weight_that_is_drawn_is_the_checkpoints(small):
    own, others = small.model.llm.state_dict(), drawn(1).model.llm.state_dict()
    assert own.keys() == others.keys()
    matrices = [name for name, value in own.items() if value.dim() > 1]
    assert matrices and not any(torch.equal(own[name], others[name]) for name in matrices)


def test_a_run_of_them_says_so_and_is_another_run(tmp_path):
    random = ("patch", "--kind", "prosody", "--random-weights", *FEW)
    said = call(*random, "--out", tmp_path / "run")
    assert (
        "warning: B, unpatched, answers with the target in" in said
        and "a low prosody curve says nothing about the layers" in said
    )
    run, name = tmp_path / "run", "opens2s-small (random weights, seed 42)"
    model = json.loads((run / "patching_config.json").read_text())["model"]
    assert (model["name"], model["random_weights"]) == (name, 42)
    page = (run / "report.html").read_text()
    assert name in page and "The weights are random" in page and "--random-weights" in page
    assert name in (run / "flip_rate_curve_prosody.txt").read_text()
    line = fails("control", "--kind", "suffix", "--out", run, *FEW, status=1)
    assert f"holds a run of {name}, not of the trained model opens2s-small; pass another --out" in line
    call("control", "--kind", "suffix", "--random-weights", "--out", run, NO_FIGURES, *FEW)
    call("check", "--out", tmp_path / "trained", *MODEL)
    line = fails("check", "--random-weights", "--out", tmp_path / "trained", *MODEL, status=1)
    assert f"holds a run of the trained model opens2s-small, not of {name}; pass another --out, or remove it" in line


def test_their_default_folder_is_another_one(tmp_path, monkeypatch):
    monkeypatch.setattr("voicepatch.commandline.running.RESULTS", tmp_path)
    call("check", "--random-weights", *MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["opens2s-small-random--synthetic-clips"]


def test_workers_get_the_seed_too():
    """They load the model with the same arguments as this process."""
    seeds = [load_arguments(Settings(random_weights=chosen, seed=5))["random_weights"] for chosen in (True, False)]
    assert seeds == [5, None]


def test_a_model_that_is_loaded_already_keeps_its_weights(small):
    with pytest.raises(UserError, match="is loaded already") as error:
        load_subject(model=small.model, random_weights=1)
    assert error.value.status == BAD_USAGE
