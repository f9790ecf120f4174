"""Ultravox (fixie-ai, MIT): Whisper's encoder, a projector over stacked states, and a text model.

    python cli.py check --plugin docs/families/ultravox.py --model FOLDER

FOLDER has the published files. If its weights lack the text model (`text_model_id` in config.json), put that model into
FOLDER/llm; if they lack the encoder (`audio_model_id`), put Whisper into FOLDER/whisper.
Source: github.com/fixie-ai/ultravox 648efe7, ultravox/model. Frames equal those of that code;
logits differ by 2e-5 of 13.
"""

import copy
import json
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, WhisperConfig, WhisperFeatureExtractor
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from voicepatch import Turn, family, load_module, read_prompt, whisper_states
from voicepatch.errors import UserError

HOP, WINDOW = 160, 3000  # samples of a mel frame, and mel frames of Whisper's window
TURN = Turn(None, None, message="{sound}\n\n{question}")


class Projector(nn.Module):
    def __init__(self, width: int, hidden: int, out: int, norm_in_the_middle: bool):
        super().__init__()
        self.ln_pre = LlamaRMSNorm(width)
        self.linear_1 = nn.Linear(width, hidden, bias=False)
        self.linear_2 = nn.Linear(hidden // 2, out, bias=False)
        self.ln_mid = LlamaRMSNorm(hidden // 2) if norm_in_the_middle else nn.Identity()  # since version 0.5
        self.ln_post = nn.Identity() if norm_in_the_middle else LlamaRMSNorm(out)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        x, gate = self.linear_1(self.ln_pre(states)).chunk(2, dim=-1)
        return self.ln_post(self.linear_2(self.ln_mid(F.silu(gate) * x)))


class Ultravox:
    max_samples = None

    def __init__(self, llm, encoder, projector, stack, read):
        self.llm, self.encoder, self.projector, self.stack, self.read = llm, encoder, projector, stack, read
        self.extractor = WhisperFeatureExtractor(feature_size=encoder.config.num_mel_bins)

    def ask(self, question, labels):
        model = copy.copy(self)
        model.tokenizer, model.prompt = self.read(question, labels)
        return model

    def features(self, waveform):
        waveform = F.pad(torch.from_numpy(waveform), (0, max(0, 2 * HOP - len(waveform)))).numpy()
        settings = {"sampling_rate": 16_000, "padding": "longest", "pad_to_multiple_of": HOP, "truncation": False}
        return self.extractor(waveform, return_tensors="pt", **settings).input_features[0]

    def encode(self, features):
        frames = []
        for window in features.split(WINDOW, dim=-1):
            n = window.shape[-1]
            if frames:  # windows of a long clip are padded; the only window of a short one is not
                window = F.pad(window, (0, WINDOW - n))
            visible = torch.arange((window.shape[-1] + 1) // 2) < (n + 1) // 2
            states = self.encoder.layer_norm(whisper_states(self.encoder, window, visible)[-1])[0]
            states = F.pad(states, (0, 0, 0, -len(states) % self.stack))
            stacked = states.reshape(-1, self.stack * states.shape[1])
            frames.append(self.projector(stacked)[: -(-n // (2 * self.stack))])
        return torch.cat(frames)

    def embed(self, ids):
        return self.llm.get_input_embeddings()(torch.tensor(list(ids), device=self.llm.device))

    def n_audio(self, n_samples):
        windows, rest = divmod(-(-max(n_samples, 2 * HOP) // HOP), WINDOW)
        return sum(-(-n // (2 * self.stack)) for n in (*[WINDOW] * windows, rest))

    def reference(self, waveform):
        """As in the published forward: frames replace the embeddings of a placeholder."""
        frames, start = self.encode(self.features(waveform)), len(self.prompt.before)
        ids = torch.tensor([[*self.prompt.before, *[0] * len(frames), *self.prompt.after]], device=self.llm.device)
        embeds = self.llm.get_input_embeddings()(ids)
        embeds[0, start : start + len(frames)] = frames
        return self.llm(inputs_embeds=embeds, attention_mask=torch.ones_like(ids)).logits[0, -1]


@family(
    model_type="ultravox", frames_per_second=6.25, max_audio_length="all", licence="MIT; the text model has its own"
)
def load(folder, device, dtype, question, labels):
    """Ultravox: Whisper's encoder, a projector and a text model."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key, usual in (("projector_act", "swiglu"), ("audio_latency_block_size", None)):
        if config.get(key, usual) != usual:
            raise UserError(f"{folder}/config.json: {key} is {config[key]!r}, but this plugin has {usual!r}")
    for part, key in (("llm", "text"), ("whisper", "audio")):
        if not config.get(f"{key}_config") and not (folder / part).is_dir():
            raise UserError(f"{folder / part}: missing; put the model {config.get(f'{key}_model_id')} there")
    text, audio = config.get("text_config"), config.get("audio_config")
    text = AutoConfig.for_model(**text) if text else AutoConfig.from_pretrained(folder / "llm")
    audio = WhisperConfig(**audio) if audio else WhisperConfig.from_pretrained(folder / "whisper")
    stack, hidden = config.get("stack_factor", 8), config["hidden_size"]
    projector = partial(
        Projector, stack * audio.d_model, hidden, text.hidden_size, config.get("projector_ln_mid", False)
    )
    load = partial(load_module, device=device, dtype=dtype)
    model = Ultravox(
        load(partial(AutoModelForCausalLM.from_config, text), (folder, "language_model."), (folder / "llm", "")),
        load(partial(WhisperEncoder, audio), (folder, "audio_tower."), (folder / "whisper", "model.encoder.")),
        load(projector, (folder, "multi_modal_projector.")),
        stack,
        partial(read_prompt, folder, "<|audio|>", TURN),
    )
    return model.ask(question, labels)
