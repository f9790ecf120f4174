"""A pair of clips, the sample that an experiment runs on, and the rows of its pair list."""

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from voicepatch.types.clip import Clip
from voicepatch.types.dataset import Dataset
from voicepatch.types.record import column_key
from voicepatch.types.selection import Condition

KINDS = ("prosody", "semantic")
# Gives the model's own answer to each clip, by clip_id; a clip without one is missing.
Answers = Callable[[Sequence[Clip]], dict[str, str]]
COLUMNS_OF_CLIP = ("text_id", "semantic_label", "prosody_label", "speaker", "text_type")


@dataclass(frozen=True, slots=True)
class Pair:
    """Recipient `a`, donor `b`, and the label that the answer should move to when b's activation replaces a's."""

    pair_id: str
    kind: str
    a: Clip
    b: Clip
    target: str


def clips_of(pairs: Iterable[Pair]) -> list[Clip]:
    """The clips of pairs, each once, in their order."""
    return list({clip.clip_id: clip for pair in pairs for clip in (pair.a, pair.b)}.values())


def is_congruent(kind: Any, shared_voice: Any, target: Any) -> Any:
    """Whether the voice that A and B of a semantic pair share is the target: for one pair, or for columns of pairs.

    The voice alone can then make A's answer the target, so a flip is no evidence for B's words.
    """
    return (kind == "semantic") & (shared_voice == target)


@dataclass(frozen=True)
class PairSample:
    """The pairs in the order they are run, and one kind's part of pair_construction_report.json.

    `clips` are those that the conditions `where` select; controls draw their donors from them. `answers` are the
    model's own answers, where only pairs that it answers count.
    """

    pairs: tuple[Pair, ...]
    report: dict[str, Any]
    clips: tuple[Clip, ...]
    where: tuple[Condition, ...] = ()
    answers: Answers | None = None


def half_of(texts: Collection[str], seed: int) -> set[str]:
    """A random half of the texts, the smaller one of an odd number."""
    return set(random.Random(f"{seed}:halves").sample(sorted(texts), len(texts) // 2))


def construction_report(sample: PairSample, dataset: Dataset) -> dict[str, Any]:
    """What `pair_construction_report.json` holds of one kind of pair: the sample's report and the data's warnings."""
    return {**sample.report, "data_warnings": list(dataset.warnings)}


def pair_row(pair: Pair, columns: Sequence[str] = ()) -> dict[str, str | None]:
    """One row of `pair_list_NAME.jsonl`: the pair, and what the data say of both clips as `text_id_a`, `text_id_b`, …

    `columns` are the further ones of the data set (`Dataset.columns`).
    """
    row: dict[str, str | None] = {
        "pair_id": pair.pair_id,
        "kind": pair.kind,
        "clip_a": pair.a.clip_id,
        "clip_b": pair.b.clip_id,
        "target": pair.target,
    }
    for side, clip in (("a", pair.a), ("b", pair.b)):
        row |= {f"{column}_{side}": getattr(clip, column) for column in COLUMNS_OF_CLIP}
    for column in columns:
        for side, clip in (("a", pair.a), ("b", pair.b)):
            row[column_key(column, side)] = clip.language if column == "language" else clip.columns.get(column)
    return row
