"""The benchmark compares procedures that compute the same numbers, and counts what they compute."""

import json
import re
import shutil
from copy import deepcopy
from importlib.metadata import version

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from cli import cli
from voicepatch.engine import bench, bench_case
from voicepatch.paths import DEMO_MODEL

N_LAYERS = 6


@pytest.fixture(scope="module")
def case():
    config = deepcopy(bench_case.NARROW)
    config["llm_config"] |= {
        "num_hidden_layers": N_LAYERS,
        "hidden_size": 64,
        "intermediate_size": 192,
        "vocab_size": 99,
    }
    config["audio_encoder_config"] |= {"d_model": 32, "encoder_ffn_dim": 64, "encoder_attention_heads": 2}
    config["audio_encoder_config"] |= {"encoder_layers": 1, "max_source_positions": 300}
    return bench_case.random_case(config)


@pytest.fixture(scope="module")
def result(case):
    return bench.run_bench(case, rounds=1)


def test_it_names_every_procedure_and_what_it_ran_on(result):
    for key in ("seconds_per_pair", "arithmetic_per_pair", "times_as_fast_as_textbook"):
        assert list(result[key]) == ["textbook", "stepwise", "sweep", "tail"]
        assert all(value > 0 for value in result[key].values())
    assert result["shape"]["n_layers"] == N_LAYERS and result["shape"]["positions_in_span"] == list(bench_case.SPANS)
    assert (result["shape"]["positions_before_span"], result["shape"]["positions_after_span"]) == (15, 38)
    assert result["machine"]["cores"] and result["versions"]["torch"] == version("torch")
    json.dumps(result, allow_nan=False)


def test_all_procedures_give_the_same_logits_and_the_patch_moves_them(result):
    assert result["max_abs_logit_difference"] < 1e-4 < 1e-3 < result["max_abs_effect_of_patching"]


def test_arithmetic_is_what_the_procedures_are_known_to_take(case, result):
    with torch.inference_mode():
        encoder = [bench.multiply_adds(clip) for clip in case.clips]
        inputs = [clip() for clip in case.clips]
        decoder = [
            bench.multiply_adds(lambda i=i: case.llm(inputs_embeds=i.inputs_embeds, logits_to_keep=1)) for i in inputs
        ]
    found = result["arithmetic_per_pair"]
    a, b = decoder[:2]
    assert found["textbook"] == pytest.approx(b + (1 + N_LAYERS) * a + (N_LAYERS + 2) * encoder[0], rel=0.01)
    donors = b * (1 + N_LAYERS) / 2  # a forward over B ends behind the layer that is read
    assert found["stepwise"] == pytest.approx((1 + N_LAYERS) * a + donors + sum(encoder[:2]), rel=0.01)
    assert found["tail"] < found["sweep"] < min(found["stepwise"], found["textbook"])


def test_the_layers_that_stepwise_is_measured_at_stand_for_all(case):
    for n_layers in range(1, 50):
        some = bench._spread(n_layers)
        assert len(some) == min(4, n_layers) and sum(some) / len(some) == pytest.approx((n_layers - 1) / 2, abs=0.5)
    blocks = []
    handles = [block.register_forward_hook(lambda *_: blocks.append(1)) for block in case.llm.model.layers]
    with torch.inference_mode():
        bench._run(case, "stepwise", bench._pairs(case)[:1], range(N_LAYERS))
    for handle in handles:
        handle.remove()
    assert len(blocks) / N_LAYERS == pytest.approx(bench._forwards(N_LAYERS), abs=0.5)


def test_rows_of_other_experiments_and_planning_are_held_against_a_pair(result):
    assert set(result["row_over_a_row_of_patch"]) == {"patch", "mlp", "heads", "reads", "knockout"}
    assert result["row_over_a_row_of_patch"]["patch"] == 1 and 0 < result["planning_share_of_a_pair"] < 1
    assert result["stepwise_layers"] < N_LAYERS and "stepwise was measured at" in bench.bench_table(result)


def test_the_peak_of_a_devices_memory_is_shown_where_there_is_one(result):
    assert "memory" not in bench.bench_table(result)
    peaks = dict.fromkeys(bench.PROCEDURES, 17_000.0)
    table = bench.bench_table(result | {"peak_device_memory_mib": peaks})
    assert "peak of the device's memory: tail 17,000 MiB" in table


def test_attention_on_the_processor_is_counted():
    x = torch.randn(1, 2, 50, 16)
    count = bench.multiply_adds(lambda: torch.nn.functional.scaled_dot_product_attention(x, x, x))
    assert count == 2 * (2 * 50 * 50 * 16)


def test_the_shapes_are_those_of_the_model_that_they_stand_for():
    llm, narrow = bench_case.FULL_SIZE["llm_config"], bench_case.NARROW["llm_config"]
    assert llm["num_hidden_layers"] == narrow["num_hidden_layers"] == 36
    for key in ("intermediate_size", "vocab_size"):
        assert llm[key] / llm["hidden_size"] == pytest.approx(narrow[key] / narrow["hidden_size"], rel=0.01)


def fails(*args, status):
    result = CliRunner().invoke(cli, ["bench", *map(str, args)])
    assert result.exit_code == status and "Traceback" not in result.output
    return result.output.strip().splitlines()[-1]


def test_the_full_size_needs_a_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "CUDA" in fails("--full-size", status=2)


def test_what_cannot_be_done_is_said_before_anything_is_measured(tmp_path):
    assert "there is no folder" in fails("--json", tmp_path / "no" / "b.json", status=2)
    assert "choose one" in fails("--full-size", "--model", DEMO_MODEL, status=2)
    assert "nowhere" in fails("--model", tmp_path / "nowhere", status=1)


def shortened(folder):
    """The demo's checkpoint with its first two layers alone, which is as much of a checkpoint and takes a fifth."""
    copy = folder / "opens2s-short"
    shutil.copytree(DEMO_MODEL, copy)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config["llm_config"] |= {"num_hidden_layers": 2}
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8", newline="\n")
    tensors = load_file(copy / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not re.match(r"llm_model\.model\.layers\.[2-9]", name)}
    save_file(kept, copy / "model.safetensors")
    return copy


def test_a_checkpoint_is_measured_with_its_own_prompt(tmp_path):
    model, written = shortened(tmp_path), tmp_path / "b.json"
    words = ["bench", "--model", str(model), "--device", "cpu", "--rounds", "1", "--json", str(written)]
    found = CliRunner().invoke(cli, words)
    assert found.exit_code == 0, found.output
    written = json.loads(written.read_text(encoding="utf-8"))
    assert (
        written["shape"]["model"] == "opens2s-short"
        and written["shape"]["n_layers"] == 2
        and written["max_abs_logit_difference"] < 1e-3
    )
    assert "tail" in found.output and "largest |Δlogit|" in found.output
