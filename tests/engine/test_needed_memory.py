"""The memory that `check --dry-run` shows is what a run takes, and a model that does not fit is not loaded."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from interventions import load_intervention
from tests.commands import call, fails
from tests.fake_devices import fake_devices
from tests.models.families.builders import BUILDERS
from tests.small import small_model
from voicepatch.engine import bench_case
from voicepatch.engine.bench_case import NARROW
from voicepatch.engine.engine import Engine
from voicepatch.engine.needed_memory import Allocations, needed_memory
from voicepatch.engine.pair_input import align
from voicepatch.engine.subject import load_subject
from voicepatch.errors import UserError
from voicepatch.models.families import family_of
from voicepatch.models.folder import read_config
from voicepatch.models.placement import weight_bytes
from voicepatch.models.speech_lm import load_speech_lm

SHAPES = {
    "wide": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "vocab_size": 1000},
    "deep": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 12, "vocab_size": 200},
    "many words": {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 4, "vocab_size": 20_000},
}
ENCODER = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 1, "encoder_ffn_dim": 16}


def write_config(folder, shape):
    """`config.json` of an OpenS2S with this decoder, and nothing else."""
    config = NARROW | {
        "llm_config": NARROW["llm_config"] | SHAPES[shape],
        "audio_encoder_config": NARROW["audio_encoder_config"] | ENCODER,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return config


@pytest.mark.parametrize(
    ("shape", "dtype", "engine", "max_rows"),
    [
        ("wide", torch.float32, "tail", None),
        ("wide", torch.bfloat16, "tail", 2),
        ("wide", torch.float32, "sweep", None),
        ("deep", torch.float32, "tail", None),
        ("deep", torch.bfloat16, "tail", None),
        ("many words", torch.float32, "tail", None),
        ("many words", torch.float32, "stepwise", None),
    ],
)
def test_it_is_within_a_tenth_of_the_peak_of_a_run(tmp_path, monkeypatch, shape, dtype, engine, max_rows):
    config, lengths = write_config(tmp_path, shape), (30, 30, 30, 20)
    monkeypatch.setattr(bench_case, "SPANS", lengths)
    for name in ("BEFORE", "AFTER"):
        monkeypatch.setattr(f"voicepatch.engine.needed_memory.{name}", getattr(bench_case, name))
    with Allocations() as counted, torch.inference_mode():
        case = bench_case.random_case(config, dtype=dtype)
        clips, model = [make() for make in case.clips], case.clips[0].args[0]
        ran, patch = Engine(case.llm, engine, max_rows), load_intervention("patch")
        del case  # with the sounds
        counted.peak = counted.now  # the encoder's own work is over
        for clip in clips:
            ran.record(clip)
        for a, b in ((0, 1), (2, 3)):
            ran.readouts(patch, align(clips[a], clips[b]), range(ran.n_layers), [{}])
    needed = needed_memory(tmp_path, dtype, engine, seconds=max(lengths) / 6.25, max_rows=max_rows)
    assert (
        needed.engine == engine
        and needed.weights == pytest.approx(weight_bytes(SimpleNamespace(model=model)))
        and needed.n_audio == max(lengths)
    )
    assert needed.total(len(clips)) == pytest.approx(counted.peak, rel=0.1)
    assert needed.total(len(clips)) - needed.weights == pytest.approx(counted.peak - needed.weights, rel=0.25)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_weights_of_each_family_are_those_that_it_loads(tmp_path, name):
    folder = BUILDERS[name](tmp_path).folder
    loaded = weight_bytes(load_speech_lm(folder, "cpu", "float32"))
    for path in folder.iterdir():
        if path.name != "config.json" and path.is_file():
            path.unlink()
    needed = needed_memory(folder, torch.float32)
    assert needed.weights == pytest.approx(loaded, rel=0.01)
    assert needed.clip > 0 and needed.pair > 0 and family_of(read_config(folder)).name


def test_the_command_shows_it_and_needs_config_json_alone(tmp_path):
    shutil.copy(small_model() / "config.json", tmp_path)
    shown = call("check", "--dry-run", "--model", tmp_path, "--device", "cpu", "--max-rows", "2", "--seconds", "5")
    assert [line.split()[0] for line in shown.splitlines()] == ["weights", "recordings", "rows", "total", "free"]
    assert "2 rows in a forward" in shown and "32 audio positions" in shown


def test_a_model_that_does_not_fit_is_refused_with_settings_that_do(tmp_path):
    weights = needed_memory(small_model(), torch.float32).weights
    with fake_devices(memory=int(0.8 * weights)) as used:
        with pytest.raises(
            UserError, match=r"needs about .* in float32, and cuda:0 has .* free; pass --dtype bfloat16"
        ):
            load_subject(small_model(), device="cuda:0", dtype="float32")
        load_subject(small_model(), device="cuda:0", dtype="bfloat16")
        assert used.peak[torch.device("cuda:0")] <= 0.8 * weights
        said = fails(
            "check", "--dry-run", "--model", small_model(), "--device", "cuda:0", "--dtype", "float32", status=1
        )
        assert "pass --dtype bfloat16" in said
    with fake_devices(memory=int(0.3 * weights)), pytest.raises(UserError, match="--device cpu"):
        load_subject(small_model(), device="cuda:0")


def test_layers_that_no_model_has_are_refused_before_they_are_made(tmp_path):
    config = json.loads((small_model() / "config.json").read_text())
    config["llm_config"]["num_hidden_layers"] = 10**7
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "no model has more than 1000 layers" in fails("check", "--dry-run", "--model", tmp_path, status=1)
