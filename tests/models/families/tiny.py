"""Parts of tiny checkpoints, as their folders lie on the hub: random weights, and a tokenizer made by hand."""

import json

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import WhisperFeatureExtractor

HIDDEN, N_LAYERS, VOCABULARY = 64, 3, 384
TEXT = {
    "hidden_size": HIDDEN, "intermediate_size": 96, "num_hidden_layers": N_LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 4096,
}  # fmt: skip
WHISPER = {
    "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48, "num_mel_bins": 128,
    "max_source_positions": 1500,
}  # fmt: skip


def write_tokenizer(folder, special, **settings):
    """Bytes as tokens, with the first letters of two labels merged, and `special` tokens; gives their ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "n"), ("an", "g"), ("s", "u"), ("su", "r")]
    tokens = [*alphabet, *("".join(merge) for merge in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", *special])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return {token: tokenizer.token_to_id(token) for token in special}


def write_extractor(folder, **settings):
    WhisperFeatureExtractor(feature_size=128, **settings).save_pretrained(folder)


def write_model(outer, folder):
    """Weights large enough for every layer to matter, and for frames to differ from clip to clip."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in outer.named_parameters():
        if "norm" in name or parameter.dim() == 1:
            scale, mean = 0.05, 1.0 if name.endswith("weight") else 0.0
        elif parameter.dim() == 2 and "embed" not in name:
            scale, mean = 1.2 / parameter.shape[-1] ** 0.5, 0.0
        else:
            scale, mean = 0.1 if "conv" in name else 0.5, 0.0
        parameter.data.normal_(mean, scale, generator=generator)
    outer = outer.eval().requires_grad_(False)
    outer.save_pretrained(folder)
    return outer
