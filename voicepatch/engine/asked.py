"""The prompts in which a loaded model is asked a task's question: one, or one for each order of its options.

asked = ask(model, family, task)
asked[0].model.prompt, asked[0].labels.token_ids
"""

from dataclasses import dataclass
from functools import cached_property

from voicepatch.engine.positions import question_positions
from voicepatch.errors import UserError
from voicepatch.models.family import Family, own_code
from voicepatch.models.labels import LabelError, LabelTokenizerHelper
from voicepatch.models.speech_lm import SpeechLM
from voicepatch.types.task import Task, default_task


@dataclass(frozen=True)
class Asked:
    """A question in a prompt: the model with this prompt, and the token of each label's answer."""

    question: str
    model: SpeechLM
    labels: LabelTokenizerHelper

    @cached_property
    def positions(self) -> slice | None:
        """The question's own tokens, as `PairInput.question` has them."""
        return question_positions(self.model.prompt.after, self.model.tokenizer, self.question)


def ask(model: SpeechLM, family: Family, task: Task, loaded: bool = False) -> tuple[Asked, ...]:
    """The prompts of a task; `loaded` says that the model was loaded with the first of them.

    The others are made by its method `ask`; `UserError` where it has none, and where two labels have one token.
    """
    try:
        return tuple(_ask(model, family, task, order, loaded and not order) for order in range(task.n_orders))
    except LabelError as error:
        raise UserError(f"{task.where}: {error}") from None


def _ask(model: SpeechLM, family: Family, task: Task, order: int, loaded: bool) -> Asked:
    question = task.asked(order)
    is_there = question in model.prompt.text
    if hasattr(model, "ask") and not (loaded and is_there):
        with own_code(family, "ask"):
            model = model.ask(question, task.texts)
    elif not is_there and not (loaded and task == default_task()):
        raise UserError(
            f"task {task.name}: the prompt of this model does not hold the question {question!r}; give the family's "
            f"load a parameter `question`, or the model a method `ask(question, labels)` ({family.where})"
        )
    with own_code(family, "the tokenizer"):
        return Asked(question, model, LabelTokenizerHelper(model.tokenizer, task.answers_in(order)))
