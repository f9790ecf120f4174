"""Which clips, and which pairs of them, count: `--where [a.|b.]COLUMN=VALUE[,VALUE]`.

    conditions = read_conditions(["text_type=explicit", "a.prosody_label=sad"], dataset.clips, task)
    [clip for clip in dataset.clips if conditions[0].holds(clip)]
    column_value(clip, "gender", task)

A column has its name in the data. The values of the task's two label columns may be spelled as in the data.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.text import listing, nfc, short_repr
from voicepatch.types.clip import Clip
from voicepatch.types.task import Task

FIELDS = ("clip_id", "text_id", "text", "text_type", "speaker", "language")  # of a clip, called as in the data


@dataclass(frozen=True)
class Condition:
    """One condition, as `text` says it: the values that a column may have, of every clip or of one side of a pair."""

    text: str
    side: str
    column: str
    values: frozenset[str]
    task: Task

    def holds(self, clip: Clip) -> bool:
        """Whether the clip has one of the values; false for a missing one."""
        return column_value(clip, self.column, self.task) in self.values


def label_roles(task: Task) -> dict[str, str]:
    """The task's label columns by their names in the data -> the field of a clip."""
    return {task.voice: "prosody_label"} | ({task.words: "semantic_label"} if task.words else {})


def column_value(clip: Clip, column: str, task: Task) -> str | None:
    """A clip's value in a column of the data; None where it is missing."""
    field = label_roles(task).get(column, column if column in FIELDS else None)
    return getattr(clip, field) if field else clip.columns.get(column)


def columns_of(clips: Sequence[Clip], task: Task) -> list[str]:
    """The columns of the data in which a clip has a value."""
    further = {column for clip in clips for column in clip.columns}
    named = [*FIELDS, *label_roles(task)]
    return [
        column for column in (*named, *sorted(further - {*named})) if any(column_value(c, column, task) for c in clips)
    ]


def read_conditions(where: Sequence[str | Condition], clips: Sequence[Clip], task: Task) -> tuple[Condition, ...]:
    """The conditions that `where` holds; `UserError` for a column or a value that no clip has, with the nearest one."""
    columns = columns_of(clips, task)
    return tuple(one if isinstance(one, Condition) else _read(nfc(one), columns, clips, task) for one in where)


def _read(text: str, columns: Sequence[str], clips: Sequence[Clip], task: Task) -> Condition:
    named = [(side, column) for side in ("", "a", "b") for column in columns]
    fitting = [one for one in named if text.startswith(f"{'.'.join(filter(None, one))}=")]
    if len(fitting) > 1:
        either = " or ".join(f"{column} of {side.upper() or 'all clips'}" for side, column in fitting)
        raise _wrong(text, f"this may be column {either}; rename one of the columns")
    if not fitting:
        name = text.partition("=")[0].removeprefix("a.").removeprefix("b.")
        close = difflib.get_close_matches(name[:80], columns, n=1)
        raise _wrong(text, f"the data have no column {short_repr(name)}; {_nearest(close, columns)}")
    ((side, column),) = fitting
    value = text.removeprefix(f"{side}.{column}=" if side else f"{column}=")
    present = {found for clip in clips if (found := column_value(clip, column, task))}
    is_label = column in label_roles(task)
    # A value may hold a comma itself.
    values = [value] if value in present else [part.strip() for part in value.split(",")]
    read = {part: (task.label_of(part) or part) if is_label else part for part in values}
    for written, meant in read.items():
        if meant not in present:
            close = difflib.get_close_matches(meant[:80], sorted(present), n=1)
            raise _wrong(text, f"no clip has {column} {short_repr(written)}; {_nearest(close, sorted(present))}")
    return Condition(text, side, column, frozenset(read.values()), task)


def _nearest(close: Sequence[str], known: Sequence[str]) -> str:
    return f"did you mean {listing(close)}?" if close else f"there is {listing(known, most=12)}"


def _wrong(text: str, why: str) -> UserError:
    return UserError(f"--where {short_repr(text)}: {why}", BAD_USAGE)
