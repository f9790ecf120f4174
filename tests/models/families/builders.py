"""A tiny checkpoint of each family, and what the outer class of transformers is fed with for a sound.

A builder writes a folder and gives the outer model and `inputs(ids, waveform)`: the arguments of its forward, with the
features of the class that its own processor uses, over all that the processor pads.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from safetensors.torch import save_file
from torch import nn

from tests.models.families.tiny import (
    HIDDEN,
    N_LAYERS,
    TEXT,
    WHISPER,
    write_extractor,
    write_model,
    write_tokenizer,
)
from voicepatch.models.granite_speech import log_mel_pairs
from voicepatch.models.speech_lm import ClipInput

IM = ("<|im_start|>", "<|im_end|>")
RATE = {"sampling_rate": 16_000, "return_tensors": "pt", "return_attention_mask": True}


@dataclass
class Tiny:
    """A checkpoint's folder, the model that was saved in it, and what it is fed with."""

    folder: Path
    outer: nn.Module
    inputs: Callable[[np.ndarray], dict[str, Any]]
    sound: int
    scale: float = 1.0
    has_types: bool = False  # whether the processor marks positions of sound with type 3

    @property
    def text(self) -> nn.Module:
        return getattr(self.outer.model, "language_model", self.outer.model)

    def logits(self, clip: ClipInput, waveform: np.ndarray) -> torch.Tensor:
        """Last logits `[vocabulary]` of the outer class, from ids in which the sound's token stands for each frame."""
        ids = clip.input_ids.clone()
        ids[ids < 0] = self.sound
        given = {"input_ids": ids[None], "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        if self.has_types:
            given["mm_token_type_ids"] = 3 * (given["input_ids"] == self.sound).long()
        return self.outer(**given, **self.inputs(waveform), use_cache=False).logits[0, -1] / self.scale


def qwen2_audio(folder):
    ids = write_tokenizer(folder, [*IM, "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"])
    write_extractor(folder)
    config = hf.Qwen2AudioConfig(
        audio_config=WHISPER | {"model_type": "qwen2_audio_encoder"},
        text_config=TEXT | {"model_type": "qwen2"},
        audio_token_index=ids["<|AUDIO|>"],
    )
    outer = write_model(hf.Qwen2AudioForConditionalGeneration(config), folder)
    extractor = hf.WhisperFeatureExtractor(feature_size=128)

    def inputs(waveform):
        found = extractor(waveform, padding="max_length", **RATE)
        return {"input_features": found.input_features, "feature_attention_mask": found.attention_mask}

    return Tiny(folder, outer, inputs, ids["<|AUDIO|>"])


VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": HIDDEN}
MROPE = {"rope_type": "default", "rope_theta": 1e6}


def qwen25_omni(folder):
    ids = write_tokenizer(folder, [*IM, "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>", "<|IMAGE|>", "<|VIDEO|>"])
    write_extractor(folder, chunk_length=300)
    config = hf.Qwen2_5OmniThinkerConfig(
        audio_config=WHISPER | {"output_dim": HIDDEN},
        vision_config=VISION,
        text_config=TEXT | {"rope_parameters": MROPE | {"mrope_section": [2, 3, 3]}},
        audio_token_id=ids["<|AUDIO|>"],
        image_token_id=ids["<|IMAGE|>"],
        video_token_id=ids["<|VIDEO|>"],
        vision_start_token_id=1,
        audio_start_token_id=ids["<|audio_bos|>"],
    )
    outer = write_model(hf.Qwen2_5OmniThinkerForConditionalGeneration(config), folder)
    extractor = hf.WhisperFeatureExtractor(feature_size=128, chunk_length=300)

    def inputs(waveform):
        found = extractor(waveform, padding="max_length", **RATE)
        return {"input_features": found.input_features, "feature_attention_mask": found.attention_mask}

    return Tiny(folder, outer, inputs, ids["<|AUDIO|>"])


def qwen3_omni(folder):
    sounds = ["<|audio_start|>", "<|audio_pad|>", "<|audio_end|>"]
    ids = write_tokenizer(folder, [*IM, *sounds, "<|image_pad|>", "<|video_pad|>"])
    write_extractor(folder)
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
    config = hf.Qwen3OmniMoeThinkerConfig(
        audio_config=WHISPER | {"output_dim": HIDDEN, "downsample_hidden_size": 16},
        vision_config=VISION | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        text_config=TEXT | experts | {"rope_parameters": MROPE | {"mrope_section": [2, 3, 3]}},
        audio_token_id=ids["<|audio_pad|>"],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=1,
        audio_start_token_id=ids["<|audio_start|>"],
    )
    outer = write_model(hf.Qwen3OmniMoeThinkerForConditionalGeneration(config), folder)
    extractor = hf.WhisperFeatureExtractor(feature_size=128)

    def inputs(waveform):
        found = extractor(waveform, padding=True, truncation=False, **RATE)
        return {"input_features": found.input_features, "feature_attention_mask": found.attention_mask}

    return Tiny(folder, outer, inputs, ids["<|audio_pad|>"])


def audio_flamingo3(folder, config=hf.AudioFlamingo3Config, cls=hf.AudioFlamingo3ForConditionalGeneration, **settings):
    ids = write_tokenizer(folder, [*IM, "<|sound_bos|>", "<sound>", "<|sound_eos|>"])
    write_extractor(folder)
    encoder = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    made = config(
        audio_config=WHISPER | encoder | {"model_type": "audioflamingo3_encoder"},
        text_config=TEXT | {"model_type": "qwen2"},
        audio_token_id=ids["<sound>"],
        **settings,
    )
    outer = write_model(cls(made), folder)
    extractor = hf.WhisperFeatureExtractor(feature_size=128)

    def inputs(waveform):
        windows = [waveform[start : start + 480_000] for start in range(0, len(waveform), 480_000)]
        found = extractor(windows, **RATE)
        return {"input_features": found.input_features, "input_features_mask": found.attention_mask}

    return Tiny(folder, outer, inputs, ids["<sound>"])


def music_flamingo(folder):
    rotary = {"rope_type": "default", "rope_theta": 1200, "partial_rotary_factor": 0.5}
    return audio_flamingo3(
        folder, hf.MusicFlamingoConfig, hf.MusicFlamingoForConditionalGeneration, rope_parameters=rotary
    )


def write_tekken(folder):
    """256 bytes, three merges and some special tokens, in Mistral's format."""
    plain = [bytes([byte]) for byte in range(256)] + [b"an", b"ang", b"su"]
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", *(f"<SPECIAL_{i}>" for i in range(5, 40))]
    special[24:26] = ["[AUDIO]", "[BEGIN_AUDIO]"]
    content = {
        "config": {
            "pattern": r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+",
            "num_vocab_tokens": len(plain),
            "default_vocab_size": len(plain) + len(special),
            "default_num_special_tokens": len(special),
            "version": "v7",
        },
        "vocab": [
            {"rank": i, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
            for i, token in enumerate(plain)
        ],
        "special_tokens": [{"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(special)],
    }
    (folder / "tekken.json").write_text(json.dumps(content))


def voxtral(folder):
    write_tekken(folder)
    write_extractor(folder)
    encoder = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = hf.VoxtralConfig(
        audio_config=encoder | {"num_mel_bins": 128, "max_source_positions": 1500, "vocab_size": 10},
        text_config=TEXT | {"model_type": "llama", "head_dim": 16},
        audio_token_id=24,
    )
    outer = write_model(hf.VoxtralForConditionalGeneration(config), folder)
    extractor = hf.WhisperFeatureExtractor(feature_size=128)

    def inputs(waveform):
        mel = extractor(waveform, padding=True, pad_to_multiple_of=480_000, truncation=False, **RATE).input_features
        return {"input_features": mel.reshape(128, -1, 3000).transpose(0, 1)}

    return Tiny(folder, outer, inputs, 24)


def write_lora(folder, outer, prefix, targets, rank=4, alpha=12):
    """A LoRA for these projections, which is then merged into `outer` in another way than the loader's."""
    folder.mkdir(exist_ok=True)
    tensors, generator = {}, torch.Generator().manual_seed(1)
    for name, module in outer.model.named_modules():
        if name.endswith(targets) and isinstance(module, nn.Linear) and "embed_tokens_extend" not in name:
            a = torch.randn(rank, module.in_features, generator=generator) * 0.1
            b = torch.randn(module.out_features, rank, generator=generator) * 0.1
            key = f"{prefix}layers.{name.partition('layers.')[2]}"
            tensors |= {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}
            module.weight.data += torch.einsum("or,ri->oi", b, a) * alpha / rank
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "bias": "none", "base_model_name_or_path": "x"}
    settings["target_modules"] = list(targets)
    (folder / "adapter_config.json").write_text(json.dumps(settings))


def granite_speech(
    folder, lora=True, config=hf.GraniteSpeechConfig, cls=hf.GraniteSpeechForConditionalGeneration, cat_layers=None
):
    ids = write_tokenizer(folder, ["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "<|audio|>"])
    settings = {"sampling_rate": 16_000, "melspec_kwargs": {"n_fft": 512}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    small = {"num_layers": 2, "hidden_dim": 32, "num_heads": 2, "output_dim": 8, "conv_kernel_size": 5}
    small |= {} if cat_layers is None else {"cat_hidden_layers": cat_layers}
    width = 32 * (1 + len(cat_layers or ()))
    former = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    scales = {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 4.0}
    made = config(
        encoder_config=small | {"input_dim": 160, "context_size": 50, "max_pos_emb": 64},
        projector_config=former
        | {"model_type": "blip_2_qformer", "encoder_hidden_size": width, "cross_attention_frequency": 1},
        text_config=TEXT | scales | {"model_type": "granite"},
        audio_token_index=ids["<|audio|>"],
        has_lora_adapter=lora,
    )
    outer = write_model(cls(made), folder)
    if lora:
        write_lora(folder, outer, "base_model.model.language_model.model.", ("q_proj", "v_proj"))

    def inputs(waveform):  # torchaudio, which the feature extractor needs, is not here; test_mel.py holds the mel alone
        return {"input_features": log_mel_pairs(torch.from_numpy(waveform))[None]}

    return Tiny(folder, outer, inputs, ids["<|audio|>"], scale=8.0)


def granite_speech_plus(folder):
    classes = hf.GraniteSpeechPlusConfig, hf.GraniteSpeechPlusForConditionalGeneration
    return granite_speech(folder, False, *classes, cat_layers=[0, 1])


def gemma4_unified(folder):
    """Block 0 attends to fewer positions than a clip has; the others to all, with heads of another width."""
    marks = ["<bos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|audio>", "<|audio|>", "<audio|>"]
    ids = write_tokenizer(folder, [*marks, "<|image|>", "<|video|>"])
    hf.Gemma4UnifiedAudioFeatureExtractor().save_pretrained(folder)
    types = ["sliding_attention", "full_attention", "full_attention"]
    full = {"global_head_dim": 32, "num_global_key_value_heads": 1, "attention_k_eq_v": True}
    config = hf.Gemma4UnifiedConfig(
        text_config=TEXT | full | {"head_dim": 16, "layer_types": types, "sliding_window": 20, "pad_token_id": 0,
                                   "final_logit_softcapping": 3.0},
        vision_config={"patch_size": 2, "pooling_kernel_size": 1, "mm_embed_dim": 32, "mm_posemb_size": 8},
        audio_config={},
        audio_token_id=ids["<|audio|>"],
        image_token_id=ids["<|image|>"],
        video_token_id=ids["<|video|>"],
    )  # fmt: skip
    outer = hf.Gemma4UnifiedForConditionalGeneration(config)
    for block in outer.model.language_model.layers:
        block.layer_scalar.fill_(0.7)
    outer = write_model(outer, folder)
    extractor = hf.Gemma4UnifiedAudioFeatureExtractor()

    def inputs(waveform):
        found = extractor(waveform, return_tensors="pt")
        return {"input_features": found.input_features, "input_features_mask": found.input_features_mask}

    return Tiny(folder, outer, inputs, ids["<|audio|>"], has_types=True)


def phi4_multimodal(folder, n_layers=N_LAYERS):
    ids = write_tokenizer(folder, ["<|user|>", "<|end|>", "<|assistant|>", "<|endoftext10|>", "<|endoftext11|>"])
    hf.Phi4MultimodalFeatureExtractor().save_pretrained(folder)
    small = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    conformer = {"ext_pw_out_channel": 32, "depthwise_separable_out_channel": 32, "nemo_conv_channels": 16}
    config = hf.Phi4MultimodalConfig(
        **TEXT | {"num_hidden_layers": n_layers},
        audio_config=small | conformer | {"num_blocks": 2, "audio_token_id": ids["<|endoftext11|>"]},
        vision_config=small | {"num_hidden_layers": 3, "image_token_id": ids["<|endoftext10|>"]},
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    outer = write_model(hf.Phi4MultimodalForCausalLM(config), folder)
    projections = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    write_lora(folder / "speech-lora", outer, "base_model.model.model.", projections)
    extractor = hf.Phi4MultimodalFeatureExtractor()

    def inputs(waveform):
        found = extractor(waveform, sampling_rate=16_000, return_tensors="pt")
        return {"audio_input_features": found.audio_input_features, "audio_embed_sizes": found.audio_embed_sizes}

    return Tiny(folder, outer, inputs, ids["<|endoftext11|>"])


BUILDERS = {
    "Qwen2-Audio": qwen2_audio,
    "Qwen2.5-Omni": qwen25_omni,
    "Qwen3-Omni": qwen3_omni,
    "Audio Flamingo 3": audio_flamingo3,
    "Music Flamingo": music_flamingo,
    "Gemma 4 12B": gemma4_unified,
    "Voxtral": voxtral,
    "Granite Speech": granite_speech,
    "Granite Speech plus": granite_speech_plus,
    "Phi-4-multimodal": phi4_multimodal,
}
