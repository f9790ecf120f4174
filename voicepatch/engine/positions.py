"""The positions after the sound: where the question stands, and what the tokens are.

question_positions(model.prompt.after, model.tokenizer, task.question)      # slice(-27, -5), counted from the end
"""

from collections.abc import Sequence
from itertools import takewhile

from voicepatch.models.labels import Tokenizer

MARKS = {"Ġ": " ", "▁": " ", "Ċ": "\n", "ĉ": "\t"}  # how tokenizers write white space


def question_positions(after: Sequence[int], tokenizer: Tokenizer, question: str) -> slice | None:
    """The tokens of the question among the ids after the sound, counted from the end of the prompt; None elsewhere.

    A token at either end of the question may also hold a neighbour's characters, and then has another id there than in
    the question alone. So the ids between the two ends are looked for, and the tokens beside them are the ends.
    """
    ids = list(tokenizer.encode(question, add_special_tokens=False))
    for n_ends in (0, 1):
        inner = ids[n_ends : len(ids) - n_ends]
        starts = [i for i in range(len(after) - len(inner) + 1) if list(after[i : i + len(inner)]) == inner]
        if inner and starts:
            first, stop = starts[-1] - n_ends, starts[-1] + len(inner) + n_ends
            return slice(max(first, 0) - len(after), min(stop, len(after)) - len(after))
    return None


def n_shared(a: Sequence[int], b: Sequence[int]) -> int:
    """The number of tokens that both end with."""
    return len(list(takewhile(lambda both: both[0] == both[1], zip(reversed(a), reversed(b), strict=False))))


def token_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The text of each token, as a figure shows it."""
    texts = []
    for token in tokenizer.convert_ids_to_tokens(list(ids)):
        for mark, text in MARKS.items():
            token = token.replace(mark, text)
        texts.append(token)
    return texts
