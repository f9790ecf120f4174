"""What is experimented on.

    subject = load_subject("demo/opens2s-demo")
    clip_input = subject.clips.get(clip)             # encoded on first use
    subject.clips.unpatched(clip)                    # the answer nobody interfered with

One model with its task, its answer tokens, and the clips that it has encoded. `subject.asking(task)` asks another
question, with the same weights and encoded sounds.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from voicepatch.engine.asked import Asked, ask
from voicepatch.engine.clips import ClipStore
from voicepatch.engine.engine import Engine
from voicepatch.engine.needed_memory import refuse_too_large
from voicepatch.engine.threads import settle_threads
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.models.adapter_folder import added_adapter, find_checkpoint, name_of, unread_files
from voicepatch.models.checkpoint import adapter_hash, checkpoint_hash, model_hash
from voicepatch.models.families import family_of
from voicepatch.models.family import Family
from voicepatch.models.folder import read_config
from voicepatch.models.labels import LabelError, LabelTokenizerHelper
from voicepatch.models.speech_lm import SpeechLM, family_of_model, load_speech_lm
from voicepatch.types.task import Task, default_task


@dataclass(frozen=True)
class Subject:
    """A loaded model, ready for experiments that ask one task's question.

    `asked` are the task's prompts: one, or one for each order of its options. `warnings` are what a reader of its
    results must know, one line each. `random_weights` is the seed of the weights where they are not the checkpoint's.
    `adapter` is what a run records of an adapter that was merged: its hash, and the name and hash of its base.
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
    adapter: dict[str, str] | None = None

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
    base: str | None = None,
) -> Subject:
    """Load a checkpoint folder or hub id of any family, or take a `model` that is loaded already.

    An adapter (LoRA) in the folder is merged. Where it lies there alone, `base` is the folder or hub id of its base
    model, None for the one that `adapter_config.json` names.

    `task` holds the question and the labels; None is the emotion task. `engine` and `max_rows` are those of
    `Engine`; `store_mb` bounds what is held of clips, in MiB (`ClipStore`). `random_weights` is a seed:
    the checkpoint's architecture, tokenizer and audio front end then have weights of transformers' own initialisation.
    """
    task = task or default_task()
    if model is not None and random_weights is not None:
        raise UserError("load_subject: random_weights= is for a checkpoint, and model= is loaded already", BAD_USAGE)
    adapter: dict[str, str] | None = None
    warnings: tuple[str, ...] = ()
    if model is not None:
        family = family_of_model(model)
        name, sha256 = family.name, model_hash(model)
    elif source is None:
        raise UserError("load_subject needs a checkpoint folder, a hub id or model=", BAD_USAGE)
    else:
        found = find_checkpoint(source, base)
        family = family_of(read_config(found.folder))
        refuse_too_large(found.folder, device, dtype)
        try:
            model = load_speech_lm(found.folder, device, dtype, task, random_weights, found.adapter)
        except LabelError as error:
            raise UserError(f"{task.where}: {error}") from None
        name = name_of(source)
        if random_weights is not None:
            name, sha256 = f"{name} (random weights, seed {random_weights})", model_hash(model)
        else:
            # After loading, so that the files are in the system's cache.
            sha256 = checkpoint_hash(found.folder)
            if (folder := added_adapter(found)) is not None:
                adapter = {"sha256": adapter_hash(folder), "base": found.name, "base_sha256": sha256}
                sha256 = hashlib.sha256(f"{sha256} {adapter['sha256']}".encode()).hexdigest()
                warnings = _unread(found.folder, family, folder)
    asked = ask(model, family, task, loaded=True)
    settle_threads(model.llm)
    made = Engine(model.llm, family.engine(engine), max_rows)
    store = ClipStore(asked, made, None if store_mb is None else store_mb << 20)
    warnings += _warnings(asked[0], task)
    return Subject(name, sha256, family, task, asked, made, store, warnings, random_weights, adapter)


def _unread(folder: Path, family: Family, adapter: Path) -> tuple[str, ...]:
    """A warning where the adapter's folder has another tokenizer or template than its base."""
    names = unread_files(folder, family, adapter)
    if not names:
        return ()
    return (f"{', '.join(names)} in the adapter's folder differ from those of the base model, which are read",)


def _warnings(asked: Asked, task: Task) -> tuple[str, ...]:
    """A warning where the prompt lacks the question, which only the default one may."""
    if asked.question in asked.model.prompt.text:
        return ()
    return (f"the prompt of this model does not hold the question of task {task.name}, which is {asked.question!r}",)
