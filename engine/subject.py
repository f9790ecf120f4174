"""What is experimented on.

    subject = load_subject("demo/opens2s-demo")
    clip_input = subject.clips.get(clip)             # encoded on first use
    subject.clips.unpatched(clip)                    # the answer nobody interfered with

One model with its input and its answer tokens, and the clips that it has heard.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path

from engine.clips import ClipStore
from engine.engine import Engine
from engine.threads import settle_threads
from models.checkpoint import checkpoint_folder, checkpoint_hash, read_config
from models.labels import LabelTokenizerHelper
from models.opens2s import OpenS2S, check_config, load_model
from models.opens2s_io import OpenS2SIO


@dataclass(frozen=True)
class Subject:
    """A loaded model, ready for experiments; `passed` says for what the checks before an experiment have passed."""

    name: str
    sha256: str
    model: OpenS2S
    io: OpenS2SIO
    labels: LabelTokenizerHelper
    engine: Engine
    clips: ClipStore
    passed: set[Hashable] = field(default_factory=set)


def load_subject(
    source: str | Path,
    *,
    device: str | None = None,
    dtype: str | None = None,
    engine: str = "auto",
    max_rows: int | None = None,
    store_mb: int | None = None,
) -> Subject:
    """Load a checkpoint folder or hub id; what is small comes first, since it fails faster than weights do.

    `engine` and `max_rows` are those of `Engine`; `store_mb` bounds what is held of clips, in MiB (`ClipStore`).
    """
    folder = checkpoint_folder(source)
    check_config(read_config(folder))
    io = OpenS2SIO.from_checkpoint(folder)
    labels = LabelTokenizerHelper(io.tokenizer)
    model = load_model(folder, device, dtype)
    io.check_fits(model)
    settle_threads(model.llm_model)
    made = Engine(model.llm_model, engine, max_rows)
    store = ClipStore(model, io, made, labels.token_ids, None if store_mb is None else store_mb << 20)
    name = folder.resolve().name if Path(source).is_dir() else str(source).replace("/", "--")
    return Subject(name, checkpoint_hash(folder), model, io, labels, made, store)
