"""A small tokenizer of OpenS2S's kind: byte-level BPE, its special tokens, a chat template in the manner of Qwen3.

The labels come apart as they do in Qwen's vocabulary: `neutral`, `happy`, `sad` whole, `ang|ry`, `sur|pr|ised`.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY_SIZE = 1000
# Merges are applied in order, so these come before all that are learned. "Ġ" is the blank before a word.
LABEL_MERGES = (
    "a n", "an g", "r y", "s u", "su r", "p r", "i s", "e d", "is ed", "s a", "sa d", "h a", "p p", "ha pp", "happ y",
    "n e", "ne u", "t r", "a l", "tr al", "neu tral",
    "Ġ neutral", "Ġ happy", "Ġ sad", "Ġ ang", "Ġang ry", "Ġ sur", "Ġsur pr", "Ġsurpr ised",
)  # fmt: skip
BARRED_MERGES = {("ang", "ry"), ("sur", "pr"), ("pr", "ised")}
CHAT_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
OPENS2S_TOKENS = ("<|im_audio_start|>", "<|im_audio_end|>", "<|im_tts_start|>", "<|im_tts_end|>")
THINK_TOKENS = ("<think>", "</think>")  # as in Qwen3: added, but not special
# Qwen's own pattern: words with the blank before them, single digits, punctuation, line ends.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}"
    "{%- endif %}"
)


def _byte_level(vocabulary: dict[str, int] | None = None, merges: list[tuple[str, str]] | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _learned_merges(sentences: list[str]) -> list[tuple[str, str]]:
    tokenizer = _byte_level()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY_SIZE, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def build_tokenizer(sentences: list[str]) -> Tokenizer:
    """A tokenizer whose merges are the labels', then those learned from `sentences`; special tokens at the end."""
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = set(tokens)
    merges: list[tuple[str, str]] = []
    for left, right in [*(tuple(m.split()) for m in LABEL_MERGES), *_learned_merges(sentences)]:
        joined = left + right
        if (left, right) in BARRED_MERGES or joined in known or not {left, right} <= known:
            continue
        known.add(joined)
        tokens.append(joined)
        merges.append((left, right))
    tokenizer = _byte_level({token: i for i, token in enumerate(tokens)}, merges)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in CHAT_TOKENS])
    tokenizer.add_tokens([AddedToken(token, special=False) for token in THINK_TOKENS])
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in OPENS2S_TOKENS])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`, which transformers loads without a network."""
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8", newline="\n")
