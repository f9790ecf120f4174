"""What is experimented on.

    subject = load_subject("demo/opens2s-demo")
    clip_input = subject.clips.get(clip)             # encoded on first use
    subject.clips.unpatched(clip)                    # the answer nobody interfered with

One model with its task, its answer tokens, and the clips that it has encoded. `subject.asking(task)` asks another
question, with the same weights and encoded sounds.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from voicepatch.engine.asked import Asked, ask
from voicepatch.engine.clips import ClipStore
from voicepatch.engine.engine import Engine
from voicepatch.engine.threads import settle_threads
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.models.checkpoint import checkpoint_hash, model_hash
from voicepatch.models.families import family_of
from voicepatch.models.family import EXACT, Family
from voicepatch.models.folder import checkpoint_folder, read_config
from voicepatch.models.labels import LabelError, LabelTokenizerHelper
from voicepatch.models.speech_lm import SpeechLM, family_of_model, load_speech_lm
from voicepatch.types.task import Task, default_task


@dataclass(frozen=True)
class Subject:
    """A loaded model, ready for experiments that ask one task's question.

    `asked` are the task's prompts: one, or one for each order of its options. `warnings` are what a reader of its
    results must know, one line each. `random_weights` is the seed of the weights where they are not the checkpoint's.
    """

    name: str
    sha256: str
    family: Family
    task: Task
    asked: tuple[Asked, ...]
    engine: Engine
    clips: ClipStore
    warnings: tuple[str, ...] = ()
    random_weights: int | None = None

    @property
    def model(self) -> SpeechLM:
        """The model with the first prompt."""
        return self.asked[0].model

    @property
    def labels(self) -> LabelTokenizerHelper:
        """The labels' tokens in the first prompt."""
        return self.asked[0].labels

    @property
    def n_after(self) -> int:
        """Positions after the sound, in the shortest prompt."""
        return min(len(asked.model.prompt.after) for asked in self.asked)

    def asking(self, task: Task) -> "Subject":
        """The same weights, engine and encoded sounds under another task's question and labels.

        `UserError` where the model has no method `ask`, which makes another prompt, and where labels share a token.
        """
        asked = ask(self.model, self.family, task)
        store = ClipStore(asked, self.engine, self.clips.limit, self.clips.sounds)
        return replace(self, task=task, asked=asked, clips=store, warnings=())


def load_subject(
    source: str | Path | None = None,
    *,
    model: SpeechLM | None = None,
    device: str | None = None,
    dtype: str | None = None,
    engine: str = "auto",
    max_rows: int | None = None,
    store_mb: int | None = None,
    task: Task | None = None,
    random_weights: int | None = None,
) -> Subject:
    """Load a checkpoint folder or hub id of any family, or take a `model` that is loaded already.

    `task` holds the question and the labels; None is the emotion task. `engine` and `max_rows` are those of
    `Engine`; `store_mb` bounds what is held of clips, in MiB (`ClipStore`). `random_weights` is a seed:
    the checkpoint's architecture, tokenizer and audio front end then have weights of transformers' own initialisation.
    """
    task = task or default_task()
    if model is not None and random_weights is not None:
        raise UserError("load_subject: random_weights= is for a checkpoint, and model= is loaded already", BAD_USAGE)
    if model is not None:
        family = family_of_model(model)
        name, sha256 = family.name, model_hash(model)
    elif source is None:
        raise UserError("load_subject needs a checkpoint folder, a hub id or model=", BAD_USAGE)
    else:
        folder = checkpoint_folder(source)
        try:
            model = load_speech_lm(folder, device, dtype, task, random_weights)
        except LabelError as error:
            raise UserError(f"{task.where}: {error}") from None
        # After loading, so that the files are in the system's cache.
        sha256 = checkpoint_hash(folder) if random_weights is None else model_hash(model)
        family = family_of(read_config(folder))
        name = folder.resolve().name if Path(source).is_dir() else str(source).replace("/", "--")
        name += "" if random_weights is None else f" (random weights, seed {random_weights})"
    asked = ask(model, family, task, loaded=True)
    settle_threads(model.llm)
    made = Engine(model.llm, _engine(engine, family), max_rows)
    store = ClipStore(asked, made, None if store_mb is None else store_mb << 20)
    return Subject(name, sha256, family, task, asked, made, store, _warnings(asked[0], task), random_weights)


def _warnings(asked: Asked, task: Task) -> tuple[str, ...]:
    """A warning where the prompt lacks the question, which only the default one may."""
    if asked.question in asked.model.prompt.text:
        return ()
    return (f"the prompt of this model does not hold the question of task {task.name}, which is {asked.question!r}",)


def _engine(engine: str, family: Family) -> str:
    """`auto` is the fastest engine that the family declares as exact; the engine decides where all of them are."""
    if engine != "auto" or family.engines == EXACT:
        return engine
    return next(name for name in ("tail", "sweep", "stepwise") if name in (*family.engines, "stepwise"))
