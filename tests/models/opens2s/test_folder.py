"""A folder that is no OpenS2S checkpoint, and a device or dtype that does not exist, end in one line."""

import json

import pytest
import torch

from tests.models.opens2s.loading import load
from tests.models.opens2s.test_weights import NORM
from voicepatch.errors import BAD_USAGE
from voicepatch.models.devices import pick_device, pick_dtype
from voicepatch.models.opens2s import load_model

# --- folders


def test_a_missing_folder_is_an_error(tmp_path, refused):
    with refused(tmp_path / "nowhere", "no such folder"):
        load_model(tmp_path / "nowhere", "cpu")


def test_a_file_is_no_checkpoint(checkpoint, refused):
    with refused(checkpoint.weights, "is a file"):
        load_model(checkpoint.weights, "cpu")


def test_an_empty_folder_lacks_its_config(tmp_path, refused):
    with refused(tmp_path / "config.json", "missing"):
        load_model(tmp_path, "cpu")


def test_a_folder_without_weights_is_named(checkpoint, refused):
    checkpoint.weights.unlink()
    with refused(checkpoint.folder, "no model.safetensors"):
        load(checkpoint)


def test_pickles_are_errors(checkpoint, refused):
    checkpoint.weights.rename(checkpoint.folder / "pytorch_model.bin")
    with refused(checkpoint.folder, "no model.safetensors", "*.bin", "never read"):
        load(checkpoint)


@pytest.mark.parametrize("content", ["{", "[]", "", "\xff"])
def test_a_broken_config_is_named(checkpoint, refused, content):
    (checkpoint.folder / "config.json").write_text(content, encoding="latin-1")
    with refused(checkpoint.folder / "config.json", "fetch the file again"):
        load(checkpoint)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"weight_map": ["a.safetensors"]}, ("weight_map",)),
        ({"weight_map": None}, ("weight_map",)),
        ({}, ("weight_map",)),
        ({"weight_map": {NORM: 1}}, ("weight_map",)),
        ({"weight_map": {"llm2tts.weight": "a.safetensors"}}, ("with the model's tensors",)),
        ({"weight_map": {NORM: "../a.safetensors"}}, ("beside it only", "../a.safetensors")),
        ({"weight_map": {NORM: ""}}, ("beside it only",)),
    ],
)
def test_a_malformed_index_is_an_error(checkpoint, refused, index, words):
    checkpoint.weights.unlink()
    checkpoint.index.write_text(json.dumps(index))
    with refused("model.safetensors.index.json", *words):
        load(checkpoint)


# --- configurations


@pytest.mark.parametrize(
    ("part", "values", "words"),
    [
        (None, {"llm_config": ...}, ("no 'llm_config'", "not an OpenS2S")),
        (None, {"audio_encoder_config": ...}, ("no 'audio_encoder_config'",)),
        (None, {"adapter_inner_dim": ...}, ("no 'adapter_inner_dim'",)),
        (None, {"lora_config": {"r": 8}}, ("lora_config", "merge")),
        (None, {"lora_config": {}}, ("lora_config", "merge")),
        ("llm_config", {"model_type": "llama"}, ("llm_config", "'llama'", "'qwen3'")),
        ("audio_encoder_config", {"model_type": ...}, ("audio_encoder_config", "'qwen2_audio_encoder'")),
        (None, {"llm_config": []}, ("config.json",)),
        (None, {"audio_encoder_config": None}, ("config.json",)),
        *[(None, {"conv_kernel_sizes": v}, ("config.json",)) for v in ("a,b", "", "5,", "-5,5", "0,5", [5, 5], 5)],
        *[(None, {"adapter_inner_dim": v}, ("config.json",)) for v in (-1, 0, "32", 32.5, None, True)],
        ("llm_config", {"hidden_size": "big"}, ("config.json", "hidden_size", "big")),
        ("llm_config", {"num_hidden_layers": -1}, ("config.json",)),
        ("llm_config", {"num_hidden_layers": 0}, ("unexpected", "llm_model.model.layers.0.")),
        ("llm_config", {"num_attention_heads": 0}, ("config.json",)),
        ("llm_config", {"hidden_act": "loud"}, ("config.json", "loud")),
        ("llm_config", {"rope_theta": "x"}, ("config.json",)),
        ("llm_config", {"rope_scaling": {"type": "x"}}, ("config.json",)),
        ("llm_config", {"vocab_size": -1}, ("config.json",)),
        ("llm_config", {"pad_token_id": 999}, ("config.json",)),
        ("audio_encoder_config", {"d_model": 33}, ("config.json", "33")),
        ("audio_encoder_config", {"max_source_positions": "x"}, ("config.json", "max_source_positions")),
    ],
)
def test_a_config_of_something_else_is_an_error(checkpoint, refused, part, values, words):
    checkpoint.configure(part, **values)
    with refused(*words):
        load(checkpoint)


# --- device and dtype


@pytest.mark.parametrize("device", ["gpu", "", "cuda:99", "meta", "cpu:1"])
def test_an_unknown_device_is_wrong_usage(refused, device):
    with refused(f"--device {device}: ", status=BAD_USAGE):
        pick_device(device)


def test_an_unknown_dtype_is_wrong_usage(checkpoint, refused):
    with refused("--dtype int8", "float32, bfloat16, float16", status=BAD_USAGE):
        load(checkpoint, "int8")


def test_the_dtype_follows_the_device_unless_given():
    assert pick_dtype(None, torch.device("cpu")) == torch.float32
    assert pick_dtype(None, torch.device("cuda")) == torch.bfloat16
    assert pick_dtype("float16", torch.device("cuda")) == torch.float16
