"""The rows of a run's files: a pair, a record, a failed pair and an answer, each declared once.

    record_type(task.labels, ("head",))       # a line of patching_records_NAME.jsonl, with a column for option `head`
    record_type(task.labels, approximate=True)       # of an experiment whose logits are estimates
    answer_type(task.labels)                         # a line of answers.jsonl

Writer, reader, documentation and metrics share these declarations. Every key must be there and no other key may be;
numbers are finite and within the declared range. The descriptions are those of results/README.md.
"""

import types
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Generic, Literal, TypeVar

from msgspec import Meta, Struct, defstruct

Kind = Literal["prosody", "semantic"]
Count = Annotated[int, Meta(ge=0, le=2**53)]
# Differences of two float32 values fit in; sums and squares of these stay finite in float64.
LARGEST = 1e39
Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Size = Annotated[float, Meta(ge=0, le=LARGEST)]
Mass = Annotated[float, Meta(ge=0, le=1.01)]  # a probability, with the noise of float32
Dose = Annotated[float, Meta(gt=0, le=1)]

DOSE = "patch_alpha"
APPROXIMATE = "approximate"  # true in each record whose logits are estimates; no other record has it
LOGITS = ("logits_base", "logits_patch", "logits_donor")
OF_PAIR = ("clip_a", "clip_b", "target", "semantic_label_b", "prosody_label_b")  # as in the pair list

Label = TypeVar("Label", bound=str)  # one of the task's labels
Logits = TypeVar("Logits")  # an object label → logit


class Keys(Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Base of the declarations: these keys and no others."""


class PairRow(Keys, Generic[Label]):
    """One line of `pair_list_NAME.jsonl`: a pair, and what the data say of both clips."""

    pair_id: Annotated[str, Meta(description="the unique name of the pair")]
    kind: Annotated[Kind, Meta(description="what differs between A and B")]
    clip_a: Annotated[str, Meta(description="A, the recipient")]
    clip_b: Annotated[str, Meta(description="B, the donor")]
    target: Annotated[Label, Meta(description="the label that counts as a flip; B's own in a main experiment")]
    text_id_a: Annotated[str, Meta(description="A's text")]
    semantic_label_a: Annotated[Label | None, Meta(description="the label of A's words; null if the task has none")]
    prosody_label_a: Annotated[Label, Meta(description="the label of A's voice")]
    speaker_a: Annotated[str | None, Meta(description="A's speaker, if the data name one")]
    text_type_a: Annotated[str | None, Meta(description="the type of A's text, if the data name one")]
    text_id_b: Annotated[str, Meta(description="B's text")]
    semantic_label_b: Annotated[Label | None, Meta(description="the label of B's words, or null")]
    prosody_label_b: Annotated[Label, Meta(description="the label of B's voice")]
    speaker_b: Annotated[str | None, Meta(description="B's speaker, if the data name one")]
    text_type_b: Annotated[str | None, Meta(description="the type of B's text, if the data name one")]


class Record(Keys, Generic[Label, Logits]):
    """One line of `patching_records_NAME.jsonl`: a pair at one layer and one value of each swept option."""

    pair_id: Annotated[str, Meta(description="the pair, as in the pair list")]
    clip_a: Annotated[str, Meta(description="A, as in the pair list")]
    clip_b: Annotated[str, Meta(description="B, as in the pair list")]
    layer: Annotated[Count, Meta(description="the decoder layer that was patched")]
    target: Annotated[Label, Meta(description="as in the pair list")]
    pred_base: Annotated[Label, Meta(description="A's own answer: the largest of `logits_base`")]
    pred_patch: Annotated[Label, Meta(description="the patched answer: the largest of `logits_patch`")]
    eligible: Annotated[bool, Meta(description="whether A's own answer differs from the target")]
    flip_to_target: Annotated[bool, Meta(description="whether the patched answer is the target")]
    flip_from_base: Annotated[bool, Meta(description="whether the patched answer differs from A's own")]
    delta_logit_target: Annotated[Number, Meta(description="the target's logit, patched − unpatched")]
    logits_base: Annotated[Logits, Meta(description="label → logit of A, unpatched")]
    logits_patch: Annotated[Logits, Meta(description="label → logit of A, patched")]
    logits_donor: Annotated[Logits, Meta(description="label → logit of B, unpatched")]
    len_a: Annotated[Count, Meta(description="audio positions of A")]
    len_b: Annotated[Count, Meta(description="audio positions of B")]
    n_patched: Annotated[Count, Meta(description="number of positions that were written")]
    patch_alpha: Annotated[Dose, Meta(description="the dose")]
    semantic_label_b: Annotated[Label | None, Meta(description="the label of B's words, or null")]
    prosody_label_b: Annotated[Label, Meta(description="the label of B's voice")]
    label_mass_base: Annotated[Mass, Meta(description="probability of all labels together, for A")]
    label_mass_patch: Annotated[Mass, Meta(description="the same for patched A")]
    stream_shift: Annotated[
        Size, Meta(description="relative change of the values that were written: ‖new − old‖ / ‖old‖")
    ]
    patched_from: Annotated[
        Count | None,
        Meta(description="the first position written, in the expanded sequence; null if nothing was written"),
    ]
    site: Annotated[
        str, Meta(description="what was written in the block, such as `mlp.output`; `output` is the residual stream")
    ]


class FailedPair(Keys):
    """One line of `failed_pairs_NAME.jsonl`: a pair that gave no record."""

    pair_id: Annotated[str, Meta(description="the pair, as in the pair list")]
    reason: Annotated[str, Meta(description="the clip that could not be read, or the non-finite number")]
    skipped: Annotated[bool, Meta(description="whether `--on-bad-clip skip` left it out, which is not a failure")]


class AnswerRow(Keys, Generic[Label, Logits]):
    """One line of `answers.jsonl`: a clip, and the model's answer to it when nothing is patched."""

    clip_id: Annotated[str, Meta(description="the clip")]
    text_id: Annotated[str, Meta(description="its text")]
    text_type: Annotated[str | None, Meta(description="the type of its text, if the data name one")]
    speaker: Annotated[str | None, Meta(description="its speaker, if the data name one")]
    semantic_label: Annotated[Label | None, Meta(description="the label of its words; null if the task has none")]
    prosody_label: Annotated[Label, Meta(description="the label of its voice")]
    answer: Annotated[Label, Meta(description="the model's answer: the largest of `logits`")]
    label_mass: Annotated[Mass, Meta(description="probability of all labels together")]
    logits: Annotated[Logits, Meta(description="label → logit")]


def column_key(column: str, side: str) -> str:
    """The key in a pair list of a further column of the data, for A or B: `gender_a`.

    `data_prosody_label_a` where the pair list has a key of that name already.
    """
    key = f"{column}_{side}"
    return f"data_{key}" if key in PairRow.__struct_fields__ else key


@cache
def pair_row_type(labels: tuple[str, ...], columns: tuple[str, ...] = ()) -> Any:
    """The type of a line of a pair list, for a task with these labels and data with these further columns."""
    of_task = PairRow[Literal[labels]]  # type: ignore[valid-type]
    keys = {
        f"column_{number}_{side}": column_key(column, side) for number, column in enumerate(columns) for side in "ab"
    }
    options = {"rename": keys}  # a column may have any name
    body = {"__annotations__": dict.fromkeys(keys, str | None)}
    return types.new_class("PairRow", (of_task,), options, lambda made: made.update(body)) if keys else of_task


@cache
def record_type(labels: tuple[str, ...], swept: Sequence[str] = (), approximate: bool = False) -> Any:
    """The type of a record, for a task with these labels, with a column for each of the swept options.

    That of an `approximate` experiment has the key `APPROXIMATE` as well.
    """
    options = {name: Any for name in swept if name != DOSE} | ({APPROXIMATE: bool} if approximate else {})
    of_task = Record[Literal[labels], _logits_type(labels)]  # type: ignore[valid-type,misc]
    return types.new_class("Record", (of_task,), exec_body=lambda body: body.update(__annotations__=options))


@cache
def answer_type(labels: tuple[str, ...]) -> Any:
    """The type of a line of the answers, for a task with these labels."""
    return AnswerRow[Literal[labels], _logits_type(labels)]  # type: ignore[valid-type,misc]


def _logits_type(labels: Sequence[str]) -> Any:
    """An object label → logit; a label may be any text."""
    fields = {f"label_{number}": label for number, label in enumerate(labels)}
    declared = [(field, Number) for field in fields]
    return defstruct("Logits", declared, bases=(Keys,), rename=fields, kw_only=True, gc=False)
