"""A run of a model with a merged adapter says so, and is another run than that of its base."""

import json

from tests.commands import FEW, NO_FIGURES, call, fails
from tests.models.families.lora import write_adapter
from tests.small import small_model
from voicepatch.commandline.loading import base_for_workers
from voicepatch.engine.subject import load_subject
from voicepatch.types.settings import Settings


def test_a_run_names_the_adapter_and_its_base(tmp_path):
    base = load_subject(small_model(), device="cpu").model.model
    write_adapter(tmp_path / "lora", base, str, base_model_name_or_path="gone")
    adapted = ("--model", str(tmp_path / "lora"), "--base", str(small_model()))
    patch = ("patch", "--kind", "prosody", *FEW)
    call(*patch, *adapted, "--out", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "patching_config.json").read_text())
    found = config["model"]["adapter"]
    assert config["model"]["name"] == "lora" and found["base"] == "opens2s-small"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "lora, an adapter (LoRA) merged into opens2s-small, heard a clip" in page and found["sha256"] in page
    assert " ".join(adapted) in page.partition("Reproduce</h2>")[2]
    call("control", "--kind", "suffix", NO_FIGURES, *FEW, *adapted, "--out", tmp_path / "run")
    write_adapter(tmp_path / "lora", base, str, use_rslora=True)
    assert "with another model" in fails(*patch, *adapted, "--out", tmp_path / "run", status=1)


def test_workers_get_the_place_of_the_base_whatever_their_working_directory(tmp_path, monkeypatch):
    base = load_subject(small_model(), device="cpu").model.model
    write_adapter(tmp_path / "lora", base, str, base_model_name_or_path="base")
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    assert base_for_workers(Settings(model="lora")) == str(tmp_path / "base")
    assert base_for_workers(Settings(model="lora", base="./base")) == str(tmp_path / "base")
    assert base_for_workers(Settings(model="lora", base="someone/base")) == "someone/base"
    assert base_for_workers(Settings(model=str(small_model()))) is None


def test_a_base_is_only_for_an_adapter(tmp_path):
    line = fails("check", *FEW[:2], "--base", tmp_path, "--model", small_model(), status=2)
    assert f"--base {tmp_path}" in line and "leave --base out" in line
