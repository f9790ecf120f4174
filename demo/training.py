"""From clips to a checkpoint: the frozen Whisper encoder, the model taught on its output, and how often it is right.

The encoder runs once over every clip. Adapter and LLM are then trained from scratch on its output, in the verbatim chat
format, with the cross-entropy of the answer's first token at the readout over the whole vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from transformers import WhisperFeatureExtractor

from demo.whisper import HEADS, INNER, MEL_BINS, WIDTH, whisper_encoder_state
from voicepatch.models.labels import LabelTokenizerHelper
from voicepatch.models.mel import pooled_length
from voicepatch.models.opens2s import AudioAdapter, OpenS2S, OpenS2SConfig
from voicepatch.models.speech_lm import PLACEHOLDER_ID
from voicepatch.models.tokens import Tokens
from voicepatch.types.task import default_task

REPORT_EVERY = 100  # steps


@dataclass(frozen=True)
class Recipe:
    """Size of the model and schedule of its training.

    `lowest_rate` is the learning rate of the decoder's first layer as a share of the last one's. A layer that learns
    slowly leaves the reading of the sound to those above it, so this decides at which depth the sound is read.
    """

    layers: int = 10
    width: int = 160
    heads: int = 4
    inner: int = 256
    encoder_layers: int = 3
    kernels: str = "3,3"
    adapter_inner: int = 256
    window_seconds: int = 5
    steps: int = 3000
    batch: int = 128
    learning_rate: float = 2e-3
    lowest_rate: float = 0.04
    weight_decay: float = 0.05
    dropout: float = 0.1  # of channels of the encoder's output


@dataclass(frozen=True)
class Clips:
    """Encoder output `[clips, positions, width]` (float16), how many positions are sound, tokens of the answers."""

    states: torch.Tensor
    lengths: torch.Tensor
    answers: torch.Tensor


def checkpoint_config(recipe: Recipe, vocabulary_size: int) -> dict:
    """`config.json` as OpenS2S has it, without the speech decoder."""
    return {
        "adapter_inner_dim": recipe.adapter_inner,
        "architectures": ["OmniSpeechModel"],
        "audio_encoder_config": {
            "activation_dropout": 0.0,
            "activation_function": "gelu",
            "attention_dropout": 0.0,
            "d_model": WIDTH,
            "dropout": 0.0,
            "encoder_attention_heads": HEADS,
            "encoder_ffn_dim": INNER,
            "encoder_layerdrop": 0.0,
            "encoder_layers": recipe.encoder_layers,
            "init_std": 0.02,
            "max_source_positions": 50 * recipe.window_seconds,
            "model_type": "qwen2_audio_encoder",
            "num_hidden_layers": recipe.encoder_layers,
            "num_mel_bins": MEL_BINS,
            "scale_embedding": False,
        },
        "conv_kernel_sizes": recipe.kernels,
        "interleave_strategy": "4:8",
        "llm_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "head_dim": recipe.width // recipe.heads,
            "hidden_act": "silu",
            "hidden_size": recipe.width,
            "initializer_range": 0.02,
            "intermediate_size": recipe.inner,
            "max_position_embeddings": 1024,
            "max_window_layers": recipe.layers,
            "model_type": "qwen3",
            "num_attention_heads": recipe.heads,
            "num_hidden_layers": recipe.layers,
            "num_key_value_heads": recipe.heads // 2,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "rope_theta": 10000.0,
            "sliding_window": None,
            "tie_word_embeddings": True,
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": vocabulary_size,
        },
        "lora_config": None,
        "torch_dtype": "float16",
        "transformers_version": "4.51.0",
    }


def build_model(config: dict, whisper: dict[str, np.ndarray], seed: int) -> OpenS2S:
    """A model with Whisper's encoder, frozen, and everything else at random."""
    torch.manual_seed(seed)
    model = OpenS2S(OpenS2SConfig.from_checkpoint(config))
    audio = config["audio_encoder_config"]
    state = whisper_encoder_state(whisper, audio["encoder_layers"], audio["max_source_positions"])
    model.audio_encoder_model.load_state_dict(state, strict=True)
    model.audio_encoder_model.eval().requires_grad_(False)
    return model


@torch.inference_mode()
def encode_clips(
    model: OpenS2S,
    extractor: WhisperFeatureExtractor,
    tokens: Tokens,
    sounds: Sequence[np.ndarray],
    labels: Sequence[str],
) -> Clips:
    """Run the frozen encoder over int16 `sounds`, each within one window; `labels` are the right answers."""
    device = model.audio_encoder_model.conv1.weight.device
    states = []
    for start in range(0, len(sounds), 64):
        batch = [sound.astype(np.float32) / 32768 for sound in sounds[start : start + 64]]
        window = extractor.n_samples
        mel = extractor(
            batch,
            sampling_rate=16_000,
            padding="max_length",
            max_length=window,
            return_tensors="pt",
            device=str(device),
        ).input_features
        states.append(model.audio_encoder_model(mel.to(device)).last_hidden_state.half())
    lengths = [pooled_length(-(-len(sound) // extractor.hop_length)) for sound in sounds]
    helper = LabelTokenizerHelper(tokens, default_task().labels)
    token_ids = dict(zip(helper.labels, helper.token_ids, strict=True))
    answers = torch.tensor([token_ids[label] for label in labels], device=device)
    return Clips(torch.cat(states), torch.tensor(lengths, device=device), answers)


def audio_frames(
    adapter: AudioAdapter, states: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Adapter output of many clips `[clips, frames, hidden]` and their lengths, as each clip alone would give it.

    What lies behind a clip's end is zero before every convolution, as its padding would be.
    """
    x = states.transpose(1, 2)
    for conv in adapter.subsampler.conv_layers:
        sound = torch.arange(x.shape[-1], device=x.device) < lengths[:, None]
        x = F.glu(conv(x * sound[:, None]), dim=1)
        lengths = (lengths - 1) // 2 + 1
    x = x.transpose(1, 2)
    return adapter.ln(x + adapter.fc2(F.gelu(adapter.fc1(x)))), lengths


def readout_logits(model: OpenS2S, ids: Sequence[int], states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Logits at the readout `[clips, vocabulary]`; `ids` is the turn with the single placeholder.

    Shorter clips are padded at their end, behind the readout, where a causal model cannot look.
    """
    frames, lengths = audio_frames(model.audio_adapter, states, lengths)
    n_clips, longest, _ = frames.shape
    place = ids.index(PLACEHOLDER_ID)
    table = model.llm_model.get_input_embeddings()
    text = table(torch.tensor([*ids[:place], *ids[place + 1 :]], device=frames.device)).expand(n_clips, -1, -1)
    joined = torch.cat([text[:, :place], frames, text[:, place:]], dim=1)
    source = torch.arange(joined.shape[1], device=frames.device).expand(n_clips, -1)
    after = source >= place + lengths[:, None]
    source = (source + after * (longest - lengths[:, None])).clamp(max=joined.shape[1] - 1)
    embeds = joined.gather(1, source[..., None].expand_as(joined))
    hidden = model.llm_model.model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    readout = len(ids) - 2 + lengths
    return model.llm_model.lm_head(hidden[torch.arange(n_clips, device=frames.device), readout])


def _batches(n_clips: int, recipe: Recipe, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Clip numbers of `recipe.steps` batches, each clip once an epoch."""
    order = torch.empty(0, dtype=torch.long)
    for _ in range(recipe.steps):
        if len(order) < recipe.batch:
            order = torch.cat([order, torch.randperm(n_clips, generator=generator)])
        yield order[: recipe.batch]
        order = order[recipe.batch :]


def _parameter_groups(model: OpenS2S, recipe: Recipe) -> list[dict]:
    """One group a decoder layer, each with its own learning rate, and one for the rest."""
    layers = model.llm_model.model.layers
    factors = np.geomspace(recipe.lowest_rate, 1, len(layers))
    groups = [
        {"params": list(layer.parameters()), "lr": recipe.learning_rate * float(factor)}
        for layer, factor in zip(layers, factors, strict=True)
    ]
    in_layers = {parameter for group in groups for parameter in group["params"]}
    rest = [p for p in model.parameters() if p.requires_grad and p not in in_layers]
    return [*groups, {"params": rest, "lr": recipe.learning_rate}]


def train(model: OpenS2S, ids: Sequence[int], clips: Clips, recipe: Recipe, seed: int) -> Iterator[tuple[int, float]]:
    """Teach adapter and LLM, yielding every `REPORT_EVERY` steps how many are done and the mean loss since then."""
    device = clips.states.device
    groups = _parameter_groups(model, recipe)
    rates = [group["lr"] for group in groups]
    trained = [parameter for group in groups for parameter in group["params"]]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=recipe.steps, pct_start=0.1)
    batches = _batches(len(clips.answers), recipe, torch.Generator().manual_seed(seed))
    model.train()
    model.audio_encoder_model.eval()
    total = torch.zeros((), device=device)
    for step, chosen in enumerate(batches, start=1):
        chosen = chosen.to(device)
        states = F.dropout1d(clips.states[chosen].float().transpose(1, 2), recipe.dropout).transpose(1, 2)
        logits = readout_logits(model, ids, states, clips.lengths[chosen])
        loss = F.cross_entropy(logits, clips.answers[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        total += loss.detach()
        if step % REPORT_EVERY == 0:
            yield step, total.item() / REPORT_EVERY
            total.zero_()
    model.eval()
