"""From a prompt and a sound to what OpenS2S's decoder reads, and where the sound is in it.

    io = OpenS2SIO.from_checkpoint(folder)
    clip = io.prepare(model, read_audio("clip.flac"))    # inputs_embeds [1, T, hidden], expanded ids, span
    logits = model.llm_model(inputs_embeds=clip.inputs_embeds, use_cache=False).logits[:, -1]

The one place that knows the system turn, the chat template and the audio placeholder. Positions are always those of
the *expanded* sequence, in which each audio frame has taken a place of its own (SPEC sections 1 and 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, WhisperFeatureExtractor

from errors import UserError
from models.opens2s import OpenS2S

SAMPLE_RATE = 16_000
MIN_SAMPLES = 400  # one analysis window of the mel; the encoder makes no position of less
SYSTEM = "You are a helpful assistant."
PROMPT = "What is the emotion of this audio? Answer with exactly one word: neutral, happy, sad, angry, or surprised."
AUDIO_START, AUDIO, AUDIO_END, TTS_START = "<|im_audio_start|>", "<|im_audio|>", "<|im_audio_end|>", "<|im_tts_start|>"
PLACEHOLDER_ID = -200  # stands for the sound in the ids; no row of the embedding table


@dataclass(frozen=True)
class ClipInput:
    """One clip as the decoder reads it.

    `inputs_embeds [1, T, hidden]`, `input_ids [T]` (expanded, -200 at the sound), `audio_indices [n_audio]`.
    """

    inputs_embeds: torch.Tensor
    input_ids: torch.Tensor
    audio_indices: torch.Tensor

    @property
    def span(self) -> slice:
        """The audio positions as a slice of the expanded sequence."""
        return slice(int(self.audio_indices[0]), int(self.audio_indices[-1]) + 1)

    @property
    def n_audio(self) -> int:
        return len(self.audio_indices)

    @property
    def readout_pos(self) -> int:
        """The last position, whose logits predict the first token of the answer."""
        return len(self.input_ids) - 1


class OpenS2SIO:
    """Tokenizer and feature extractor of a checkpoint.

    Raises `UserError` when the tokenizer lacks a special token of OpenS2S or the chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, extractor: WhisperFeatureExtractor):
        self.tokenizer, self.extractor = tokenizer, extractor
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in (AUDIO_START, AUDIO_END, TTS_START) if token not in vocabulary]
        if missing:
            raise UserError(f"the tokenizer lacks {', '.join(missing)}; use the tokenizer of the OpenS2S checkpoint")
        if not tokenizer.chat_template:
            raise UserError(
                "the tokenizer has no chat template; add the checkpoint's chat_template.jinja to its folder"
            )
        self.audio_start_id, self.audio_end_id = vocabulary[AUDIO_START], vocabulary[AUDIO_END]

    @classmethod
    def from_checkpoint(cls, folder: Path) -> "OpenS2SIO":
        """Read the tokenizer and `audio/preprocessor_config.json` of a checkpoint folder."""
        level = transformers.logging.get_verbosity()
        # transformers 5 warns of a Mistral regex for any Qwen-like tokenizer; the ids are right without it.
        transformers.logging.set_verbosity_error()
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder}: no readable tokenizer ({str(error).splitlines()[0][:120]}); "
                "the folder needs tokenizer.json and tokenizer_config.json"
            ) from None
        finally:
            transformers.logging.set_verbosity(level)
        try:
            extractor = WhisperFeatureExtractor.from_pretrained(folder / "audio", local_files_only=True)
        except (OSError, ValueError, TypeError):
            raise UserError(f"{folder}/audio/preprocessor_config.json: missing or unreadable; fetch it") from None
        return cls(tokenizer, extractor)

    def check_fits(self, model: OpenS2S) -> None:
        """Raise `UserError` where the feature extractor makes other windows or bins than the encoder reads."""
        bins, frames = model.audio_encoder_model.config.num_mel_bins, model.window_frames
        made = self.extractor.n_samples // self.extractor.hop_length
        bins_made = self.extractor.feature_size
        if bins_made != bins or made % frames:
            raise UserError(
                f"audio/preprocessor_config.json gives {bins_made} bins and windows of {made} frames, "
                f"but config.json's audio encoder reads {bins} and {frames}; take both files from one checkpoint"
            )

    def prompt_text(self, prompt: str = PROMPT) -> str:
        """The whole turn as text, with `<|im_audio|>` where the sound belongs."""
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": AUDIO_START + AUDIO + AUDIO_END + prompt},
        ]
        text = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, enable_thinking=False
        )
        return text + TTS_START

    def input_ids(self, prompt: str = PROMPT) -> list[int]:
        """Token ids of the turn with the single placeholder -200 for the sound; the same for every clip."""
        before, after = self.prompt_text(prompt).split(AUDIO)

        def encode(part: str) -> list[int]:
            return self.tokenizer.encode(part, add_special_tokens=False)

        return [*encode(before), PLACEHOLDER_ID, *encode(after)]

    def features(self, waveform: np.ndarray) -> tuple[torch.Tensor, int]:
        """16 kHz mono samples to log-mel `[mel_bins, frames]` of whole windows, and how many frames of it are sound."""
        window = self.extractor.n_samples
        padded = -(-len(waveform) // window) * window
        mel = self.extractor(
            waveform, sampling_rate=SAMPLE_RATE, padding="max_length", max_length=padded, return_tensors="pt"
        ).input_features[0]
        return mel, -(-len(waveform) // self.extractor.hop_length)

    def prepare(self, model: OpenS2S, waveform: np.ndarray, prompt: str = PROMPT) -> ClipInput:
        """Encode one clip, alone, and join it with the prompt."""
        frames = model.encode(*self.features(waveform))
        return self.join(model, self.input_ids(prompt), frames)

    def join(self, model: OpenS2S, ids: Sequence[int], frames: torch.Tensor) -> ClipInput:
        """Put audio frames `[n_audio, hidden]` in the placeholder's place among the embeddings of `ids`."""
        expanded = expand_ids(ids, len(frames))
        indices = find_audio_span(expanded, self.audio_start_id, self.audio_end_id)
        return ClipInput(embed(model, expanded, indices, frames), expanded, indices)


def expand_ids(ids: Sequence[int], n_audio: int) -> torch.Tensor:
    """Ids with one placeholder to the expanded ids `[T]`, in which the placeholder stands once for each audio frame."""
    ids = torch.as_tensor(ids, dtype=torch.long).flatten()
    repeats = torch.ones_like(ids)
    repeats[ids == PLACEHOLDER_ID] = n_audio
    return ids.repeat_interleave(repeats)


def find_audio_span(
    input_ids: Sequence[int] | torch.Tensor, audio_start_id: int | None = None, audio_end_id: int | None = None
) -> torch.Tensor:
    """Positions `[n_audio]` of the run between `<|im_audio_start|>` and `<|im_audio_end|>` in **expanded** ids.

    With the ids of the two tokens given, the run must lie directly between them. Raises `UserError` unless there is
    exactly one span (SPEC section 4).
    """
    ids = torch.as_tensor(input_ids).flatten()
    indices = (ids == PLACEHOLDER_ID).nonzero().flatten()
    n_spans = int((indices.diff() != 1).sum()) + 1 if len(indices) else 0
    if n_spans != 1:
        raise UserError(f"the input holds {n_spans} audio spans, but exactly one is needed; give one clip a prompt")
    first, last = int(indices[0]), int(indices[-1])
    for name, token_id, position in ((AUDIO_START, audio_start_id, first - 1), (AUDIO_END, audio_end_id, last + 1)):
        if token_id is None:
            continue
        if not 0 <= position < len(ids) or ids[position] != token_id or int((ids == token_id).sum()) != 1:
            raise UserError(f"the audio span at {first}..{last} needs one {name} directly beside it; check the prompt")
    return indices


def embed(model: OpenS2S, expanded: torch.Tensor, indices: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Embeddings `[1, T, hidden]` of expanded ids, with `frames [n_audio, hidden]` at the audio `indices`."""
    table = model.llm_model.get_input_embeddings()
    text = expanded.clone()
    text[indices] = 0  # any valid row: overwritten on the next line
    embeds = table(text.to(table.weight.device))
    embeds[indices.to(embeds.device)] = frames.to(embeds)
    return embeds[None]


def read_audio(path: Path) -> np.ndarray:
    """A sound file of any rate and channel count as 16 kHz mono float32 `[samples]`.

    Channels are averaged, then resampled. Raises `UserError` for what soundfile cannot decode, and for a file that
    is empty, shorter than 25 ms, or holds values that are not finite.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise UserError(f"{path}: not a readable sound file ({error}); use wav, flac, ogg, opus or mp3") from None
    mono = samples.mean(axis=1)
    if not len(mono):
        raise UserError(f"{path}: holds no sound; leave the clip out or record it again")
    if not np.isfinite(mono).all():
        raise UserError(f"{path}: holds samples that are not finite; leave the clip out or convert it again")
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    if len(mono) < MIN_SAMPLES:
        raise UserError(f"{path}: is shorter than 25 ms; leave the clip out or record it again")
    return mono
