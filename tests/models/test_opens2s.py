"""The modules are OpenS2S's, a clip's frames are its own, and a checkpoint is loaded whole or refused."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects

from voicepatch.errors import BAD_USAGE
from voicepatch.models.checkpoint import checkpoint_hash
from voicepatch.models.devices import pick_device, pick_dtype
from voicepatch.models.folder import checkpoint_folder
from voicepatch.models.mel import log_mel
from voicepatch.models.opens2s import AudioAdapter, OpenS2S, OpenS2SConfig, audio_length, load_model

WINDOW = 3000
NEEDED = ("audio_encoder_model.", "audio_adapter.", "llm_model.")


def load(checkpoint, dtype="float32"):
    return load_model(checkpoint.folder, "cpu", dtype)


# --- the real size


@pytest.fixture(scope="module")
def real_size():
    """OpenS2S as published, without memory for its weights."""
    config = {
        "audio_encoder_config": {
            "model_type": "qwen2_audio_encoder",
            "d_model": 1280,
            "encoder_layers": 32,
            "encoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
            "num_mel_bins": 128,
            "max_source_positions": 1500,
        },
        "llm_config": {
            "model_type": "qwen3",
            "hidden_size": 4096,
            "num_hidden_layers": 36,
            "intermediate_size": 12288,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "rope_theta": 1000000,
        },
        "conv_kernel_sizes": "5,5",
        "adapter_inner_dim": 512,
        "lora_config": None,
    }
    with torch.device("meta"):
        return OpenS2S(OpenS2SConfig.from_checkpoint(config))


def test_tensors_have_the_shapes_of_the_real_model(real_size):
    shapes = {name: tuple(tensor.shape) for name, tensor in real_size.state_dict().items()}
    expected = {
        "audio_encoder_model.conv1.weight": (1280, 128, 3),
        "audio_encoder_model.conv2.weight": (1280, 1280, 3),
        "audio_encoder_model.embed_positions.weight": (1500, 1280),
        "audio_encoder_model.layers.31.fc1.weight": (5120, 1280),
        "audio_encoder_model.layers.31.self_attn.q_proj.weight": (1280, 1280),
        "audio_adapter.subsampler.conv_layers.0.weight": (2 * 1280, 1280, 5),
        "audio_adapter.subsampler.conv_layers.1.weight": (2 * 4096, 1280, 5),
        "audio_adapter.fc1.weight": (512, 4096),
        "audio_adapter.fc2.weight": (4096, 512),
        "audio_adapter.ln.bias": (4096,),
        "llm_model.model.embed_tokens.weight": (151936, 4096),
        "llm_model.lm_head.weight": (151936, 4096),
        "llm_model.model.layers.35.self_attn.q_proj.weight": (32 * 128, 4096),
        "llm_model.model.layers.35.self_attn.k_proj.weight": (8 * 128, 4096),
        "llm_model.model.layers.35.self_attn.q_norm.weight": (128,),
        "llm_model.model.layers.35.mlp.gate_proj.weight": (12288, 4096),
        "llm_model.model.layers.35.mlp.down_proj.weight": (4096, 12288),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert sum(p.numel() for p in real_size.llm_model.parameters()) == 8_190_735_360  # Qwen3-8B


def test_tensors_have_the_names_of_the_published_code(real_size, checkpoint):
    def pattern(names):
        return {re.sub(r"\.layers\.\d+\.", ".layers.N.", name) for name in names if name.startswith(NEEDED)}

    assert pattern(real_size.state_dict()) == pattern(checkpoint.tensors)
    assert not any(name.startswith(("tts_lm_model", "llm2tts", "llm_ln")) for name in real_size.state_dict())


def test_depth_and_window_are_those_of_the_real_model(real_size):
    assert real_size.n_layers == len(real_size.llm_model.model.layers) == 36
    assert len(real_size.audio_encoder_model.layers) == 32
    assert real_size.window_frames == WINDOW


# --- from mel to frames


def test_the_adapter_uses_the_exact_gelu():
    """The tanh approximation is off by up to 5e-4, which the golden checkpoint's small weights hide."""
    adapter = AudioAdapter(d_model=4, hidden=8, inner=256, kernel_sizes=[5]).double()
    torch.nn.init.uniform_(adapter.fc1.weight, -4, 4)
    seen = []
    adapter.fc1.register_forward_hook(lambda module, args, output: seen.append(output))
    adapter.fc2.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    adapter(torch.randn(1, 20, 4, dtype=torch.float64))
    before, after = seen
    torch.testing.assert_close(after, before * (1 + torch.erf(before / 2**0.5)) / 2, rtol=0, atol=1e-9)


@pytest.fixture
def mel():
    """Three windows of noise; no two frames alike."""
    return torch.randn(128, 3 * WINDOW, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("seconds", "positions"), [(1, 7), (2, 13), (3, 19), (5, 32), (10, 63), (30, 188), (60, 375)])
def test_a_clip_takes_six_and_a_quarter_positions_a_second(model, mel, seconds, positions):
    assert audio_length(100 * seconds, WINDOW, 2) == positions
    assert model.encode(mel, 100 * seconds).shape == (positions, 48)


@pytest.mark.parametrize("n_frames", [3, 4, 5, 6, 7, 8, 101, 2999, 3001, 3002, 3003, 5999, 6001, 9000])
def test_the_length_is_foretold_for_odd_numbers_of_frames_too(model, mel, n_frames):
    assert len(model.encode(mel, n_frames)) == audio_length(n_frames, WINDOW, 2)


@pytest.mark.parametrize(("seconds", "encoder_positions"), [(35, 750 + 125), (60, 750 + 750), (65, 1500 + 125)])
def test_a_long_clip_is_its_windows_encoded_apart_joined_and_cut(model, mel, seconds, encoder_positions):
    windows = [model.audio_encoder_model(window[None]).last_hidden_state for window in mel.split(WINDOW, dim=1)]
    expected = model.audio_adapter(torch.cat(windows, dim=1)[:, :encoder_positions])[0]
    torch.testing.assert_close(model.encode(mel, 100 * seconds), expected, rtol=0, atol=1e-6)


def test_windows_without_sound_are_skipped(model, mel):
    windows = []
    hook = model.audio_encoder_model.register_forward_hook(lambda *call: windows.append(call))
    frames = model.encode(mel, 300)
    hook.remove()
    assert len(windows) == 1
    assert torch.equal(frames, model.encode(mel[:, :WINDOW], 300))


def test_the_padding_of_the_last_window_is_attended_to(model, mel):
    """OpenS2S gives its encoder no attention mask."""
    other = mel[:, :WINDOW].clone()
    other[:, 2000:] = 0
    assert not torch.allclose(model.encode(other, 300), model.encode(mel[:, :WINDOW], 300), atol=1e-4)


def test_the_frames_of_a_clip_do_not_depend_on_the_clips_before_it(model, io, noise):
    alone = model.encode(*log_mel(io.extractor, noise(16_000, seed=1)))
    model.encode(*log_mel(io.extractor, noise(80_000, seed=2)))
    assert torch.equal(model.encode(*log_mel(io.extractor, noise(16_000, seed=1))), alone)


# --- loading


def test_a_loaded_model_is_ready_and_holds_what_was_saved(checkpoint):
    model = load(checkpoint)
    assert not any(module.training for module in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    saved = {name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith(NEEDED)}
    assert model.state_dict().keys() == saved.keys()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("saved", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_the_dtype_is_the_one_asked_for_whatever_was_saved(checkpoint, saved, asked):
    rounded = {name: tensor.to(saved) for name, tensor in checkpoint.tensors.items()}
    checkpoint.tensors = rounded
    checkpoint.save()
    checkpoint.configure(torch_dtype=str(saved).removeprefix("torch."))
    model = load(checkpoint, asked)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, rounded[name].to(getattr(torch, asked)))
    # As in transformers: angles in half precision would put positions in the wrong place.
    assert model.llm_model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_shards_are_read_as_far_as_they_are_needed(checkpoint, model):
    """`speech.safetensors` is in the index, and not in the folder."""
    checkpoint.shard()
    loaded = load(checkpoint).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


def test_a_missing_shard_is_named(checkpoint, refused):
    checkpoint.shard()
    (checkpoint.folder / "b.safetensors").unlink()
    with refused(checkpoint.folder / "b.safetensors", "missing"):
        load(checkpoint)


def test_a_tied_head_is_the_embedding_table(checkpoint):
    checkpoint.configure("llm_config", tie_word_embeddings=True)
    checkpoint.save({"llm_model.lm_head.weight": None})
    llm = load(checkpoint).llm_model
    assert llm.lm_head.weight.data_ptr() == llm.model.embed_tokens.weight.data_ptr()
    assert torch.equal(llm.lm_head.weight, checkpoint.tensors["llm_model.model.embed_tokens.weight"])


def test_the_speech_decoder_is_ignored_whatever_is_in_it(checkpoint):
    checkpoint.save({"llm_ln.weight": None, "llm2tts.weight": torch.ones(1), "tts_lm_model.new": torch.ones(3)})
    checkpoint.configure(tts_lm_config=...)
    assert not any(name.startswith(("llm2tts", "llm_ln", "tts_lm")) for name in load(checkpoint).state_dict())


NORM = "llm_model.model.layers.2.input_layernorm.weight"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({NORM: None}, ("lacks", NORM)),
        ({"audio_adapter.ln.bias": None}, ("lacks", "audio_adapter.ln.bias")),
        ({"llm_model.lm_head.weight": None}, ("lacks", "llm_model.lm_head.weight")),
        ({"audio_encoder_model.layers.7.fc1.bias": torch.ones(64)}, ("unexpected", "audio_encoder_model.layers.7.fc1")),
        ({"llm_model.lora_A": torch.ones(1)}, ("unexpected", "llm_model.lora_A")),
        ({NORM: torch.ones(47)}, (NORM, "[47]", "[48]")),
        ({NORM: torch.ones(1, 48)}, (NORM, "[1, 48]", "[48]")),
    ],
)
def test_a_tensor_missing_unexpected_or_misshapen_is_named(checkpoint, refused, changed, words):
    checkpoint.save(changed)
    with refused(checkpoint.folder, *words):
        load(checkpoint)


def test_a_long_list_of_missing_tensors_is_cut(checkpoint, refused):
    missing = {name: None for name in checkpoint.tensors if name.startswith("audio_encoder_model.")}
    checkpoint.save(missing)
    with refused("audio_encoder_model.conv1.bias", f"and {len(missing) - 5} more"):
        load(checkpoint)


@pytest.mark.parametrize("n_bytes", [0, 4, 2000, -1])
def test_truncated_weights_are_named(checkpoint, refused, n_bytes):
    checkpoint.weights.write_bytes(checkpoint.weights.read_bytes()[:n_bytes])
    with refused(checkpoint.weights, "fetch it again"):
        load(checkpoint)


# --- folders


def test_a_missing_folder_is_refused(tmp_path, refused):
    with refused(tmp_path / "nowhere", "no such folder"):
        load_model(tmp_path / "nowhere", "cpu")


def test_a_file_is_no_checkpoint(checkpoint, refused):
    with refused(checkpoint.weights, "is a file"):
        load_model(checkpoint.weights, "cpu")


def test_an_empty_folder_lacks_its_config(tmp_path, refused):
    with refused(tmp_path / "config.json", "missing"):
        load_model(tmp_path, "cpu")


def test_a_folder_without_weights_says_so(checkpoint, refused):
    checkpoint.weights.unlink()
    with refused(checkpoint.folder, "no model.safetensors"):
        load(checkpoint)


def test_pickles_are_refused(checkpoint, refused):
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
def test_a_malformed_index_is_refused(checkpoint, refused, index, words):
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
def test_a_config_of_something_else_is_refused(checkpoint, refused, part, values, words):
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


# --- the hub


@pytest.fixture
def hub(monkeypatch, tmp_path, checkpoint):
    """A hub with one repository: a sharded checkpoint, its pickled twin, and the speech decoder's folder."""
    checkpoint.shard()
    for name in (
        "speech.safetensors",
        "pytorch_model.bin",
        "README.md",
        "tokenizer.json",
        "merges.txt",
        "chat_template.jinja",
        "audio/weights.bin",
        "tts/config.json",
        "tts/vocabulary.txt",
        "tts/model.safetensors",
    ):
        path = checkpoint.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")

    def snapshot_download(repo_id, *, allow_patterns=None, ignore_patterns=None):
        assert repo_id == "CASIA-LM/OpenS2S"
        there = [str(path.relative_to(checkpoint.folder)) for path in checkpoint.folder.rglob("*") if path.is_file()]
        for name in filter_repo_objects(there, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            (tmp_path / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkpoint.folder / name, tmp_path / "cache" / name)
        return str(tmp_path / "cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return checkpoint


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


SMALL_FILES = {
    "config.json",
    "tokenizer.json",
    "merges.txt",
    "chat_template.jinja",
    "audio/preprocessor_config.json",
}


def test_a_hub_id_fetches_what_is_read_and_nothing_else(hub, model):
    folder = checkpoint_folder("CASIA-LM/OpenS2S")
    assert files(folder) == SMALL_FILES | {
        "model.safetensors.index.json",
        "a.safetensors",
        "b.safetensors",
    }
    loaded = load_model("CASIA-LM/OpenS2S", "cpu", "float32").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


def test_a_checkpoint_in_one_file_is_fetched_too(hub):
    hub.index.unlink()
    hub.save()
    assert files(checkpoint_folder("CASIA-LM/OpenS2S")) == SMALL_FILES | {"model.safetensors"}


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("Got: ConnectError: no network\nAn error happened while trying to locate the files"),
        HTTPError("timed out"),
        OSError(28, "No space left on device"),
        ConnectionError(),
    ],
)
def test_without_a_network_the_message_says_which_files_to_put_where(monkeypatch, refused, error):
    def snapshot_download(*args, **kwargs):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    needed = ("config.json", "safetensors", "index.json", "tokenizer", "audio/preprocessor_config.json")
    with refused("--model CASIA-LM/OpenS2S", *needed, "into one folder", "--model FOLDER"):
        load_model("CASIA-LM/OpenS2S", "cpu")


@pytest.mark.parametrize("source", ["OpenS2S", "a/b/c", "./nowhere", "../nowhere", "/nowhere", "~/nowhere"])
def test_a_mistyped_folder_is_not_looked_for_on_the_hub(monkeypatch, refused, source):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: pytest.fail("asked the hub"))
    with refused(source, "no such folder"):
        load_model(source, "cpu")


def test_a_folder_name_that_no_hub_id_can_be_is_refused(refused):
    with refused("--model my models/OpenS2S"):
        load_model("my models/OpenS2S", "cpu")


# --- identity


def test_the_hash_tells_models_apart_and_not_their_places(checkpoint, tmp_path):
    moved = Path(shutil.copytree(checkpoint.folder, tmp_path / "elsewhere" / "renamed"))
    before = checkpoint_hash(checkpoint.folder)
    assert checkpoint_hash(moved) == before

    weights = bytearray(checkpoint.weights.read_bytes())
    weights[-1] ^= 1
    checkpoint.weights.write_bytes(weights)
    assert checkpoint_hash(checkpoint.folder) != before

    config = json.loads((moved / "config.json").read_text())
    config["llm_config"]["rope_theta"] = 10_000
    (moved / "config.json").write_text(json.dumps(config))
    assert checkpoint_hash(moved) != before


@pytest.mark.parametrize("shard", ["a.safetensors", "b.safetensors"])
def test_the_hash_covers_every_shard_that_is_read(checkpoint, shard):
    checkpoint.shard()
    before = checkpoint_hash(checkpoint.folder)
    with (checkpoint.folder / shard).open("ab") as file:
        file.write(b"x")
    assert checkpoint_hash(checkpoint.folder) != before


def test_the_hash_covers_the_tokenizer_and_the_feature_extractor(checkpoint):
    hashes = {checkpoint_hash(checkpoint.folder)}
    for name in ("tokenizer.json", "audio/preprocessor_config.json"):
        (checkpoint.folder / name).write_text("{}")
        hashes.add(checkpoint_hash(checkpoint.folder))
    assert len(hashes) == 3
