"""What is experimented on.

    subject = load_subject("demo/opens2s-demo")
    clip_input = subject.clips.get(clip)             # encoded on first use
    subject.clips.unpatched(clip)                    # the answer nobody interfered with

One model with its input and its answer tokens, and the clips that it has heard.
"""

from dataclasses import dataclass
from pathlib import Path

from engine.clips import ClipStore
from engine.engine import Engine
from engine.threads import settle_threads
from models.checkpoint import hashing
from models.families import Family, family_of
from models.folder import checkpoint_folder, read_config
from models.labels import LabelTokenizerHelper
from models.speech_lm import SpeechLM, load_speech_lm


@dataclass(frozen=True)
class Subject:
    """A loaded model, ready for experiments."""

    name: str
    sha256: str
    family: Family
    model: SpeechLM
    labels: LabelTokenizerHelper
    engine: Engine
    clips: ClipStore


def load_subject(
    source: str | Path,
    *,
    device: str | None = None,
    dtype: str | None = None,
    engine: str = "auto",
    max_rows: int | None = None,
    store_mb: int | None = None,
) -> Subject:
    """Load a checkpoint folder or hub id, of any family in `models/`.

    `engine` and `max_rows` are those of `Engine`; `store_mb` bounds what is held of clips, in MiB (`ClipStore`).
    """
    folder = checkpoint_folder(source)
    with hashing(folder) as sha256:
        model = load_speech_lm(folder, device, dtype)
        checkpoint = sha256()
    labels = LabelTokenizerHelper(model.tokenizer)
    settle_threads(model.llm)
    made = Engine(model.llm, engine, max_rows)
    store = ClipStore(model, made, labels.token_ids, None if store_mb is None else store_mb << 20)
    name = folder.resolve().name if Path(source).is_dir() else str(source).replace("/", "--")
    return Subject(name, checkpoint, family_of(read_config(folder)), model, labels, made, store)
