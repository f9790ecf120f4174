"""OpenS2S as modules, under the names that its checkpoint gives them.

    model = load_model("path/to/OpenS2S")             # or a hub id: "CASIA-LM/OpenS2S"
    frames = model.encode(windows, n_frames)          # [n_audio, hidden], one clip
    logits = model.llm_model(inputs_embeds=embeds, use_cache=False).logits

The speech decoder of the checkpoint (`tts_lm_model`, `llm2tts`, `llm_ln`) is neither built nor read.
Layout and numbers: CASIA-LM/OpenS2S, arXiv 2507.05177; the tests compare them with the published code's own output.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, Qwen2AudioEncoderConfig, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from voicepatch.errors import UserError
from voicepatch.models.adapter_folder import added_adapter, find_checkpoint
from voicepatch.models.adapters import merge_adapter
from voicepatch.models.mel import pooled_length
from voicepatch.models.pretrained import load_outer, outer_config


class Conv1dSubsampler(nn.Module):
    """Strided convolutions with GLU over channels: `[1, n, d_model]` to `[1, about n / 2**convolutions, d_out]`."""

    def __init__(self, d_model: int, d_out: int, kernel_sizes: list[int]):
        super().__init__()
        last = len(kernel_sizes) - 1
        self.conv_layers = nn.ModuleList(
            nn.Conv1d(d_model, 2 * (d_out if i == last else d_model), k, stride=2, padding=k // 2)
            for i, k in enumerate(kernel_sizes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.transpose(1, 2)
        for conv in self.conv_layers:
            x = F.glu(conv(x), dim=1)
        return x.transpose(1, 2)


class AudioAdapter(nn.Module):
    """Encoder states of one clip `[1, n, d_model]` to audio frames in the LLM's width `[1, n_audio, hidden]`."""

    def __init__(self, d_model: int, hidden: int, inner: int, kernel_sizes: list[int]):
        super().__init__()
        self.subsampler = Conv1dSubsampler(d_model, hidden, kernel_sizes)
        self.fc1 = nn.Linear(hidden, inner, bias=False)
        self.fc2 = nn.Linear(inner, hidden, bias=False)
        self.ln = nn.LayerNorm(hidden, eps=1e-5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.subsampler(x)
        return self.ln(x + self.fc2(F.gelu(self.fc1(x))))


class OpenS2SConfig(PreTrainedConfig):
    """The part of OpenS2S's `config.json` that describes the encoder, the adapter and the LLM."""

    model_type = "opens2s"
    sub_configs = {"audio_encoder_config": Qwen2AudioEncoderConfig, "llm_config": Qwen3Config}

    @classmethod
    def from_checkpoint(cls, config: Mapping[str, Any]) -> "OpenS2SConfig":
        """From the content of `config.json`; `UserError` where it describes something else."""
        for key in ("audio_encoder_config", "llm_config", "conv_kernel_sizes", "adapter_inner_dim"):
            if key not in config:
                raise UserError(f"config.json has no {key!r}: this is not an OpenS2S checkpoint")
        if config.get("lora_config") is not None:
            raise UserError("config.json has a lora_config: merge the LoRA weights into the model first")
        made = cls()
        for name, part in cls.sub_configs.items():
            found = config[name].get("model_type")
            if found != part.model_type:
                raise UserError(
                    f"config.json: {name} has model_type {found!r}, but only {part.model_type!r} is supported"
                )
            # Other keys do not describe the weights: a number of classes, attention code to be fetched, ...
            known = {*part.__annotations__, "rope_theta", "rope_scaling"}
            setattr(made, name, part(**{key: value for key, value in config[name].items() if key in known}))
        made.kernel_sizes = [int(size) for size in config["conv_kernel_sizes"].split(",")]
        made.adapter_inner_dim = config["adapter_inner_dim"]
        return made


class OpenS2S(PreTrainedModel):
    """Audio encoder, adapter and LLM of OpenS2S, made from an `OpenS2SConfig`."""

    config_class = OpenS2SConfig
    _supports_sdpa = True

    def __init__(self, config: OpenS2SConfig):
        super().__init__(config)
        self.audio_encoder_model = Qwen2AudioEncoder(config.audio_encoder_config)
        self.llm_model = Qwen3ForCausalLM(config.llm_config)
        width, hidden = config.audio_encoder_config.d_model, config.llm_config.hidden_size
        self.audio_adapter = AudioAdapter(width, hidden, config.adapter_inner_dim, config.kernel_sizes)
        self.post_init()

    @property
    def n_layers(self) -> int:
        """Decoder layers; layer l is `llm_model.model.layers[l]`."""
        return self.llm_model.config.num_hidden_layers

    @property
    def window_frames(self) -> int:
        """Mel frames in one encoder window."""
        return 2 * self.audio_encoder_model.config.max_source_positions

    def encode(self, mel: torch.Tensor, n_frames: int) -> torch.Tensor:
        """One clip's mel `[mel_bins, padded frames]`, of which `n_frames` are sound, to `[n_audio, hidden]`.

        Always one clip: in a batch the last positions of a short clip would depend on its neighbours.
        """
        weight = self.audio_encoder_model.conv1.weight
        outputs, length = [], 0
        for window in mel.split(self.window_frames, dim=-1):
            frames = min(n_frames, window.shape[-1])
            if frames <= 0:
                break
            n_frames -= frames
            length += pooled_length(frames)
            window = window.to(weight.device, weight.dtype)[None]
            outputs.append(self.audio_encoder_model(window).last_hidden_state)
        return self.audio_adapter(torch.cat(outputs, dim=1)[:, :length])[0]


def audio_length(n_frames: int, window_frames: int, n_convs: int) -> int:
    """Positions in the LLM that a clip of `n_frames` mel frames takes: 6.25 a second for OpenS2S."""
    full, rest = divmod(n_frames, window_frames)
    n = full * pooled_length(window_frames) + (pooled_length(rest) if rest else 0)
    for _ in range(n_convs):
        n = (n - 1) // 2 + 1
    return n


def load_model(source: str | Path, device: str | None = None, dtype: str | None = None) -> OpenS2S:
    """Load a checkpoint folder or hub id, in `eval()` mode; device, dtype and errors as in `load_outer`."""
    found = find_checkpoint(source)
    config = outer_config(found.folder, OpenS2SConfig.from_checkpoint)
    model = load_outer(OpenS2S, found.folder, config, device, dtype)
    if (adapter := added_adapter(found)) is not None:
        merge_adapter(adapter, model, model.llm_model)
    return model
