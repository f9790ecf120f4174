"""OpenS2S as modules, and its checkpoint.

    model = load_model("path/to/OpenS2S")             # or a hub id: "CASIA-LM/OpenS2S"
    frames = model.encode(windows, n_frames)          # [n_audio, hidden], one clip
    logits = model.llm_model(inputs_embeds=embeds, use_cache=False).logits

The speech decoder of the checkpoint (`tts_lm_model`, `llm2tts`, `llm_ln`) is neither built nor read.
Layout and numbers: CASIA-LM/OpenS2S, arXiv 2507.05177; the tests hold them against the published code's own output.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import Qwen2AudioEncoderConfig, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from errors import BAD_USAGE, UserError

NEEDED_PARTS = ("audio_encoder_model.", "audio_adapter.", "llm_model.")
# transformers checks some values of a configuration itself; on the others it stumbles in as many ways.
UNUSABLE_VALUE = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError
)  # fmt: skip
INPUT_FILES = ("tokenizer*", "vocab.json", "merges.txt", "added_tokens.json", "*.jinja", "audio/*.json")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
        encoder = _build(config, "audio_encoder_config", Qwen2AudioEncoderConfig, Qwen2AudioEncoder)
        llm = _build(config, "llm_config", Qwen3Config, Qwen3ForCausalLM)
        kernels = [int(k) for k in config["conv_kernel_sizes"].split(",")]
        self.audio_encoder_model = encoder
        self.audio_adapter = AudioAdapter(
            encoder.config.d_model, llm.config.hidden_size, config["adapter_inner_dim"], kernels
        )
        self.llm_model = llm

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
    if not isinstance(kernels, str) or not all(re.fullmatch("[1-9][0-9]?", k.strip()) for k in kernels.split(",")):
        raise UserError(f'config.json: conv_kernel_sizes is {kernels!r}, but should be kernel sizes such as "5,5"')
    if type(inner) is not int or inner < 1:
        raise UserError(f"config.json: adapter_inner_dim is {inner!r}, but should be a whole number above 0")


def _build(config: dict[str, Any], part: str, config_class: type, model_class: type) -> nn.Module:
    try:
        return model_class(config_class(**config[part]))
    except (StrictDataclassError, *UNUSABLE_VALUE) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"config.json: {part} cannot be used ({reason}); fetch the file again") from None


def load_model(source: str | Path, device: str | None = None, dtype: str | None = None) -> OpenS2S:
    """Load a checkpoint folder or hub id, in `eval()` mode.

    `device` defaults to CUDA where there is one, `dtype` to bfloat16 on CUDA and float32 elsewhere, whatever
    the checkpoint was saved in. Tensors go to the device one by one, so host memory holds no second copy.
    Raises `UserError` for a missing folder, foreign configuration, or missing, unexpected or misshapen tensors.
    """
    target = pick_device(device)
    torch_dtype = pick_dtype(dtype, target)
    folder = checkpoint_folder(source)
    config = read_config(folder)
    with torch.device("meta"):
        model = OpenS2S(config)
    state = _read_weights(folder, model, target, torch_dtype)
    model.load_state_dict(state, strict=True, assign=True)
    llm = model.llm_model
    llm.tie_weights()
    # The rotary frequencies are no part of a checkpoint, so they are still on the meta device.
    llm.model.rotary_emb = type(llm.model.rotary_emb)(config=llm.config).to(target)
    return model.eval().requires_grad_(False)


def pick_device(device: str | None) -> torch.device:
    """The device to run on; raises `UserError` for one that this machine does not have."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError:
        raise UserError(f"--device {device}: unknown device; use cpu, cuda or cuda:N", BAD_USAGE) from None
    available = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (target.index or 0) >= available.get(target.type, 0):
        raise UserError(f"--device {device}: no such device on this machine; use --device cpu", BAD_USAGE)
    return target


def pick_dtype(dtype: str | None, device: torch.device) -> torch.dtype:
    """The dtype named, or bfloat16 on CUDA and float32 elsewhere."""
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: unknown; use one of {', '.join(DTYPES)}", BAD_USAGE)
    return DTYPES[dtype]


def checkpoint_folder(source: str | Path) -> Path:
    """The local folder of a checkpoint; a hub id is fetched, without the speech decoder, as far as it is needed."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"--model {source}: is a file; name the checkpoint folder that holds config.json")
    name = str(source)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(f"--model {source}: no such folder, and not a hub id of the form OWNER/NAME")
    return _fetch(name)


def _fetch(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError

    # A `*` of these patterns matches slashes too, so `tts/` must be named to be left out.
    small = {"allow_patterns": ["*.json", "*.txt", "*.jinja"], "ignore_patterns": ["tts/*"]}
    try:
        folder = Path(snapshot_download(hub_id, **small))
        snapshot_download(hub_id, allow_patterns=_weight_files(folder) or ["model.safetensors"])
    except (HTTPError, HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"--model {hub_id}: could not be fetched ({reason[:120]}). Without a network, put config.json, "
            "*.safetensors (with model.safetensors.index.json if sharded), the tokenizer's files and "
            "audio/preprocessor_config.json into one folder and pass it: --model FOLDER"
        ) from None
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's `config.json`."""
    return _read_json(folder / "config.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; a checkpoint folder holds it beside model.safetensors") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: is not readable JSON ({error}); fetch the file again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: should hold a JSON object; fetch the file again")
    return content


def _needed(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(NEEDED_PARTS)]


def _weight_files(folder: Path) -> list[str]:
    """Names of the safetensors files that hold a needed tensor."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        weight_map = _read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise UserError(f"{index}: weight_map should give a file name for each tensor; fetch the file again")
        return sorted({weight_map[name] for name in _needed(weight_map)})
    return ["model.safetensors"] if (folder / "model.safetensors").exists() else []


def weight_paths(folder: Path) -> list[Path]:
    """The safetensors files to read; `UserError` where there are none or one is missing. Pickles are never read."""
    names = _weight_files(folder)
    if not names:
        pickled = "; pickled weights (*.bin, *.pt) are refused, convert them" if _has_pickle(folder) else ""
        raise UserError(
            f"{folder}: no model.safetensors, and no model.safetensors.index.json with the model's tensors{pickled}"
        )
    for name in names:
        if Path(name).name != name:
            raise UserError(f"{folder}/model.safetensors.index.json: names a file outside the folder: {name}")
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: missing, but model.safetensors.index.json names it; fetch it")
    return [folder / name for name in names]


def _has_pickle(folder: Path) -> bool:
    return any(path.suffix in {".bin", ".pt", ".pth", ".ckpt"} for path in folder.iterdir())


def _read_weights(folder: Path, model: OpenS2S, device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    state: dict[str, torch.Tensor] = {}
    for path in weight_paths(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in _needed(file.keys()):
                    shape = tuple(file.get_slice(name).get_shape())
                    if name in expected and shape != expected[name]:
                        raise UserError(
                            f"{path}: {name} has shape {list(shape)}, but config.json asks for {list(expected[name])}"
                        )
                    state[name] = file.get_tensor(name).to(device, dtype)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a readable safetensors file ({error}); fetch it again") from None
    if model.llm_model.config.tie_word_embeddings and "llm_model.model.embed_tokens.weight" in state:
        state["llm_model.lm_head.weight"] = state["llm_model.model.embed_tokens.weight"]
    _refuse("lacks", sorted(expected.keys() - state.keys()), folder)
    _refuse("has unexpected", sorted(state.keys() - expected.keys()), folder)
    return state


def _refuse(what: str, names: list[str], folder: Path) -> None:
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise UserError(f"{folder}: the checkpoint {what} tensors: {', '.join(names[:5])}{more}")


def checkpoint_hash(folder: Path) -> str:
    """sha256 over every file that is read (configuration, weights, tokenizer, features), in a fixed order."""
    digest = hashlib.sha256()
    small = [path for pattern in INPUT_FILES for path in sorted(folder.glob(pattern))]
    for path in [folder / "config.json", *weight_paths(folder), *small]:
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
