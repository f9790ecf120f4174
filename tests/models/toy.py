"""A family as a plugin of one file: a linear encoder and a small random Qwen3 decoder, without files of weights."""

import json
import re

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from voicepatch import Prompt, family
from voicepatch.types.task import default_task

QUESTION = default_task().question
WORDS = ["neutral", "happy", "sad", "angry", "surprised"]


class Tokenizer:
    def encode(self, text, add_special_tokens=False):
        pieces = re.findall("|".join([*WORDS, "."]), text)
        return [WORDS.index(piece) if piece in WORDS else ord(piece) for piece in pieces]

    def convert_ids_to_tokens(self, ids):
        return [WORDS[i] if 0 <= i < len(WORDS) else chr(max(i, 0)) for i in ids]


class Toy:
    max_samples = None  # the whole clip is encoded

    def __init__(self, config):
        torch.manual_seed(0)
        self.llm = Qwen3ForCausalLM(Qwen3Config(vocab_size=128, **config)).eval().requires_grad_(False)
        self.encoder = torch.nn.Linear(640, config["hidden_size"]).requires_grad_(False)
        self.tokenizer = Tokenizer()
        before, after = (self.tokenizer.encode(text) for text in ("Listen: ", QUESTION))
        self.prompt = Prompt(system=None, text=f"Listen: <sound>{QUESTION}", before=before, after=after)

    def features(self, waveform):  # 16 kHz, mono, float32
        return torch.from_numpy(waveform[: len(waveform) // 640 * 640]).view(-1, 640)

    def encode(self, features):
        return self.encoder(features)

    def embed(self, ids):
        return self.llm.get_input_embeddings()(torch.tensor(list(ids)))

    def n_audio(self, n_samples):
        return n_samples // 640


@family(model_type="toy_speech", frames_per_second=25)
def load(folder, device, dtype):
    """Toy: a linear encoder and a small random Qwen3 decoder."""
    return Toy(json.loads((folder / "config.json").read_text())["decoder"])
