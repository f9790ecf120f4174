"""One recording of a data set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording: what is said (`text_id`, `text`, `semantic_label`) and how (`prosody_label`, `speaker`).

    `prosody_label` is the label that the voice gives, `semantic_label` the one that the words give, None where the task
    has no such label; both are labels of the task, whatever its columns are called. `path` is absolute. `text_type` is
    any further sort of texts, such as explicit or implicit, that a control should hold fixed. `columns` are the further
    columns of the data that have a value for this clip, by their names. The spellings are how the data write the two
    labels, where that is known.
    """

    clip_id: str
    path: Path
    text_id: str
    text: str
    semantic_label: str | None
    prosody_label: str
    speaker: str | None = None
    language: str | None = None
    text_type: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    semantic_spelling: str = field(default="", compare=False)
    prosody_spelling: str = field(default="", compare=False)
