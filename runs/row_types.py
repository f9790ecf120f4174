"""What a line of each file of a run holds: its keys and types, declared once, for writing, reading and the docs.

    record_type(("head",))            # a line of patching_records_NAME.jsonl, with the swept options

A key whose default is `UNSET` is one that an older version of the program did not write; every other key must be there,
and no key but these may. Numbers are finite and in the range declared, and a text is no number. The descriptions are
those of results/README.md.
"""

from functools import cache
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

from models.labels import LABELS

Label = Literal[LABELS]
Kind = Literal["prosody", "semantic"]
Count = Annotated[int, Meta(ge=0, le=2**53)]
# Differences of two float32 values fit in; sums and squares of these stay finite in float64.
LARGEST = 1e39
Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Size = Annotated[float, Meta(ge=0, le=LARGEST)]
Mass = Annotated[float, Meta(ge=0, le=1.01)]  # a probability, with the noise of float32
Dose = Annotated[float, Meta(gt=0, le=1)]
DOSE = "patch_alpha"


class Keys(Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Base of the declarations: these keys and no others."""


Logits = defstruct("Logits", [(label, Number) for label in LABELS], bases=(Keys,), kw_only=True, gc=False)


class PairRow(Keys):
    """One line of `pair_list_NAME.jsonl`: a pair, and what the data say of both clips."""

    pair_id: Annotated[str, Meta(description="its name, which no other pair of the list has")]
    kind: Annotated[Kind, Meta(description="what differs between A and B")]
    clip_a: Annotated[str, Meta(description="A, the recipient")]
    clip_b: Annotated[str, Meta(description="B, the donor")]
    target: Annotated[Label, Meta(description="the label that a flip goes to; B's own in a main experiment")]
    text_id_a: Annotated[str, Meta(description="A's text")]
    semantic_label_a: Annotated[Label, Meta(description="the label of A's words")]
    prosody_label_a: Annotated[Label, Meta(description="the label of A's voice")]
    speaker_a: Annotated[str | None, Meta(description="A's speaker, where the data name one")]
    text_type_a: Annotated[str | None, Meta(description="the sort of A's text, where the data name one")]
    text_id_b: Annotated[str, Meta(description="B's text")]
    semantic_label_b: Annotated[Label, Meta(description="the label of B's words")]
    prosody_label_b: Annotated[Label, Meta(description="the label of B's voice")]
    speaker_b: Annotated[str | None, Meta(description="B's speaker, where the data name one")]
    text_type_b: Annotated[str | None, Meta(description="the sort of B's text, where the data name one")]


class Record(Keys):
    """One line of `patching_records_NAME.jsonl`: a pair at one layer and one value of each swept option."""

    pair_id: Annotated[str, Meta(description="the pair, as in the pair list")]
    clip_a: Annotated[str, Meta(description="A, as in the pair list")]
    clip_b: Annotated[str, Meta(description="B, as in the pair list")]
    layer: Annotated[Count, Meta(description="the decoder layer that was patched")]
    target: Annotated[Label, Meta(description="as in the pair list")]
    pred_base: Annotated[Label, Meta(description="A's own answer: the largest of `logits_base`")]
    pred_patch: Annotated[Label, Meta(description="the patched answer: the largest of `logits_patch`")]
    eligible: Annotated[bool, Meta(description="A's own answer was not the target already")]
    flip_to_target: Annotated[bool, Meta(description="the patched answer is the target")]
    flip_from_base: Annotated[bool, Meta(description="the patched answer is no longer A's own")]
    delta_logit_target: Annotated[Number, Meta(description="the target's logit, patched − unpatched")]
    logits_base: Annotated[Logits, Meta(description="label → logit of A, unpatched")]
    logits_patch: Annotated[Logits, Meta(description="label → logit of A, patched")]
    logits_donor: Annotated[Logits, Meta(description="label → logit of B, unpatched")]
    len_a: Annotated[Count, Meta(description="audio positions of A")]
    len_b: Annotated[Count, Meta(description="audio positions of B")]
    n_patched: Annotated[Count, Meta(description="positions that were written")]
    patch_alpha: Annotated[Dose, Meta(description="the dose")]
    semantic_label_b: Annotated[Label, Meta(description="the label of B's words")]
    prosody_label_b: Annotated[Label, Meta(description="the label of B's voice")]
    label_mass_base: Annotated[Mass, Meta(description="probability that the five labels hold among all tokens, of A")]
    label_mass_patch: Annotated[Mass, Meta(description="the same of A, patched")]
    stream_shift: Annotated[
        Size, Meta(description="how far the values moved where they were written: ‖new − old‖ / ‖old‖")
    ]
    patched_from: Annotated[
        Count | None | UnsetType,
        Meta(description="the first position written, in the expanded sequence; null where nothing was"),
    ] = UNSET
    site: Annotated[
        str | UnsetType,
        Meta(description="what was written in the block, such as `mlp.output`; `output` is the residual stream"),
    ] = UNSET


class FailedPair(Keys):
    """One line of `failed_pairs_NAME.jsonl`: a pair that gave no record."""

    pair_id: Annotated[str, Meta(description="the pair, as in the pair list")]
    reason: Annotated[str, Meta(description="the clip that could not be read, or the number that was not finite")]
    skipped: Annotated[
        bool | UnsetType, Meta(description="left out as `--on-bad-clip skip` asks, which is no failure")
    ] = UNSET


@cache
def record_type(swept: tuple[str, ...] = ()) -> type[Record]:
    """The type of a record with a column for each of the swept options, of whatever type its values are."""
    options = [(name, Any) for name in swept if name != DOSE]
    return defstruct("Record", options, bases=(Record,), kw_only=True, forbid_unknown_fields=True, gc=False)
