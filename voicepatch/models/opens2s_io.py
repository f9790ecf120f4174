"""From a prompt and a sound to what OpenS2S's decoder reads, and where the sound is in it.

    model = load(folder)                                 # a SpeechLM
    frames = model.encode(model.features(waveform))      # [n_audio, hidden]
    clip = join(model, frames)                           # inputs_embeds [1, T, hidden], expanded ids, span

The one place that knows OpenS2S's system turn, its use of the chat template, and its audio placeholder.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, WhisperFeatureExtractor

from voicepatch.errors import UserError
from voicepatch.models.bounded import At, bounded
from voicepatch.models.folder import read_config, read_json
from voicepatch.models.labels import LabelTokenizerHelper
from voicepatch.models.mel import log_mel, make_extractor
from voicepatch.models.opens2s import OpenS2S, audio_length, check_config, load_model
from voicepatch.models.speech_lm import PLACEHOLDER_ID, Prompt
from voicepatch.models.tokens import (
    Tokens,
    check_vocabulary,
    default_template,
    read_tokenizer,
    render,
    settled,
    template_path,
    tokenizer_faults,
)

SYSTEM = "You are a helpful assistant."
AUDIO_START, AUDIO, AUDIO_END, TTS_START = "<|im_audio_start|>", "<|im_audio|>", "<|im_audio_end|>", "<|im_tts_start|>"


class OpenS2SIO:
    """Tokenizer and feature extractor of a checkpoint.

    The calls of `at` say which file is being run. Raises `UserError` when there is no chat template, or the tokenizer
    lacks a special token of OpenS2S.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        extractor: WhisperFeatureExtractor,
        folder: Path,
        at: At,
        question: str,
    ):
        self.tokenizer, self.extractor, self.question = tokenizer, extractor, question
        self._files, self._at = (template_path(folder), folder / "tokenizer.json"), at
        self._template = default_template(tokenizer.chat_template, self._files[0])
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in (AUDIO_START, AUDIO_END, TTS_START) if token not in vocabulary]
        if missing:
            raise UserError(f"the tokenizer lacks {', '.join(missing)}; use the tokenizer of the OpenS2S checkpoint")
        if not self._template:
            raise UserError(
                "the tokenizer has no chat template; add the checkpoint's chat_template.jinja to its folder"
            )
        self.audio_start_id, self.audio_end_id = vocabulary[AUDIO_START], vocabulary[AUDIO_END]

    @classmethod
    def from_checkpoint(cls, folder: Path, question: str, at: At = lambda path: None) -> "OpenS2SIO":
        """Read the tokenizer and `audio/preprocessor_config.json` of a checkpoint folder; no code of its own is run.

        In this process: `load` reads a foreign checkpoint's in another one, which `at` tells where it is. Raises
        `UserError` for files that are missing or broken, and for a tokenizer that cannot write the prompt.
        """
        extractor = read_extractor(folder)
        at(folder / "tokenizer.json")
        with tokenizer_faults(folder):
            io = cls(read_tokenizer(folder), extractor, folder, at, question)
            io.check_prompt()
        return io

    def check_prompt(self) -> None:
        """Raise `UserError` where the chat template does not write the whole turn, or the sound has no place in it."""
        text, asked = self.prompt_text(), AUDIO_START + AUDIO + AUDIO_END + self.question
        if SYSTEM not in text or text.count(asked) != 1 or text.count(AUDIO) != 1:
            raise UserError("the tokenizer's chat template does not give the prompt as it is; use the checkpoint's own")
        find_audio_span(expand_ids(self.input_ids(), 1), self.audio_start_id, self.audio_end_id)

    def prompt_text(self) -> str:
        """The whole turn as text, with `<|im_audio|>` where the sound belongs."""
        return self._rendered()[0]

    def _rendered(self) -> tuple[str, str | None]:
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": AUDIO_START + AUDIO + AUDIO_END + self.question},
        ]
        self._at(self._files[0])
        text, date = render(self.tokenizer, self._template, self._files[0], messages)
        return text + TTS_START, date

    def input_ids(self) -> list[int]:
        """Token ids of the turn with the single placeholder -200 for the sound; the same for every clip."""
        before, after = self._halves(self.prompt_text())
        return [*before, PLACEHOLDER_ID, *after]

    def _halves(self, text: str) -> list[list[int]]:
        self._at(self._files[1])
        return [self.tokenizer.encode(part, add_special_tokens=False) for part in text.split(AUDIO)]

    def prompt(self) -> Prompt:
        """The turn with the question."""
        text, date = self._rendered()
        before, after = self._halves(text)
        return Prompt(SYSTEM, text, before, after, (AUDIO_START, AUDIO_END), date=date)


class OpenS2SLM:
    """OpenS2S with the interface of `SpeechLM`."""

    max_samples = None

    def __init__(self, model: OpenS2S, tokens: Tokens, prompt: Prompt, extractor: WhisperFeatureExtractor):
        self.model, self.llm = model, model.llm_model
        self.tokenizer, self.prompt, self._extractor = tokens, prompt, extractor

    def features(self, waveform: np.ndarray) -> tuple[torch.Tensor, int]:
        return whole_windows(self._extractor, waveform)

    def encode(self, features: tuple[torch.Tensor, int]) -> torch.Tensor:
        return self.model.encode(*features)

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        return self.llm.get_input_embeddings()(torch.tensor(ids, device=self.llm.device))

    def n_audio(self, n_samples: int) -> int:
        n_convs = len(self.model.audio_adapter.subsampler.conv_layers)
        return audio_length(-(-n_samples // self._extractor.hop_length), self.model.window_frames, n_convs)


def whole_windows(extractor: WhisperFeatureExtractor, waveform: np.ndarray) -> tuple[torch.Tensor, int]:
    """16 kHz mono samples to log-mel `[mel_bins, frames]` of whole windows, and how many frames of it are sound."""
    return log_mel(extractor, waveform, extractor.n_samples)


def read_extractor(folder: Path) -> WhisperFeatureExtractor:
    """The feature extractor of a checkpoint folder."""
    path = folder / "audio" / "preprocessor_config.json"
    return make_extractor(path, read_json(path))


def read_turn(at: At, folder: Path, question: str, labels: Sequence[str]) -> tuple[Tokens, Prompt]:
    """The tokens of a folder and the turn in it."""
    io = OpenS2SIO.from_checkpoint(folder, question, at)
    LabelTokenizerHelper(io.tokenizer, labels)
    with tokenizer_faults(folder):
        return settled(folder, io.tokenizer, io.prompt, [*labels, question])


def load(folder: Path, device: str | None, dtype: str | None, question: str, labels: Sequence[str]) -> OpenS2SLM:
    """A checkpoint folder, whole or not at all; what is small comes first, since it fails faster than weights do."""
    check_config(read_config(folder))
    extractor = read_extractor(folder)
    tokens, prompt = bounded(read_turn, folder, question, labels)
    model = load_model(folder, device, dtype)
    check_fits(model, extractor, tokens)
    return OpenS2SLM(model, tokens, prompt, extractor)


def check_fits(model: OpenS2S, extractor: WhisperFeatureExtractor, tokens: Tokens) -> None:
    """Raise `UserError` where the feature extractor makes other windows or bins than the encoder reads.

    Also where the prompt or a label has a token that the model lacks.
    """
    bins, frames = model.audio_encoder_model.config.num_mel_bins, model.window_frames
    made, bins_made = extractor.n_samples // extractor.hop_length, extractor.feature_size
    if bins_made != bins or made % frames:
        raise UserError(
            f"audio/preprocessor_config.json gives {bins_made} bins and windows of {made} frames, "
            f"but config.json's audio encoder reads {bins} and {frames}; take both files from one checkpoint"
        )
    check_vocabulary(tokens, model.llm_model.config.vocab_size)


def expand_ids(ids: Sequence[int], n_audio: int) -> torch.Tensor:
    """Ids with one placeholder to the expanded ids `[T]`, in which the placeholder stands once for each audio frame."""
    flat = torch.as_tensor(ids, dtype=torch.long).flatten()
    repeats = torch.ones_like(flat)
    repeats[flat == PLACEHOLDER_ID] = n_audio
    return flat.repeat_interleave(repeats)


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
