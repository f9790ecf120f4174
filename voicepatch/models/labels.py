"""The labels of a task and the one token that each of them is read from.

helper = LabelTokenizerHelper(tokenizer, task.answers_in())
helper.token_ids                # one id a label, in the order of the labels
helper.report()                 # what tokenization_report.json holds
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from voicepatch.errors import UserError


class Tokenizer(Protocol):
    """The two calls needed of a Hugging Face tokenizer."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]: ...

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]: ...


class LabelError(UserError):
    """The labels of a task have no token, or two labels have the same first token."""


class LabelTokenizerHelper:
    """One token id a label: the first token of its answer as the model would write it, without a leading space.

    The answer is the label itself, or the text that a mapping gives for it. `token_ids` is a list of `len(labels)` ints
    in the order of `labels`. An answer of several tokens is approximated by its first one, which `report()` says (SPEC
    section 1).

    Raises `LabelError` when an answer has no token or two of them share their first token.
    """

    def __init__(self, tokenizer: Tokenizer, labels: Sequence[str] | Mapping[str, str]):
        self.labels = tuple(labels)
        answers = labels if isinstance(labels, Mapping) else dict(zip(labels, labels, strict=True))
        self._entries: dict[str, dict[str, Any]] = {}
        for label, text in answers.items():
            ids = list(tokenizer.encode(text, add_special_tokens=False))
            if not ids:
                raise LabelError(f"label {text!r}: the tokenizer makes no token of it; use another label or tokenizer")
            self._entries[label] = {
                "text": text,
                "token_ids": ids,
                "tokens": list(tokenizer.convert_ids_to_tokens(ids)),
                "id_used": ids[0],
                "multi_token": len(ids) > 1,
            }
        self.token_ids = [entry["id_used"] for entry in self._entries.values()]
        for label, token_id in zip(self.labels, self.token_ids, strict=True):
            first = self.labels[self.token_ids.index(token_id)]
            if first != label:
                raise LabelError(
                    f"labels {answers[first]!r} and {answers[label]!r} start with the same token, so the restricted "
                    f"{len(labels)}-way answer cannot tell them apart; use other labels (or answers) in the task, or a "
                    "tokenizer that separates them"
                )

    def report(self) -> dict[str, Any]:
        """`tokenization_report.json`: for each label its text, ids, tokens, the id used, and `multi_token`."""
        return {
            "labels": self._entries,
            "first_token_collision": {"found": False, "labels": []},  # a collision is an error
            "note": "A label with multi_token true is approximated by its first token.",
        }
