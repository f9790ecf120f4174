"""MiniCPM-o 2.6 (OpenBMB): Whisper's encoder in blocks of a second, a projection, and a Qwen2 decoder.

    python cli.py check --plugin docs/families/minicpm_o.py --model FOLDER

FOLDER has the published files; the parts for images and speech output are not read. The published processor writes the
end and the start of a sound after each second, so these tokens are inside the span.
Source: modeling_minicpmo.py and processing_minicpmo.py of openbmb/MiniCPM-o-2_6. Frames differ from those of it by
2e-6 of 8, and logits by 2e-6 of 4.
"""

import copy
import json
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from voicepatch import Turn, family, load_module, log_mel, read_extractor, read_prompt, whisper_states
from voicepatch.errors import UserError

SOUND, START, END = "(<audio>./</audio>)", "<|audio_start|>", "<|audio_end|>"
TURN = Turn(
    None,
    f"<|im_start|>user\n{START}{{sound}}{END}\n{{question}}<|im_end|>\n"
    "<|im_start|>assistant\n<|spk_bos|><|spk|><|spk_eos|><|tts_bos|>",
    borders=(START, END),
    has_template=False,  # the published code has its own template for sound
)
WINDOW, HOP, A_SECOND = 480_000, 160, 25  # samples of Whisper's window and of a mel frame; frames of a second


class Projection(nn.Module):
    def __init__(self, width: int, out: int):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, out), nn.Linear(out, out)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.linear2(F.relu(self.linear1(states)))


class MiniCPMo:
    max_samples = None

    def __init__(self, llm, encoder, projection, block, extractor, read):
        self.llm, self.encoder, self.projection, self.block = llm, encoder, projection, block
        self.extractor, self.read = extractor, read

    def ask(self, question, labels):
        model = copy.copy(self)
        model.tokenizer, prompt = self.read(question, labels)
        model.prompt = replace(prompt, span=f"{END} and {START} after each second")
        return model

    def features(self, waveform):
        windows = [waveform[start : start + WINDOW] for start in range(0, len(waveform), WINDOW)]
        return [mel[:, :n] for mel, n in (log_mel(self.extractor, window) for window in windows)]

    def encode(self, features):
        frames = []
        for mel in features:
            n = mel.shape[-1]
            mel = F.pad(mel, (0, features[0].shape[-1] - n))
            seconds = torch.arange((mel.shape[-1] + 1) // 2) // self.block
            # A state reads its own block and earlier ones. The published code compares states with n mel frames.
            visible = (seconds <= seconds[:, None]) & (torch.arange(len(seconds)) < n)
            states = self.encoder.layer_norm(whisper_states(self.encoder, mel, visible)[-1])
            pooled = F.avg_pool1d(self.projection(states).transpose(1, 2), 2)
            frames.append(pooled[0].T[: (n + 1) // 2 // 2])
        between = self.embed([self.prompt.after[0], self.prompt.before[-1]])
        first, *others = torch.cat(frames).split(A_SECOND)
        return torch.cat([first, *(part for second in others for part in (between, second))])

    def embed(self, ids):
        return self.llm.get_input_embeddings()(torch.tensor(list(ids), device=self.llm.device))

    def n_audio(self, n_samples):
        n = (-(-n_samples // HOP) + 1) // 2 // 2
        return n + 2 * (-(-n // A_SECOND) - 1)

    def reference(self, waveform):
        """As in the published forward: frames replace the embeddings of a placeholder, second by second."""
        span, (before, after) = self.encode(self.features(waveform)), (self.prompt.before, self.prompt.after)
        second = [*[0] * A_SECOND, after[0], before[-1]]
        ids = [*before, *(second * len(span))[: len(span)], *after]
        embeds = self.llm.get_input_embeddings()(torch.tensor([ids], device=self.llm.device))
        is_frame = torch.arange(len(span)) % len(second) < A_SECOND
        embeds[0, len(before) : -len(after)][is_frame] = span[is_frame]
        return self.llm(inputs_embeds=embeds, attention_mask=torch.ones_like(embeds[..., 0])).logits[0, -1]


@family(
    model_type="minicpmo",
    frames_per_second=25.0,
    max_audio_length="all",
    hub_ids=("openbmb/MiniCPM-o-2_6",),
    parts=("llm.", "apm.", "audio_projection_layer."),
)
def load(folder, device, dtype, question, labels):
    """MiniCPM-o 2.6: Whisper's encoder in blocks of a second, a projection and a Qwen2 decoder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if (config.get("version"), config.get("audio_pool_step", 2)) != ("2.6", 2):
        raise UserError(f"{folder}/config.json: is of version {config.get('version')}, and this plugin for 2.6")
    known = {*Qwen2Config.__annotations__, "rope_theta", "rope_scaling"}
    text = Qwen2Config(**{key: value for key, value in config.items() if key in known})
    audio = WhisperConfig(**config["audio_config"])
    load = partial(load_module, device=device, dtype=dtype)
    model = MiniCPMo(
        load(partial(Qwen2ForCausalLM, text), (folder, "llm.")),
        load(partial(WhisperEncoder, audio), (folder, "apm.")),
        load(partial(Projection, audio.encoder_ffn_dim // 4, text.hidden_size), (folder, "audio_projection_layer.")),
        int(50 * config.get("audio_chunk_length", 1.0)),
        read_extractor(folder, audio.num_mel_bins),
        partial(read_prompt, folder, SOUND, TURN),
    )
    return model.ask(question, labels)
