"""Labels of texts that a file beside the data gives: `--texts FILE.csv`.

texts = read_texts(Path("texts.csv"), task)         # rows with text_id, the words' label, optionally text, text_type
clips, warnings = with_texts(clips, texts, task)    # those labels in place of the data's own
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pairs.rows import Row, read_rows, rows_by, warnings_of
from voicepatch.errors import UserError
from voicepatch.text import escape, listing
from voicepatch.types.clip import Clip
from voicepatch.types.task import Task

Texts = Mapping[str, Row]  # by text_id
_OPTIONAL_COLUMNS = ("text", "text_type")


def read_texts(path: Path, task: Task) -> Texts:
    """The rows of a CSV or JSONL file by their text_id; `UserError` names the row that is wrong."""
    columns = ("text_id", *task.text_columns)
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; --texts is a CSV file with {', '.join(columns)}")
    texts = rows_by(read_rows(path, columns, _OPTIONAL_COLUMNS, elsewhere=(task.voice,)), "text_id")
    for row in texts.values():
        row.label_of_words(task)  # checked here, because not every text need be in the data
    return texts


def with_texts(clips: Sequence[Clip], texts: Texts, task: Task) -> tuple[list[Clip], list[str]]:
    """The clips with the labels of `texts`, and warnings of what is not used of them.

    A clip keeps its own label if its text_id is not there, and its own `text`, `text_type` or further column if that
    is empty there.
    """
    if not texts:
        return list(clips), []
    path = next(iter(texts.values())).path
    known = {clip.text_id for clip in clips}
    unknown = [text_id for text_id in texts if text_id not in known]
    if len(unknown) == len(texts):
        raise UserError(
            f"{path}: no text_id of it is one of the data's; theirs are {listing(sorted(known), most=3)}, "
            f"its first is {escape(unknown[0])}"
        )
    fields = {
        text_id: row.label_of_words(task)
        | {column: value for column in _OPTIONAL_COLUMNS if (value := row.optional(column))}
        for text_id, row in texts.items()
    }
    labelled = [
        replace(clip, columns={**clip.columns, **texts[clip.text_id].columns}, **fields[clip.text_id])
        if clip.text_id in texts
        else clip
        for clip in clips
    ]
    warnings = warnings_of(texts.values(), _OPTIONAL_COLUMNS)
    return labelled, [*warnings, *([f"{path.name}: texts that no clip has: {listing(unknown)}"] if unknown else [])]
