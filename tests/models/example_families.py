"""Tiny random checkpoints of the plugins in docs/own-model.md and docs/families, with their names of tensors."""

import json
import re
from pathlib import Path

import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from tests.models.families.tiny import TEXT, WHISPER, write_extractor, write_model, write_tokenizer

DOCS = Path(__file__).parents[2] / "docs"
LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
LLAMA_TEMPLATE = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
WHISPER_FULL = WHISPER | {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 48, "vocab_size": 8}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}


def drawn(shapes, prefix=""):
    """Random tensors of these shapes by name; norms are around 1."""
    generator = torch.Generator().manual_seed(1)
    made = {}
    for name, shape in shapes.items():
        scale, mean = (0.05, 1.0) if "ln_" in name or len(shape) == 1 else (1.2 / shape[-1] ** 0.5, 0.0)
        made[prefix + name] = torch.randn(shape, generator=generator) * scale + mean
    return made


def write_parts(folder, whisper):
    """A Llama decoder in `llm` and a complete Whisper in `whisper`."""
    for name in ("llm", "whisper"):
        (folder / name).mkdir()
    write_model(hf.LlamaForCausalLM(hf.LlamaConfig(**TEXT, tie_word_embeddings=True)), folder / "llm")
    write_model(hf.WhisperForConditionalGeneration(hf.WhisperConfig(**whisper, **SPECIAL)), folder / "whisper")
    write_extractor(folder / "whisper")


def write_llama_tokenizer(folder):
    write_tokenizer(folder, LLAMA)
    (folder / "chat_template.jinja").write_text(LLAMA_TEMPLATE)


def ultravox(folder, version=0.5):
    """The projector alone, beside the two models that it was trained on."""
    write_parts(folder, WHISPER_FULL)
    write_llama_tokenizer(folder)
    middle = version >= 0.5
    shapes = {"ln_pre.weight": (256,), "linear_1.weight": (48, 256), "linear_2.weight": (64, 24)}
    shapes |= {"ln_mid.weight": (24,)} if middle else {"ln_post.weight": (64,)}
    save_file(drawn(shapes, "multi_modal_projector."), folder / "model.safetensors")
    config = {"model_type": "ultravox", "stack_factor": 8, "hidden_size": 48, "projector_act": "swiglu"}
    config |= {"projector_ln_mid": middle, "text_model_id": "llama", "audio_model_id": "openai/whisper-tiny"}
    (folder / "config.json").write_text(json.dumps(config))


def ultravox_complete(folder):
    """All weights in one file, as version 0.4."""
    ultravox(folder, version=0.4)
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | {"text_model_id": None, "audio_model_id": None}
    for part, prefix, stored, key in (
        ("llm", "language_model.", "", "text_config"),
        ("whisper", "audio_tower.", "model.encoder.", "audio_config"),
    ):
        weights = folder / part / "model.safetensors"
        for name, tensor in load_file(weights).items():
            if name.startswith(stored):
                tensors[prefix + name.removeprefix(stored)] = tensor
        config[key] = json.loads((folder / part / "config.json").read_text())
        for path in sorted((folder / part).iterdir()):
            path.unlink()
        (folder / part).rmdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def desta25(folder):
    write_parts(folder, WHISPER_FULL | {"encoder_layers": 4})
    write_llama_tokenizer(folder / "llm")
    shapes = {f"layer_prompts.{i}": (1, 6, 32) for i in range(4)} | {"layer_weights": (6, 4)}
    shapes |= {"proj.0.weight": (32,), "proj.0.bias": (32,), "proj.1.weight": (64, 32), "proj.1.bias": (64,)}
    for layer in range(2):
        at = f"qformer.layer.{layer}."
        for attention in ("attention", "crossattention"):
            names = {name: (32, 32) for name in ("self.query", "self.key", "self.value", "output.dense")}
            for name, shape in names.items():
                shapes |= {f"{at}{attention}.{name}.weight": shape, f"{at}{attention}.{name}.bias": shape[:1]}
        for name, shape in (("intermediate.dense", (3072, 32)), ("output.dense", (32, 3072))):
            shapes |= {f"{at}{name}.weight": shape, f"{at}{name}.bias": shape[:1]}
        for name in ("attention.output", "crossattention.output", "output"):
            shapes |= {f"{at}{name}.LayerNorm.{part}": (32,) for part in ("weight", "bias")}
    save_file(drawn(shapes, "perception.connector."), folder / "model.safetensors")
    config = {"model_type": "desta25", "encoder_model_id": "openai/whisper-tiny", "prompt_size": 6}
    config |= {"qformer_num_hidden_layers": 2, "connector_mode": "qformer_1", "llm_model_id": "llama"}
    (folder / "config.json").write_text(json.dumps(config))


def minicpm_o(folder):
    special = ["<|im_start|>", "<|im_end|>", "<|audio_start|>", "<|audio_end|>", "<|spk_bos|>", "<|spk|>"]
    custom = {"tokenizer_class": "MiniCPMOTokenizerFast"}
    code = {"auto_map": {"AutoTokenizer": [None, "tokenization_minicpmo_fast.MiniCPMOTokenizerFast"]}}
    write_tokenizer(folder, [*special, "<|spk_eos|>", "<|tts_bos|>", "<unk>"], **custom, **code)
    write_extractor(folder)
    text = write_model(hf.Qwen2ForCausalLM(hf.Qwen2Config(**TEXT)), folder)
    tensors = {f"llm.{name}": tensor for name, tensor in text.state_dict().items()}
    whisper = WHISPER | {"encoder_ffn_dim": 128}
    encoder = write_model(WhisperEncoder(hf.WhisperConfig(**whisper)), folder)
    tensors |= {f"apm.{name}": tensor for name, tensor in encoder.state_dict().items()}
    shapes = {"linear1.weight": (64, 32), "linear1.bias": (64,), "linear2.weight": (64, 64), "linear2.bias": (64,)}
    tensors |= drawn(shapes, "audio_projection_layer.") | drawn({"head.weight": (4, 4)}, "tts.")
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    config = {"model_type": "minicpmo", "version": "2.6", "audio_pool_step": 2, "audio_chunk_length": 1.0}
    config |= TEXT | {"chunk_input": True, "audio_config": whisper, "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(config))


def my_model(folder):
    write_parts(folder, WHISPER_FULL)
    write_llama_tokenizer(folder / "llm")
    save_file(drawn({"weight": (64, 32), "bias": (64,)}, "projector."), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "my_model"}))


def plugin_of(name, folder):
    """The plugin file of an example; that of docs/own-model.md is written into a folder."""
    if name != "my_model":
        return DOCS / "families" / f"{name.partition(',')[0]}.py"
    path = folder / "my_model.py"
    code = re.search(r"```python\n(# my_model.py\n.*?)```", (DOCS / "own-model.md").read_text(encoding="utf-8"), re.S)
    path.write_text(code[1], encoding="utf-8")
    return path


BUILDERS = {
    "my_model": my_model,
    "ultravox": ultravox,
    "ultravox, complete": ultravox_complete,
    "desta25": desta25,
    "minicpm_o": minicpm_o,
}
