"""What is experimented on.

    subject = load_subject("demo/opens2s-demo")
    clip_input = subject.clips.get(clip)             # encoded on first use
    subject.clips.unpatched(clip)                    # the answer nobody interfered with

One model with its input and its answer tokens, and the clips that it has heard.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from interventions.core.traced import TracedLM
from models.labels import LabelTokenizerHelper
from models.opens2s import OpenS2S, check_config, checkpoint_folder, checkpoint_hash, load_model, read_config
from models.opens2s_io import SAMPLE_RATE, ClipInput, OpenS2SIO, read_audio
from pairs import Clip


@dataclass(frozen=True)
class Subject:
    """A loaded model, ready for traces."""

    name: str
    sha256: str
    model: OpenS2S
    io: OpenS2SIO
    labels: LabelTokenizerHelper
    lm: TracedLM
    clips: "ClipStore"


def load_subject(
    source: str | Path, *, device: str | None = None, dtype: str | None = None, engine: str = "sweep"
) -> Subject:
    """Load a checkpoint folder or hub id; what is small comes first, since it fails faster than weights do."""
    folder = checkpoint_folder(source)
    check_config(read_config(folder))
    io = OpenS2SIO.from_checkpoint(folder)
    labels = LabelTokenizerHelper(io.tokenizer)
    model = load_model(folder, device, dtype)
    io.check_fits(model)
    lm = TracedLM(model.llm_model, engine)
    name = folder.resolve().name if Path(source).is_dir() else str(source).replace("/", "--")
    return Subject(name, checkpoint_hash(folder), model, io, labels, lm, ClipStore(model, io, lm, labels.token_ids))


@dataclass(frozen=True)
class Answer:
    """A restricted readout: `logits [rows, 5]` in the labels' order, and the probability mass `[rows]` of the five."""

    logits: torch.Tensor
    mass: torch.Tensor


def restrict(logits: torch.Tensor, label_ids: list[int]) -> Answer:
    """Full readouts `[rows, vocabulary]` to the five labels, on the CPU."""
    five = logits[:, label_ids]
    mass = (five.logsumexp(1) - logits.logsumexp(1)).exp()
    return Answer(five.cpu(), mass.cpu())


class ClipStore:
    """Clips are decoded and encoded once, each alone, and dropped after their last pair."""

    def __init__(self, model: OpenS2S, io: OpenS2SIO, lm: TracedLM, label_ids: list[int]):
        self._model, self._io, self._lm, self._label_ids = model, io, lm, label_ids
        self._ids = io.input_ids()
        self._frames: dict[str, torch.Tensor] = {}
        self._n_samples: dict[str, int] = {}
        self._answers: dict[str, Answer] = {}

    def frames(self, clip: Clip) -> torch.Tensor:
        """The clip's audio frames `[n_audio, hidden]`."""
        if clip.clip_id not in self._frames:
            waveform = read_audio(clip.path)
            with torch.inference_mode():
                self._frames[clip.clip_id] = self._model.encode(*self._io.features(waveform))
            self._n_samples[clip.clip_id] = len(waveform)
        return self._frames[clip.clip_id]

    def get(self, clip: Clip, n_audio: int | None = None) -> ClipInput:
        """The clip as the decoder reads it; with `n_audio`, only that many of its first frames."""
        with torch.inference_mode():
            return self._io.join(self._model, self._ids, self.frames(clip)[:n_audio])

    def seconds(self, clip: Clip) -> float:
        """Length of the sound, after resampling."""
        self.frames(clip)
        return self._n_samples[clip.clip_id] / SAMPLE_RATE

    def unpatched(self, clip: Clip) -> Answer:
        """The model's own answer to the clip, `rows` = 1."""
        if clip.clip_id not in self._answers:
            with torch.inference_mode():
                with self._lm.trace(self.get(clip)):
                    logits = self._lm.readout().save()
                self._answers[clip.clip_id] = restrict(logits, self._label_ids)
        return self._answers[clip.clip_id]

    def drop(self, clip: Clip) -> None:
        """Forget a clip that no later pair uses."""
        self._frames.pop(clip.clip_id, None)
        self._n_samples.pop(clip.clip_id, None)
        self._answers.pop(clip.clip_id, None)
