"""What a benchmark runs on: a model, random or loaded, and clips of noise.

case = make_case()                       # random weights, OpenS2S's depth, narrow enough for two cores
case = make_case(full_size=True)         # the real shape, on a CUDA device
clip_input = case.clips[0]()             # encoded again at every call
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.engine.subject import load_subject
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.models.devices import pick_device, pick_dtype
from voicepatch.models.opens2s import OpenS2S, OpenS2SConfig
from voicepatch.models.speech_lm import CausalLM, ClipInput, join, joined

CPU = torch.device("cpu")
BEFORE, AFTER = 15, 38  # positions of the prompt around the span with OpenS2S's tokenizer
SPANS = (26, 19, 32, 23, 29)  # 3 to 5 seconds of sound

# Narrow enough for two cores, with OpenS2S's depth and its proportions: 3 × hidden inside the MLP, 4 query heads to a
# key head, a vocabulary of 37 × hidden, and an encoder of about 1.7 times the arithmetic of one decoder forward.
NARROW = {
    "audio_encoder_config": {
        "model_type": "qwen2_audio_encoder", "num_mel_bins": 128, "d_model": 384, "encoder_layers": 3,
        "encoder_attention_heads": 6, "encoder_ffn_dim": 1536, "max_source_positions": 1500,
    },
    "llm_config": {
        "model_type": "qwen3", "vocab_size": 18_992, "hidden_size": 512, "intermediate_size": 1536,
        "num_hidden_layers": 36, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64,
        "tie_word_embeddings": False, "rope_theta": 1e6,
    },
    "conv_kernel_sizes": "5,5", "adapter_inner_dim": 64,
}  # fmt: skip
FULL_SIZE = {
    "audio_encoder_config": {
        "model_type": "qwen2_audio_encoder", "num_mel_bins": 128, "d_model": 1280, "encoder_layers": 32,
        "encoder_attention_heads": 20, "encoder_ffn_dim": 5120, "max_source_positions": 1500,
    },
    "llm_config": {
        "model_type": "qwen3", "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 12_288,
        "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "tie_word_embeddings": False, "rope_theta": 1e6,
    },
    "conv_kernel_sizes": "5,5", "adapter_inner_dim": 512,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A decoder and, for each clip, a function that encodes it and joins it with the prompt."""

    name: str
    llm: CausalLM
    clips: tuple[Callable[[], ClipInput], ...]

    @property
    def n_layers(self) -> int:
        return self.llm.config.num_hidden_layers


def random_case(
    config: dict[str, Any] = NARROW,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Case:
    """A model of random weights, and clips of noise in a prompt of OpenS2S's length."""
    torch.manual_seed(seed)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = OpenS2S(OpenS2SConfig.from_checkpoint(config)).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(default)
    bins, frames = config["audio_encoder_config"]["num_mel_bins"], model.window_frames
    sounds = [torch.randn(bins, frames) for _ in SPANS]
    # Each position of the span is 16 frames of the mel: two convolutions of the adapter, one of the encoder, one pool.
    clips = tuple(partial(_encoded, model, mel, 16 * span) for mel, span in zip(sounds, SPANS, strict=True))
    return Case("random weights", model.llm_model, clips)


def make_case(
    model: str | None = None,
    full_size: bool = False,
    device: str | None = None,
    dtype: str | None = None,
    seed: int = 0,
) -> Case:
    """What the options of `python cli.py bench` ask for; `UserError` where it cannot be had."""
    if model and full_size:
        raise UserError("--model and --full-size: choose one of them", BAD_USAGE)
    if model:
        return checkpoint_case(model, device, dtype, seed)
    if full_size and not torch.cuda.is_available():
        raise UserError("--full-size: needs a CUDA device of about 20 GiB, and there is none here", BAD_USAGE)
    chosen = pick_device(device or ("cuda" if full_size else "cpu"))
    return random_case(FULL_SIZE if full_size else NARROW, chosen, pick_dtype(dtype, chosen), seed)


def _encoded(model: OpenS2S, mel: torch.Tensor, n_frames: int) -> ClipInput:
    table = model.llm_model.get_input_embeddings()
    embed = lambda ids: table(torch.tensor(ids, device=table.weight.device))  # noqa: E731
    return joined(embed, range(BEFORE), range(BEFORE, BEFORE + AFTER), model.encode(mel, n_frames))


def checkpoint_case(source: str, device: str | None, dtype: str | None, seed: int = 0) -> Case:
    """A checkpoint with its own prompt, and clips of noise."""
    subject = load_subject(source, device=device, dtype=dtype)
    generator = np.random.default_rng(seed)
    waveforms = [0.1 * generator.standard_normal(int(SAMPLE_RATE * span / 6.25)).astype(np.float32) for span in SPANS]
    model = subject.model
    clips = tuple(partial(lambda sound: join(model, model.encode(model.features(sound))), each) for each in waveforms)
    return Case(subject.name, model.llm, clips)
