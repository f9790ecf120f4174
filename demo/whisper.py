"""Whisper tiny.en's encoder out of a CTranslate2 file, under the names of transformers' `Qwen2AudioEncoder`."""

import struct
from pathlib import Path

import numpy as np
import torch

WIDTH, HEADS, INNER, MEL_BINS = 384, 6, 1536, 80
CT2_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a CTranslate2 `model.bin` by name."""
    with path.open("rb") as file:

        def read(form: str) -> tuple:
            return struct.unpack("<" + form, file.read(struct.calcsize("<" + form)))

        def text() -> str:
            return file.read(read("H")[0])[:-1].decode()

        read("I"), text(), read("I")  # version of the format, name and revision of the model
        tensors = {}
        for _ in range(read("I")[0]):
            name = text()
            shape = read("I" * read("B")[0])
            dtype, n_bytes = read("BI")
            tensors[name] = np.frombuffer(file.read(n_bytes), CT2_DTYPES[dtype]).reshape(shape)
    return tensors


def whisper_encoder_state(weights: dict[str, np.ndarray], layers: int, positions: int) -> dict[str, torch.Tensor]:
    """The first `layers` blocks and `positions` of the position table, under `Qwen2AudioEncoder`'s names."""

    def tensor(name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(weights["encoder/" + name], np.float32))

    state = {f"{conv}.{part}": tensor(f"{conv}/{part}") for conv in ("conv1", "conv2") for part in ("weight", "bias")}
    state["embed_positions.weight"] = tensor("position_encodings/encodings")[:positions]
    state["layer_norm.weight"], state["layer_norm.bias"] = tensor("layer_norm/gamma"), tensor("layer_norm/beta")
    for i in range(layers):
        theirs, ours = f"layer_{i}/", f"layers.{i}."
        joined = [tensor(theirs + f"self_attention/linear_0/{part}").chunk(3) for part in ("weight", "bias")]
        for name, weight, bias in zip("qkv", *joined, strict=True):
            state[ours + f"self_attn.{name}_proj.weight"] = weight
            if name != "k":  # Whisper's keys have no bias
                state[ours + f"self_attn.{name}_proj.bias"] = bias
        linears = {"self_attention/linear_1": "self_attn.out_proj", "ffn/linear_0": "fc1", "ffn/linear_1": "fc2"}
        norms = {"self_attention/layer_norm": "self_attn_layer_norm", "ffn/layer_norm": "final_layer_norm"}
        for names, weight, bias in ((linears, "weight", "bias"), (norms, "gamma", "beta")):
            for source, target in names.items():
                state[ours + target + ".weight"] = tensor(theirs + source + "/" + weight)
                state[ours + target + ".bias"] = tensor(theirs + source + "/" + bias)
    return state
