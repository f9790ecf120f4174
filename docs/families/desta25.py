"""DeSTA2.5-Audio (DeSTA-ntu): Whisper's encoder, a Q-Former that reads four of its layers, and a Llama decoder.

    python cli.py check --plugin docs/families/desta25.py --model FOLDER

FOLDER has the published files, which are those of the Q-Former alone. Put Llama into FOLDER/llm and Whisper into
FOLDER/whisper (`llm_model_id` and `encoder_model_id` in config.json).

The published code also writes Whisper's transcript behind the 64 positions of the sound. That is text and differs from
clip to clip. Here it is one space, which the published code writes for a clip without speech.
Source: github.com/kehanlu/DeSTA2.5-Audio 5503dfc, desta/models/modeling_desta25.py. Frames and logits are equal.
"""

import copy
import json
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BertConfig, WhisperConfig
from transformers.models.bert.modeling_bert import BertEncoder
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from voicepatch import Turn, family, load_module, log_mel, read_extractor, read_prompt, whisper_states
from voicepatch.errors import UserError

LAYERS = {  # the layers of Whisper that the Q-Former reads
    "openai/whisper-tiny": (0, 1, 2, 3),
    "openai/whisper-small": (2, 5, 8, 11),
    "openai/whisper-medium": (5, 11, 17, 23),
    "openai/whisper-large-v3": (7, 15, 23, 31),
}
SOUND = "<|AUDIO|>"
TURN = Turn("Focus on the audio clips and instructions.", None, message="<start_audio>{sound}<end_audio>\n{question}")


class Connector(nn.Module):
    def __init__(self, config: dict, audio: WhisperConfig, hidden: int):
        super().__init__()
        n_prompts, n_layers, width = config["prompt_size"], 4, audio.d_model
        self.layer_prompts = nn.ParameterList(nn.Parameter(torch.empty(1, n_prompts, width)) for _ in range(n_layers))
        self.layer_weights = nn.Parameter(torch.empty(n_prompts, n_layers))
        bert = BertConfig(
            num_hidden_layers=config["qformer_num_hidden_layers"],
            num_attention_heads=audio.encoder_attention_heads,
            hidden_size=width,
            add_cross_attention=True,
            is_decoder=True,
        )
        bert._attn_implementation = "eager"  # every query reads every other one; sdpa would make a decoder causal
        self.qformer = BertEncoder(bert)
        self.proj = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden))

    def forward(self, states: list[torch.Tensor]) -> torch.Tensor:
        """States `[1, n, width]` of the layers to frames `[prompt_size, hidden]`."""
        read = [
            self.qformer(prompt, encoder_hidden_states=state).last_hidden_state[0]
            for prompt, state in zip(self.layer_prompts, states, strict=True)
        ]
        weights = self.layer_weights.softmax(dim=-1)[..., None]
        return self.proj((torch.stack(read, dim=1) * weights).sum(dim=1))


class Desta25:
    max_samples = 480_000  # Whisper's window

    def __init__(self, llm, encoder, connector, layers, extractor, read):
        self.llm, self.encoder, self.connector, self.layers = llm, encoder, connector, layers
        self.extractor, self.read = extractor, read

    def ask(self, question, labels):
        model = copy.copy(self)
        model.tokenizer, prompt = self.read(question, [*labels, " "])
        model.prompt = replace(prompt, after=[*model.tokenizer.encode(" "), *prompt.after])
        return model

    def features(self, waveform):
        return log_mel(self.extractor, waveform[: self.max_samples])[0]

    def encode(self, features):
        states = whisper_states(self.encoder, features)
        return self.connector([states[layer] for layer in self.layers])

    def embed(self, ids):
        return self.llm.get_input_embeddings()(torch.tensor(list(ids), device=self.llm.device))

    def n_audio(self, n_samples):
        return len(self.connector.layer_weights)

    def reference(self, waveform):
        """As in the published forward: frames and transcript replace the embeddings of a placeholder."""
        frames, start = self.encode(self.features(waveform)), len(self.prompt.before)
        space = self.embed(self.prompt.after[:1])
        ids = torch.tensor([[*self.prompt.before, *[0] * (len(frames) + 1), *self.prompt.after[1:]]])
        embeds = self.llm.get_input_embeddings()(ids.to(self.llm.device))
        embeds[0, start : start + len(frames) + 1] = torch.cat([frames, space])
        return self.llm(inputs_embeds=embeds, attention_mask=torch.ones_like(embeds[..., 0])).logits[0, -1]


@family(model_type="desta25", max_audio_length="30 s", hub_ids=("DeSTA-ntu/DeSTA2.5-Audio-Llama-3.1-8B",))
def load(folder, device, dtype, question, labels):
    """DeSTA2.5-Audio: Whisper's encoder, a Q-Former over four of its layers and a Llama decoder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if (
        config.get("use_lora")
        or config.get("connector_mode") != "qformer_1"
        or config["encoder_model_id"] not in LAYERS
    ):
        raise UserError(
            f"{folder}/config.json: use_lora, connector_mode or encoder_model_id is not known to this plugin"
        )
    for part, key in (("llm", "llm_model_id"), ("whisper", "encoder_model_id")):
        if not (folder / part).is_dir():
            raise UserError(f"{folder / part}: missing; put the model {config.get(key)} there")
    audio, text = WhisperConfig.from_pretrained(folder / "whisper"), AutoConfig.from_pretrained(folder / "llm")
    load = partial(load_module, device=device, dtype=dtype)
    model = Desta25(
        load(partial(AutoModelForCausalLM.from_config, text), (folder / "llm", "")),
        load(partial(WhisperEncoder, audio), (folder / "whisper", "model.encoder.")),
        load(partial(Connector, config, audio, text.hidden_size), (folder, "perception.connector.")),
        LAYERS[config["encoder_model_id"]],
        read_extractor(folder / "whisper", audio.num_mel_bins, 2 * audio.max_source_positions),
        partial(read_prompt, folder / "llm", SOUND, TURN),
    )
    return model.ask(question, labels)
