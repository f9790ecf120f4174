"""The files of a checkpoint are data: read whole, refused by name, and never run."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.models.conftest import read_turn
from voicepatch.commandline.lacks import lack_of
from voicepatch.errors import UserError
from voicepatch.models.checkpoint import checkpoint_hash, is_finite
from voicepatch.models.folder import read_json
from voicepatch.models.mel import make_extractor
from voicepatch.models.opens2s import load_model
from voicepatch.models.tokens import check_vocabulary

NORM = "llm_model.model.layers.2.input_layernorm.weight"
HEAD = "llm_model.lm_head.weight"


def load(checkpoint, dtype="float32"):
    return load_model(checkpoint.folder, "cpu", dtype)


# --- values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", [NORM, "audio_encoder_model.conv1.weight", "audio_adapter.ln.bias", HEAD])
@pytest.mark.parametrize("saved", [torch.float32, torch.bfloat16])
def test_a_value_that_is_not_finite_is_refused_by_its_tensor(checkpoint, refused, value, name, saved):
    spoiled = checkpoint.tensors[name].to(saved)
    spoiled.view(-1)[-1] = value
    checkpoint.save({name: spoiled})
    with refused(checkpoint.folder, name, "not finite"):
        load(checkpoint)


def test_what_the_speech_decoder_holds_is_not_looked_at(checkpoint):
    checkpoint.save({"llm2tts.weight": torch.full((2,), torch.nan)})
    load(checkpoint)


def test_a_value_too_large_for_the_dtype_asked_for_is_refused(checkpoint, refused):
    checkpoint.save({NORM: torch.full((48,), 1e5)})
    load(checkpoint, "bfloat16")
    with refused(NORM, "not finite, as float16", "--dtype bfloat16"):
        load(checkpoint, "float16")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_finite_value_passes_the_look_at_both_ends(dtype):
    most = torch.finfo(dtype).max
    assert is_finite(torch.tensor([-most, 0, most], dtype=dtype)) and is_finite(torch.ones(0, 3, dtype=dtype))
    assert is_finite(torch.tensor(1, dtype=dtype)) and not is_finite(torch.tensor(torch.nan, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(checkpoint, refused, dtype):
    checkpoint.save({NORM: torch.ones(48).to(dtype)})
    with refused(checkpoint.weights, NORM, "float or bfloat16"):
        load(checkpoint)


def test_a_lack_of_memory_is_one_line(checkpoint, monkeypatch):
    for error in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory"), MemoryError()):

        def full(tensor, error=error):
            raise error

        monkeypatch.setattr("voicepatch.models.pretrained.is_finite", full)
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            load(checkpoint)
        line = lack_of(caught.value)
        assert line.startswith("out of memory") and "--dtype bfloat16" in line


# --- files


class Canary:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "model-00001-of-00002.pt"])
@pytest.mark.parametrize("form", [pickle.dump, torch.save])
def test_a_pickle_is_never_read_whatever_it_is_called(checkpoint, tmp_path, refused, name, form):
    checkpoint.weights.unlink()
    canary = tmp_path / "it was run"
    with (checkpoint.folder / name).open("wb") as file:
        form(Canary(canary), file)
    with refused(checkpoint.folder):
        load(checkpoint)
    checkpoint.index.write_text(json.dumps({"weight_map": {NORM: name}}))
    with refused(checkpoint.folder):
        load(checkpoint)
    assert not canary.exists()


def test_the_index_names_safetensors_alone(checkpoint, refused):
    checkpoint.weights.unlink()
    checkpoint.index.write_text(json.dumps({"weight_map": {NORM: "pytorch_model.bin"}}))
    with refused("index.json", "'pytorch_model.bin'", "*.safetensors beside it only"):
        load(checkpoint)


@pytest.mark.parametrize("name", ["../model.safetensors", "/model.safetensors", "..", "a/../model.safetensors", "a\\b"])
def test_the_index_reaches_nothing_outside_its_folder(checkpoint, refused, name):
    checkpoint.weights.rename(checkpoint.folder.parent / "model.safetensors")
    name = name.replace("/model", f"{checkpoint.folder.parent}/model", 1) if name[0] == "/" else name
    checkpoint.index.write_text(json.dumps({"weight_map": {NORM: name}}))
    with refused("index.json", "beside it only"):
        load(checkpoint)


def test_a_tensor_in_two_shards_is_refused(checkpoint, refused):
    checkpoint.shard()
    save_file({NORM: checkpoint.tensors[NORM], "llm_model.x": torch.ones(1)}, checkpoint.folder / "a.safetensors")
    with refused("b.safetensors", NORM, "as a.safetensors does"):
        load(checkpoint)


def test_a_whole_file_goes_before_an_index_and_its_stale_shards(checkpoint, model):
    before = checkpoint_hash(checkpoint.folder)
    save_file({name: tensor + 1 for name, tensor in checkpoint.tensors.items()}, checkpoint.folder / "a.safetensors")
    checkpoint.index.write_text(json.dumps({"weight_map": dict.fromkeys(checkpoint.tensors, "a.safetensors")}))
    assert checkpoint_hash(checkpoint.folder) == before
    loaded = load(checkpoint).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())


def test_a_folder_of_symbolic_links_is_a_checkpoint(checkpoint, tmp_path, model):
    """As the hub's cache is."""
    checkpoint.shard()
    links = tmp_path / "links"
    for path in [path for path in checkpoint.folder.rglob("*") if path.is_file()]:
        link = links / path.relative_to(checkpoint.folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    assert all(
        torch.equal(value, model.state_dict()[name])
        for name, value in load_model(links, "cpu", "float32").state_dict().items()
    )
    assert checkpoint_hash(links) == checkpoint_hash(checkpoint.folder)


def test_the_weights_of_another_model_are_refused(checkpoint, refused):
    checkpoint.save(dict.fromkeys(checkpoint.tensors) | {"model.layers.0.mlp.up_proj.weight": torch.ones(4, 4)})
    with refused(checkpoint.folder, "another model's weights", "audio_adapter."):
        load(checkpoint)


# --- configurations


@pytest.mark.parametrize(
    "content", ["{", "[]", "", "nul", '{"a": 1', "\xff", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"]
)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "audio/preprocessor_config.json"])
def test_broken_json_is_named(checkpoint, refused, name, content):
    path = checkpoint.folder / name
    if "index" in name:
        checkpoint.weights.unlink()
    path.write_text(content, encoding="latin-1")
    with refused(path, "again"):
        make_extractor(path, read_json(path)) if "audio" in name else load(checkpoint)


HUGE = [("llm_config", key) for key in ("num_hidden_layers", "hidden_size", "head_dim", "vocab_size")]
HUGE += [("llm_config", key) for key in ("intermediate_size", "num_attention_heads", "num_key_value_heads")]
HUGE += [("audio_encoder_config", key) for key in ("encoder_layers", "d_model", "encoder_ffn_dim")]
HUGE += [("audio_encoder_config", key) for key in ("max_source_positions", "num_mel_bins")]


@pytest.mark.parametrize("value", [10**6, 10**9, 10**30])
@pytest.mark.parametrize(("part", "key"), [*HUGE, (None, "adapter_inner_dim")])
def test_a_size_no_weights_have_is_refused_before_memory_is_taken(checkpoint, refused, monkeypatch, part, key, value):
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *args, **kwargs: pytest.fail("weights were taken"))
    checkpoint.configure(part, **{key: value})
    with refused("config.json"):
        load(checkpoint)


@pytest.mark.parametrize(
    "values",
    [
        {"rope_theta": 0},
        {"rope_theta": -5.0},
    ],
)
def test_numbers_that_make_every_answer_nonsense_are_refused(checkpoint, refused, values):
    checkpoint.configure("llm_config", **values)
    with refused("inv_freq", "not finite"):
        load(checkpoint)


@pytest.mark.parametrize(
    "values",
    [{"attn_implementation": "someone/kernel"}, {"return_dict": False}, {"dtype": "x"}],
)
def test_keys_that_are_no_property_of_the_weights_have_no_effect(checkpoint, model, values):
    checkpoint.configure("llm_config", **values)
    llm = load(checkpoint).llm_model
    embeds = torch.ones(1, 3, 48)
    assert torch.equal(llm(inputs_embeds=embeds).logits, model.llm_model(inputs_embeds=embeds).logits)


# --- tokenizer and features


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_checkpoint_is_never_run(tokenizer_folder, tmp_path, name):
    folder = tokenizer_folder(tokenizer_class="Own")
    canary = tmp_path / "it was run"
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(canary)!r}).touch()\nclass Own: pass\n")
    own = {"AutoTokenizer": ["own.Own", "own.Own"], "AutoConfig": "own.Own", "AutoModel": "own.Own"}
    content = json.loads((folder / name).read_text()) | {"auto_map": own, "model_type": "own"}
    (folder / name).write_text(json.dumps(content))
    try:
        read_turn(folder)
    except UserError as error:
        assert "tokenizer" in str(error)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", "\xff", "[" * 100_000])
def test_a_broken_file_of_the_tokenizer_is_named(tokenizer_folder, refused, name, content):
    folder = tokenizer_folder()
    (folder / name).write_text(content, encoding="latin-1")
    with refused(folder, "tokenizer"):
        read_turn(folder)


@pytest.mark.parametrize(
    "template",
    [
        "no prompt at all",
        "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{{ messages[1].content }}",
        "{% for m in messages %}",
        "{{ messages[7].content.x }}",
        "{{ raise_exception('no\nsystem turn') }}",
    ],
)
def test_a_template_that_does_not_write_the_prompt_is_refused(tokenizer_folder, refused, template):
    with refused("chat template"):
        read_turn(tokenizer_folder(chat_template=template))


def test_a_tokenizer_of_more_tokens_than_the_model_is_refused(model, io, refused):
    with refused("tokenizer.json", "config.json's vocabulary", "one checkpoint"):
        # The golden model knows 128 ids, this tokenizer more.
        check_vocabulary(io.tokens, model.llm_model.config.vocab_size)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("sampling_rate", 44_100), ("padding_side", "left"), ("padding_value", 1.0), ("dither", 0.001)],
        *[
            (key, v)
            for key in ("feature_size", "hop_length", "chunk_length", "n_fft")
            for v in (0, -1, 10**9, "x", 1.5)
        ],
        *[("n_fft", 1), ("n_fft", 46)],
    ],
)
def test_settings_that_would_give_another_mel_are_refused(checkpoint, refused, key, value):
    path = checkpoint.folder / "audio" / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with refused(path):
        make_extractor(path, read_json(path))


def test_a_tokenizer_with_which_labels_collide_is_refused(tokenizer_folder, refused):
    """A vocabulary of bytes without merges: `sad` and `surprised` both begin with s."""
    folder = tokenizer_folder()
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with refused("'sad' and 'surprised'", "same token"):
        read_turn(folder)
