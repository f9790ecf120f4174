"""`make gpu-test` runs: here on the processor, with a tiny shape."""

import json

import torch

from tests import gpu
from voicepatch.engine.bench_case import NARROW

TINY = {
    "audio_encoder_config": NARROW["audio_encoder_config"]
    | {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 1, "encoder_ffn_dim": 16},
    "llm_config": NARROW["llm_config"]
    | {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}
    | {"vocab_size": 1100, "num_key_value_heads": 1},
    "conv_kernel_sizes": "3,3",
    "adapter_inner_dim": 8,
}


def test_it_writes_the_numbers_and_the_table(tmp_path, capsys):
    page = tmp_path / "engines.md"
    page.write_text(f"Before.\n\n{gpu.BEGIN}\nold\n{gpu.END}\n\nAfter.\n")
    tests = ("tests/test_hardware.py::test_every_experiment_by_every_engine[patch-tail]",)
    assert gpu.main(gpu.Plan("cpu", ("float32",), TINY, tests, n_pairs=2, rounds=1), tmp_path) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["tests"]["float32"]["passed"] and "1 passed" in found["tests"]["float32"]["summary"]
    assert found["end_to_end"]["n_pairs"] == 2 and found["end_to_end"]["n_records"] == 4
    text = page.read_text()
    assert text.startswith("Before.\n") and text.endswith("After.\n") and "old" not in text
    assert "| `tail` |" in text and "2 pairs end to end" in text and "2 layers of width 32" in text


def test_without_a_device_it_ends_with_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(gpu.Plan(), tmp_path) == 1
    assert capsys.readouterr().err.splitlines() == [
        "gpu-test: there is no CUDA device on this machine, so nothing was run"
    ]
    assert not list(tmp_path.iterdir())


def test_the_page_has_a_place_for_the_table():
    text = (gpu.ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    assert text.count(gpu.BEGIN) == text.count(gpu.END) == 1
