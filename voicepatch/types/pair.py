"""A pair of clips, the sample that an experiment runs on, and the rows of its pair list."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from voicepatch.errors import UserError
from voicepatch.text import short_repr
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import Dataset

KINDS = ("prosody", "semantic")
_ROW_COLUMNS = ("text_id", "semantic_label", "prosody_label", "speaker", "text_type")


@dataclass(frozen=True, slots=True)
class Pair:
    """Recipient `a`, donor `b`, and the label that the answer should move to when b's activation replaces a's."""

    pair_id: str
    kind: str
    a: Clip
    b: Clip
    target: str


@dataclass(frozen=True)
class PairSample:
    """The pairs in the order they are run, and one kind's part of pair_construction_report.json."""

    pairs: tuple[Pair, ...]
    report: dict[str, Any]


def construction_report(sample: PairSample, dataset: Dataset) -> dict[str, Any]:
    """What `pair_construction_report.json` holds of one kind of pair: the sample's report and the data's warnings."""
    return {**sample.report, "data_warnings": list(dataset.warnings)}


def pair_row(pair: Pair) -> dict[str, str | None]:
    """One row of `pair_list_NAME.jsonl`: the pair, and the labels of both clips as `text_id_a`, `text_id_b`, …"""
    row: dict[str, str | None] = {
        "pair_id": pair.pair_id,
        "kind": pair.kind,
        "clip_a": pair.a.clip_id,
        "clip_b": pair.b.clip_id,
        "target": pair.target,
    }
    for side, clip in (("a", pair.a), ("b", pair.b)):
        row |= {f"{column}_{side}": getattr(clip, column) for column in _ROW_COLUMNS}
    return row


def pairs_from_rows(rows: Iterable[Mapping[str, Any]], clips: Iterable[Clip]) -> tuple[Pair, ...]:
    """The pairs that `pair_row` made `rows` of, in their order; `UserError` when a clip is not among `clips`."""
    by_id = {clip.clip_id: clip for clip in clips}
    pairs = []
    for number, row in enumerate(rows, start=1):
        try:
            pair_id, kind, target = row["pair_id"], row["kind"], row["target"]
            a_id, b_id = row["clip_a"], row["clip_b"]
        except KeyError as error:
            raise UserError(f"pair list, row {number}: no {error}; build the pairs again") from error
        for clip_id in (a_id, b_id):
            if clip_id not in by_id:
                raise UserError(
                    f"pair list, row {number}: the data hold no clip {short_repr(clip_id)}; "
                    "give the data that the pairs were built from, or build them again"
                )
        pairs.append(Pair(pair_id, kind, by_id[a_id], by_id[b_id], target))
    return tuple(pairs)
