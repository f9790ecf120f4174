"""From a prompt and a sound to what OpenS2S's decoder reads, and where the sound is in it.

    io = OpenS2SIO.from_checkpoint(folder)
    clip = io.prepare(model, read_audio("clip.flac"))    # inputs_embeds [1, T, hidden], expanded ids, span
    logits = model.llm_model(inputs_embeds=clip.inputs_embeds, use_cache=False).logits[:, -1]

The one place that knows the system turn, the chat template and the audio placeholder. Positions are always those of
the *expanded* sequence, in which each audio frame has taken a place of its own (SPEC sections 1 and 4).
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, WhisperFeatureExtractor

from errors import UserError
from models.checkpoint import read_json
from models.labels import LabelTokenizerHelper
from models.opens2s import OpenS2S
from models.sound import SAMPLE_RATE
from models.sound import read_audio as read_audio  # the sound is half of what is made into inputs here

SYSTEM = "You are a helpful assistant."
PROMPT = "What is the emotion of this audio? Answer with exactly one word: neutral, happy, sad, angry, or surprised."
AUDIO_START, AUDIO, AUDIO_END, TTS_START = "<|im_audio_start|>", "<|im_audio|>", "<|im_audio_end|>", "<|im_tts_start|>"
PLACEHOLDER_ID = -200  # stands for the sound in the ids; no row of the embedding table


# What the feature extractor is made of: its usual value, and one that no model of this kind goes beyond.
EXTRACTOR_NUMBERS = {
    "feature_size": (80, 512),
    "hop_length": (160, 16_000),
    "chunk_length": (30, 600),
    "n_fft": (400, 8192),
}
EXTRACTOR_FIXED = {"sampling_rate": SAMPLE_RATE, "padding_side": "right", "padding_value": 0.0, "dither": 0.0}


@dataclass(frozen=True, eq=False)
class ClipInput:
    """One clip as the decoder reads it; equal to itself alone, so that it can be a key.

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
        """Read the tokenizer and `audio/preprocessor_config.json` of a checkpoint folder; no code of its own is run.

        Raises `UserError` for files that are missing or broken, and for a tokenizer that cannot write the prompt.
        """
        extractor = read_extractor(folder / "audio" / "preprocessor_config.json")
        with _tokenizer_faults(folder):
            for path in (folder / "tokenizer.json", folder / "tokenizer_config.json"):
                if path.exists():  # another sort of tokenizer has other files
                    read_json(path)
            io = cls(AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True), extractor)
            io.check_prompt()
        return io

    def check_prompt(self) -> None:
        """Raise `UserError` where the chat template does not write the whole turn, or the sound has no place in it."""
        text = self.prompt_text()
        if SYSTEM not in text or text.count(AUDIO_START + AUDIO + AUDIO_END + PROMPT) != 1 or text.count(AUDIO) != 1:
            raise UserError("the tokenizer's chat template does not give the prompt as it is; use the checkpoint's own")
        find_audio_span(expand_ids(self.input_ids(), 1), self.audio_start_id, self.audio_end_id)

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
        highest = max([*self.input_ids(), *LabelTokenizerHelper(self.tokenizer).token_ids])
        if highest >= model.llm_model.config.vocab_size:
            raise UserError(
                f"tokenizer.json gives token {highest}, but config.json's vocabulary ends before it, at "
                f"{model.llm_model.config.vocab_size}; take both files from one checkpoint"
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


@contextmanager
def _tokenizer_faults(folder: Path) -> Iterator[None]:
    level = transformers.logging.get_verbosity()
    # transformers 5 warns of a Mistral regex for any Qwen-like tokenizer; the ids are right without it.
    transformers.logging.set_verbosity_error()
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        # A broken tokenizer.json raises plain Exception, a broken template what it likes, and a panic of the tokenizers
        # library is no Exception at all.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{folder}: no readable tokenizer ({reason[:120]}); "
            "the folder needs the checkpoint's own tokenizer.json and tokenizer_config.json"
        ) from None
    finally:
        transformers.logging.set_verbosity(level)


def read_extractor(path: Path) -> WhisperFeatureExtractor:
    """The feature extractor that a `preprocessor_config.json` describes.

    Raises `UserError` for numbers that no Whisper model has, and for settings that would give another mel: a rate other
    than 16 kHz, padding that is not silence after the sound, or noise added to it.
    """
    settings = read_json(path)
    values = {}
    for key, (usual, most) in EXTRACTOR_NUMBERS.items():
        values[key] = settings.get(key, usual)
        if type(values[key]) is not int or not 0 < values[key] <= most:
            raise UserError(
                f"{path}: {key} is {values[key]!r}, but should be a whole number up to {most}; fetch it again"
            )
    for key, value in EXTRACTOR_FIXED.items():
        if settings.get(key, value) != value:
            raise UserError(f"{path}: {key} is {settings[key]!r}, but OpenS2S has {value!r}; fetch it again")
    try:
        with warnings.catch_warnings(category=UserWarning, action="error"):  # mel filters that hear nothing
            return WhisperFeatureExtractor(**values, sampling_rate=SAMPLE_RATE)
    except (ArithmeticError, ValueError, UserWarning) as error:
        raise UserError(f"{path}: gives no mel filters ({error}); fetch it again") from None


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
            raise UserError(f"the audio span {first}:{last + 1} needs one {name} directly beside it; check the prompt")
    return indices


def embed(model: OpenS2S, expanded: torch.Tensor, indices: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Embeddings `[1, T, hidden]` of expanded ids, with `frames [n_audio, hidden]` at the audio `indices`."""
    table = model.llm_model.get_input_embeddings()
    text = expanded.clone()
    text[indices] = 0  # any valid row: overwritten on the next line
    embeds = table(text.to(table.weight.device))
    embeds[indices.to(embeds.device)] = frames.to(embeds)
    return embeds[None]
