"""The question that a model is asked, and the labels that it may answer with.

    task = load_task("emotion")             # tasks/emotion.yaml, the default
    task = load_task("my/gender.yaml")
    task.label_of("Pleasant_Surprise")      # "surprised"; None for text that is no spelling of a label
    task.asked(), task.answers_in()         # the question, and what the model writes for each label

A task file holds the fields of `Task`; docs/tasks.md explains them.
"""

import difflib
import hashlib
import re
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.files import FIT_FOR_A_NAME
from voicepatch.paths import ROOT
from voicepatch.text import short_repr
from voicepatch.yaml_file import read_yaml

FOLDER = ROOT / "tasks"
DEFAULT = "emotion"
EXAMPLE = "tasks/emotion.yaml"
DONOR_TASK = "donor_task"  # the option of an experiment that asks B another task's question
OPTIONS = "{options}"  # stands for the list of options in a question
# Columns of the data that have another meaning.
OF_EVERY_CLIP = ("clip_id", "path", "text_id", "text", "speaker", "language", "text_type")


class Task(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """A question and the labels that answer it.

    `voice` and `words` are the columns of the data with the label that the voice gives and the one that the words give.
    Where `words` is None, only prosody pairs exist. `spellings` maps other ways of writing a label to the label.
    `speaker` is "may_differ" where the label of the voice belongs to the speaker, such as gender. `answers` holds what
    the model writes for each label where that is not the label itself, such as a letter. With `orders` "cyclic" the
    question is asked with each cyclic shift of the options.
    """

    name: str
    question: str
    labels: tuple[str, ...]
    voice: str = "prosody_label"
    words: str | None = "semantic_label"
    speaker: Literal["same", "may_differ"] = "same"
    spellings: dict[str, str] = {}
    answers: dict[str, str] = {}
    orders: Literal["cyclic"] | None = None

    def __hash__(self) -> int:
        return hash(self.sha256)

    @property
    def where(self) -> str:
        """Where a user finds it: its file, or its name where it was not read from one."""
        return self.__dict__.get("file", f"task {self.name}")

    @property
    def source(self) -> str:
        """What `--task` takes: the name of a task of the program, or its file; its name where it has no file."""
        file = self.__dict__.get("file", self.name)
        return self.name if Path(file) == FOLDER / f"{self.name}.yaml" else file

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of pair that the task allows."""
        return ("prosody",) if self.words is None else ("prosody", "semantic")

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The column of the words' label, where there is one."""
        return () if self.words is None else (self.words,)

    @property
    def same_speaker(self) -> bool:
        """Whether both clips of a pair have one speaker unless the user says otherwise."""
        return self.speaker == "same"

    def label_of(self, text: str) -> str | None:
        """The label that `text` is a spelling of, or None.

        Case, outer space, and the choice of space, `_` or `-` between words do not matter (SPEC section 11).
        """
        return self._label_of.get(_folded(text))

    @property
    def n_orders(self) -> int:
        """The number of orders in which the options are offered."""
        return len(self.labels) if self.orders else 1

    @property
    def texts(self) -> tuple[str, ...]:
        """What the model may write as an answer, in the labels' order."""
        return tuple(self.answers.get(label, label) for label in self.labels)

    def answers_in(self, order: int = 0) -> dict[str, str]:
        """Each label with what the model writes for it where the options are shifted by `order` places."""
        offered = self._offered(order)
        return {label: offered[label] for label in self.labels}

    def asked(self, order: int = 0) -> str:
        """The question with its options, shifted by `order` places: `A. female, B. male`."""
        return self.question.replace(OPTIONS, self.options(order))

    def options(self, order: int = 0) -> str:
        """The list of options, shifted by `order` places."""
        return ", ".join(f"{answer}. {label}" for label, answer in self._offered(order).items())

    def _offered(self, order: int) -> dict[str, str]:
        """The options in the order of their answers; a shift moves the labels and leaves the answers in place."""
        in_order = sorted(zip(self.texts, self.labels, strict=True), key=lambda option: (len(option[0]), option))
        answers, labels = zip(*in_order, strict=True)
        return dict(zip((*labels[order:], *labels[:order]), answers, strict=True))

    @cached_property
    def _label_of(self) -> Mapping[str, str]:
        labels = {_folded(label): label for label in self.labels}
        return labels | {_folded(spelling): label for spelling, label in self.spellings.items()}

    @cached_property
    def sha256(self) -> str:
        """Of all fields, whatever the file's comments and the order of its keys."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()

    def identity(self) -> dict[str, Any]:
        """What a run records of its task."""
        return {**msgspec.json.decode(msgspec.json.encode(self)), "sha256": self.sha256}


@cache
def default_task() -> Task:
    """The emotion task."""
    return load_task(DEFAULT)


def task_names() -> list[str]:
    """The tasks that come with the program."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_task(name_or_file: str | Path, flag: str = "--task") -> Task:
    """The task of a name (`tasks/NAME.yaml`) or of a file; `UserError` that names the file for what is wrong in it.

    `flag` is the option that names it.
    """
    path = Path(name_or_file)
    if not str(name_or_file).endswith((".yaml", ".yml")):
        path = FOLDER / f"{name_or_file}.yaml"
        if not FIT_FOR_A_NAME.fullmatch(str(name_or_file)) or not path.is_file():
            close = difflib.get_close_matches(str(name_or_file)[:80], task_names(), n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UserError(
                f"{flag} {short_repr(str(name_or_file))}: no such task; {hint}Use one of {', '.join(task_names())}, or "
                "a .yaml file",
                BAD_USAGE,
            )
    content = read_yaml(path, flag, EXAMPLE)
    try:
        task = msgspec.convert(content, Task)
    except msgspec.ValidationError as error:
        # YAML reads yes, no, on, off and bare numbers as other types than text.
        hint = "; put text in quotes" if "got `bool`" in str(error) or "got `int`" in str(error) else ""
        hint += "; leave orders out, or write cyclic" if "$.orders" in str(error) else ""
        raise UserError(f"{flag} {path}: {error}{hint}; see {EXAMPLE}", BAD_USAGE) from None
    wrong = _wrong(task) or _wrong_answers(task)
    if wrong:
        raise UserError(f"{flag} {path}: {wrong}; see {EXAMPLE}", BAD_USAGE)
    task.__dict__["file"] = str(path)
    return task


def task_of(recorded: Mapping[str, Any]) -> Task:
    """The task that a run's configuration records."""
    return msgspec.convert({key: value for key, value in recorded.items() if key != "sha256"}, Task)


def _folded(text: str) -> str:
    return " ".join(text.replace("_", " ").replace("-", " ").casefold().split())


def _wrong(task: Task) -> str:
    """What is wrong in a task; "" where nothing is."""
    texts = {"name": task.name, "question": task.question, "voice": task.voice, "words": task.words or "words"}
    lists = {"labels": task.labels, "answers": task.answers.values()}
    for field, text in [*texts.items(), *((field, text) for field, listed in lists.items() for text in listed)]:
        if not text.strip() or not text.isprintable() or text != text.strip():
            return f"{field} has {short_repr(text)}; write one line of text without outer spaces"
    if not FIT_FOR_A_NAME.fullmatch(task.name):
        return f"name is {short_repr(task.name)}; use letters, digits, _ and -"
    if len(task.labels) < 2:
        return f"labels has {len(task.labels)}; at least two labels are needed"
    folded = [_folded(label) for label in task.labels]
    if len(set(folded)) < len(folded):
        return f"labels has {short_repr(next(x for x in task.labels if folded.count(_folded(x)) > 1))} twice"
    if task.voice == task.words:
        return f"voice and words are both {task.voice}; they must be two columns"
    for field, column in (("voice", task.voice), ("words", task.words)):
        if column in OF_EVERY_CLIP:
            return f"{field} is {column}, a column with another meaning"
    for spelling, label in task.spellings.items():
        if label not in task.labels:
            return f"spellings gives {short_repr(spelling)} the label {short_repr(label)}, which is not among labels"
        if task._label_of[_folded(spelling)] != label:
            return f"spellings gives {short_repr(spelling)} two labels"
        if _folded(spelling) in folded and _folded(label) != _folded(spelling):
            return f"spellings gives the label {short_repr(spelling)} another label"
    return ""


def _wrong_answers(task: Task) -> str:
    """What is wrong in `answers`, `orders` and the place of the options; "" where nothing is."""
    has_options = OPTIONS in task.question
    for written in re.findall(r"\{\s*options?\s*\}", task.question, re.IGNORECASE):
        if written != OPTIONS:
            return f"question has {short_repr(written)}; write {OPTIONS}"
    if task.orders and not (task.answers and has_options):
        missing = "answers" if not task.answers else f"{OPTIONS} in the question"
        return f"orders is {task.orders}, which needs {missing}"
    if not task.answers:
        return f"question has {OPTIONS}, which needs answers" if has_options else ""
    for label in task.answers:
        if label not in task.labels:
            close = difflib.get_close_matches(label, task.labels, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            return f"answers has {short_repr(label)}, which is not among labels{hint}"
    for label in task.labels:
        if label not in task.answers:
            return f"answers has no text for the label {short_repr(label)}"
        if task.texts.count(task.answers[label]) > 1:
            return f"answers gives two labels the text {short_repr(task.answers[label])}"
    return ""
