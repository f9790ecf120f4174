"""Labels of texts that a file beside the data gives: `--texts FILE.csv`.

texts = read_texts(Path("texts.csv"), task)         # rows with text_id, the words' label, optionally text, text_type
clips, warnings = with_texts(clips, texts, task)    # those labels in place of the data's own
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pairs.rows import Row, read_rows, warnings_of
from voicepatch.errors import UserError
from voicepatch.text import escape, listing, short_repr
from voicepatch.types.clip import Clip
from voicepatch.types.task import Task

Texts = Mapping[str, Row]  # by text_id
_OPTIONAL_COLUMNS = ("text", "text_type")


def read_texts(path: Path, task: Task) -> Texts:
    """The rows of a CSV or JSONL file by their text_id; `UserError` names the row that is wrong."""
    if not os.path.isfile(path):
        columns = ", ".join(("text_id", *task.text_columns))
        raise UserError(f"{path}: no such file; --texts is a CSV file with {columns}")
    texts: dict[str, Row] = {}
    for row in read_rows(path, ("text_id", *task.text_columns), _OPTIONAL_COLUMNS):
        text_id = row.required("text_id")
        if text_id in texts:
            raise row.error(
                f"text_id {short_repr(text_id)} is already in row {texts[text_id].number}; keep one of them"
            )
        row.words_label(task)
        texts[text_id] = row
    return texts


def with_texts(clips: Sequence[Clip], texts: Texts, task: Task) -> tuple[list[Clip], list[str]]:
    """The clips with the labels of `texts`, and warnings of what is not used of them.

    A clip whose text_id is not there, and an empty `text` or `text_type`, keep what the data say.
    """
    if not texts:
        return list(clips), []
    path = next(iter(texts.values())).path
    known = {clip.text_id for clip in clips}
    strays = [text_id for text_id in texts if text_id not in known]
    if len(strays) == len(texts):
        raise UserError(
            f"{path}: no text_id of it is one of the data's; theirs are {listing(sorted(known), most=3)}, "
            f"its first is {escape(strays[0])}"
        )
    labelled = [
        replace(
            clip,
            semantic_label=row.words_label(task),
            semantic_spelling=row.words_spelling(task),
            text=row.optional("text") or clip.text,
            text_type=row.optional("text_type") or clip.text_type,
        )
        if (row := texts.get(clip.text_id))
        else clip
        for clip in clips
    ]
    warnings = warnings_of(texts.values(), _OPTIONAL_COLUMNS)
    return labelled, [*warnings, *([f"{path.name}: texts that no clip speaks: {listing(strays)}"] if strays else [])]
