"""The golden checkpoint, writable copies of it, and a small tokenizer of OpenS2S's kind."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from voicepatch.errors import BAD_INPUT, UserError
from voicepatch.models.mel import read_extractor
from voicepatch.models.opens2s import load_model
from voicepatch.models.opens2s_io import AUDIO, TURN
from voicepatch.models.tokens import read_prompt, read_tokenizer
from voicepatch.types.task import default_task

LABELS, QUESTION = default_task().labels, default_task().question

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "opens2s-tiny"
OPENS2S_TOKENS = ("<|im_audio_start|>", "<|im_audio_end|>", "<|im_tts_start|>", "<|im_tts_end|>")
# Qwen3's template, without tools and earlier answers.
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""


class Checkpoint:
    """A copy of the golden checkpoint that a test may spoil."""

    def __init__(self, folder):
        self.folder = Path(shutil.copytree(GOLDEN, folder, ignore=shutil.ignore_patterns("golden.*")))
        self.weights, self.index = folder / "model.safetensors", folder / "model.safetensors.index.json"
        self.tensors = load_file(self.weights)

    def configure(self, part=None, **values):
        """Set values of `config.json`, or of one part of it; `...` removes the key."""
        path = self.folder / "config.json"
        config = json.loads(path.read_text())
        target = config[part] if part else config
        target.update(values)
        for key in [key for key, value in target.items() if value is ...]:
            del target[key]
        path.write_text(json.dumps(config))

    def save(self, changed=None):
        """Write the tensors, some of them changed; None leaves a tensor out."""
        tensors = self.tensors | (changed or {})
        save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, self.weights)

    def shard(self):
        """Three shards and their index; the one with the speech decoder alone is not written."""
        shards = {"a.safetensors": {}, "b.safetensors": {}, "speech.safetensors": {}}
        for name, tensor in self.tensors.items():
            heard = name.startswith(("audio_", "llm_model.model.embed"))
            shards[f"{'a' if heard else 'b' if name.startswith('llm_model.') else 'speech'}.safetensors"][name] = tensor
        self.weights.unlink()
        self.index.write_text(json.dumps({"weight_map": {name: file for file in shards for name in shards[file]}}))
        del shards["speech.safetensors"]
        for file, tensors in shards.items():
            save_file(tensors, self.folder / file)


@pytest.fixture
def checkpoint(tmp_path):
    return Checkpoint(tmp_path / "checkpoint")


@pytest.fixture(scope="session")
def golden():
    return load_file(GOLDEN / "golden.safetensors")


@pytest.fixture(scope="session")
def model():
    return load_model(GOLDEN, "cpu", "float32")


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


@pytest.fixture
def refused():
    """`with refused("word", ...)`: the body is refused with one line that holds all of the words."""

    @contextmanager
    def expect(*words, status=BAD_INPUT):
        with pytest.raises(UserError) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        assert [word for word in words if str(word) not in message] == [], message
        assert caught.value.status == status

    return expect


def write_tokenizer(folder, *, special=OPENS2S_TOKENS, n_unused=0, **settings):
    """Bytes as tokens, `ang` and `sur` merged. A trap: special tokens put `<|endoftext|>` before a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "n"), ("an", "g"), ("s", "u"), ("su", "r")]
    tokens = [*alphabet, *("".join(merge) for merge in merges), *(f"unused{i}" for i in range(n_unused))]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken(token, special=False) for token in ("<think>", "</think>")])
    tokenizer.add_special_tokens(list(special))
    first = ("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[first])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "Qwen2Tokenizer", "chat_template": CHAT_TEMPLATE, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def read_turn(folder, question=QUESTION):
    """`(tokens, prompt)` of a folder of OpenS2S's kind, as a command reads it."""
    return read_prompt(folder, AUDIO, TURN, question, LABELS)


@pytest.fixture(scope="session")
def io(tmp_path_factory):
    """The feature extractor, the tokenizer, and what is read of it, of a folder of OpenS2S's kind."""
    folder = tmp_path_factory.mktemp("io") / "checkpoint"
    shutil.copytree(GOLDEN / "audio", folder / "audio")
    write_tokenizer(folder)
    tokens, prompt = read_turn(folder)
    extractor = read_extractor(folder / "audio", 128)
    return SimpleNamespace(
        folder=folder, extractor=extractor, tokenizer=read_tokenizer(folder), tokens=tokens, prompt=prompt
    )


@pytest.fixture
def tokenizer_folder(tmp_path):
    """A function that writes a folder like `io`'s, with another tokenizer."""

    def write(**settings):
        shutil.copytree(GOLDEN / "audio", tmp_path / "audio")
        shutil.copy(GOLDEN / "config.json", tmp_path)
        write_tokenizer(tmp_path, **settings)
        return tmp_path

    return write


@pytest.fixture
def noise():
    """A function that gives so many samples of quiet noise, always the same."""
    return lambda n_samples, seed=0: np.random.default_rng(seed).normal(0, 0.1, n_samples).astype(np.float32)
