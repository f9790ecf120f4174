"""The weights of an OpenS2S checkpoint are read as they were saved, or what is wrong is named."""

import pytest
import torch

from tests.models.opens2s.loading import NEEDED, load


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
def test_the_dtype_is_the_given_one_whatever_was_saved(checkpoint, saved, asked):
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
