"""OpenS2S as modules, and what a checkpoint must hold to become them.

    model = load_model("path/to/OpenS2S")             # or a hub id: "CASIA-LM/OpenS2S"
    frames = model.encode(windows, n_frames)          # [n_audio, hidden], one clip
    logits = model.llm_model(inputs_embeds=embeds, use_cache=False).logits

The speech decoder of the checkpoint (`tts_lm_model`, `llm2tts`, `llm_ln`) is neither built nor read.
Layout and numbers: CASIA-LM/OpenS2S, arXiv 2507.05177; the tests hold them against the published code's own output.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import Qwen2AudioEncoderConfig, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from voicepatch.errors import UserError
from voicepatch.models.checkpoint import StoredTensor, is_finite, read_tensors, stored_tensors
from voicepatch.models.devices import pick_device, pick_dtype
from voicepatch.models.families import family_of
from voicepatch.models.folder import checkpoint_folder, read_config

# transformers checks some values of a configuration itself; on the others it stumbles in as many ways.
UNUSABLE_VALUE = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError
)  # fmt: skip
KERNEL_SIZES = r"\s*[1-9]\d?\s*(,\s*[1-9]\d?\s*){0,7}"
TIED_HEAD = "llm_model.lm_head.weight"


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


class OpenS2S(nn.Module):
    """Audio encoder, adapter and LLM of OpenS2S, under the names that the checkpoint gives them.

    `config` is the checkpoint's `config.json`. Raises `UserError` where it describes something else.
    """

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        check_config(config)
        kernels = [int(k) for k in config["conv_kernel_sizes"].split(",")]
        with _usable("audio_encoder_config"):
            encoder = Qwen2AudioEncoder(_values(config["audio_encoder_config"], Qwen2AudioEncoderConfig))
        with _usable("llm_config"):
            llm = Qwen3ForCausalLM(_values(config["llm_config"], Qwen3Config))
        with _usable("adapter_inner_dim"):
            adapter = AudioAdapter(encoder.config.d_model, llm.config.hidden_size, config["adapter_inner_dim"], kernels)
        self.audio_encoder_model, self.audio_adapter, self.llm_model = encoder, adapter, llm

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
            length += encoder_length(frames)
            window = window.to(weight.device, weight.dtype)[None]
            outputs.append(self.audio_encoder_model(window).last_hidden_state)
        return self.audio_adapter(torch.cat(outputs, dim=1)[:, :length])[0]


def encoder_length(n_frames: int) -> int:
    """Encoder positions that `n_frames` mel frames of one window give: the conv's stride, then the pool."""
    return ((n_frames - 1) // 2 + 1 - 2) // 2 + 1


def audio_length(n_frames: int, window_frames: int, n_convs: int) -> int:
    """Positions in the LLM that a clip of `n_frames` mel frames takes: 6.25 a second for OpenS2S."""
    full, rest = divmod(n_frames, window_frames)
    n = full * encoder_length(window_frames) + (encoder_length(rest) if rest else 0)
    for _ in range(n_convs):
        n = (n - 1) // 2 + 1
    return n


def check_config(config: dict[str, Any]) -> None:
    """Raise `UserError` where `config.json` does not describe an OpenS2S model that this program can load."""
    for key in ("audio_encoder_config", "llm_config", "conv_kernel_sizes", "adapter_inner_dim"):
        if key not in config:
            raise UserError(f"config.json has no {key!r}: this is not an OpenS2S checkpoint")
    if config.get("lora_config") is not None:
        raise UserError("config.json has a lora_config: merge the LoRA weights into the model first")
    for part, expected in (("audio_encoder_config", "qwen2_audio_encoder"), ("llm_config", "qwen3")):
        if not isinstance(config[part], dict):
            raise UserError(f"config.json: {part} should be an object; fetch the file again")
        found = config[part].get("model_type")
        if found != expected:
            raise UserError(f"config.json: {part} has model_type {found!r}, but only {expected!r} is supported")
    kernels, inner = config["conv_kernel_sizes"], config["adapter_inner_dim"]
    if not isinstance(kernels, str) or not re.fullmatch(KERNEL_SIZES, kernels, flags=re.ASCII):
        raise UserError(f'config.json: conv_kernel_sizes is {kernels!r}, but should be kernel sizes such as "5,5"')
    if type(inner) is not int or inner < 1:
        raise UserError(f"config.json: adapter_inner_dim is {inner!r}, but should be a whole number above 0")
    epsilon = config["llm_config"].get("rms_norm_eps", 1e-6)
    if type(epsilon) is not float or not 0 < epsilon < 1:
        raise UserError(f"config.json: llm_config has rms_norm_eps {epsilon!r}, but it should be small, such as 1e-06")


def check_depth(config: dict[str, Any], n_tensors: int) -> None:
    """Raise `UserError` for more blocks than the files have tensors, before a module is made for each of them."""
    for part, key in (("llm_config", "num_hidden_layers"), ("audio_encoder_config", "encoder_layers")):
        n_blocks = config[part].get(key)
        if isinstance(n_blocks, int) and n_blocks > n_tensors:
            raise UserError(
                f"config.json: {part} has {key} {n_blocks}, but the weights hold only {n_tensors} tensors; "
                "take both from one checkpoint"
            )


def _values(part: dict[str, Any], config_class: type) -> Any:
    # Other keys are no property of the weights: a number of classes, attention code to be fetched, ...
    known = {*config_class.__annotations__, "rope_theta", "rope_scaling"}
    return config_class(**{key: value for key, value in part.items() if key in known})


@contextmanager
def _usable(part: str) -> Iterator[None]:
    try:
        yield
    except (StrictDataclassError, *UNUSABLE_VALUE) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"config.json: {part} cannot be used ({reason}); fetch the file again") from None


def load_model(source: str | Path, device: str | None = None, dtype: str | None = None) -> OpenS2S:
    """Load a checkpoint folder or hub id, in `eval()` mode.

    `device` defaults to CUDA where there is one, `dtype` to bfloat16 on CUDA and float32 elsewhere, whatever
    the checkpoint was saved in. What the files declare is compared before memory is taken for it.
    Raises `UserError` for a missing folder, a foreign configuration, missing, unexpected or misshapen tensors, and
    values that are not finite.
    """
    target = pick_device(device)
    torch_dtype = pick_dtype(dtype, target)
    folder = checkpoint_folder(source)
    config = read_config(folder)
    check_config(config)
    stored = stored_tensors(folder, family_of(config))
    check_depth(config, len(stored))
    with torch.device("meta"):
        model = OpenS2S(config)
    llm = model.llm_model
    if llm.config.tie_word_embeddings:
        stored.pop(TIED_HEAD, None)
    _check_tensors(folder, model, stored)
    state = read_tensors(stored, target, torch_dtype)
    if llm.config.tie_word_embeddings:
        state[TIED_HEAD] = state["llm_model.model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True, assign=True)
    llm.tie_weights()
    llm.model.rotary_emb = _rotary(llm, target)
    return model.eval().requires_grad_(False)


def _check_tensors(folder: Path, model: OpenS2S, stored: Mapping[str, StoredTensor]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if model.llm_model.config.tie_word_embeddings:
        del expected[TIED_HEAD]
    for name, tensor in stored.items():
        if name in expected and tensor.shape != expected[name]:
            raise UserError(
                f"{tensor.path}: {name} has shape {list(tensor.shape)}, "
                f"but config.json asks for {list(expected[name])}; take both from one checkpoint"
            )
    _refuse("lacks", sorted(expected.keys() - stored.keys()), folder)
    _refuse("has unexpected", sorted(stored.keys() - expected.keys()), folder)


def _refuse(what: str, names: list[str], folder: Path) -> None:
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise UserError(
            f"{folder}: the checkpoint {what} tensors: {', '.join(names[:5])}{more}; fetch the weights and config.json "
            "again, from one checkpoint"
        )


def _rotary(llm: Qwen3ForCausalLM, device: torch.device) -> nn.Module:
    """The rotary frequencies; they are no part of a checkpoint, so `llm` has them on the meta device still."""
    planned = llm.model.rotary_emb
    rotary = None
    if planned.inv_freq.shape == (llm.config.head_dim // 2,):
        rotary = type(planned)(config=llm.config).to(device)
    if rotary is None or not is_finite(rotary.inv_freq) or not (rotary.inv_freq > 0).all():
        raise UserError(
            "config.json: llm_config has rope settings that give no usable frequencies; fetch the file again"
        )
    return rotary
