"""The columns that a run's tables have beside its options: no option may be called like one of them.

    reserved()                       # {"pair_id", "layer", "flip_to_target_rate", "recovery_n", …}

An option that is swept is a column of the records, of the metrics and of what is computed on the way. Needs no pandas.
"""

from functools import cache

from msgspec.structs import fields

from runs.row_types import PairRow, Record

# Of the metrics, in their order; the swept options come last.
METRICS = (
    "layer",
    "n_pairs",
    "eligible_count",
    "flip_to_target_rate",
    "flip_from_base_rate",
    "delta_logit_target_mean",
    "delta_logit_target_q25",
    "delta_logit_target_q75",
    "flip_to_target_rate_eligible",
    "base_is_target_rate",
    "donor_is_target_rate",
    "to_donor_semantic_rate",
    "to_donor_prosody_rate",
    "logit_diff_mean",
    "normalised_recovery_mean",
    "recovery_n",
    "kl_to_donor_mean",
    "label_mass_patch_mean",
    "stream_shift_mean",
    "patch_alpha",
    "near_tie_count",
    "site",
)
# Metrics with a 95 % interval: columns `…_low` and `…_high` of the same table.
INTERVALS = (
    "flip_to_target_rate",
    "flip_to_target_rate_eligible",
    "flip_from_base_rate",
    "delta_logit_target_mean",
    "normalised_recovery_mean",
)
# What follows from a record, a column beside its own.
DERIVED = (
    "donor_is_target",
    "to_donor_semantic",
    "to_donor_prosody",
    "margin_patch",
    "recovery",
    "kl_to_donor",
    "near_tie",
)
# What the report's tables group by, and what is counted for an interval.
GROUPS = ("A", "B", "length", "positions", "pairs", "counted")


@cache
def reserved() -> frozenset[str]:
    """All names that are taken."""
    of_rows = [field.name for declared in (Record, PairRow) for field in fields(declared)]
    limits = [f"{name}_{side}" for name in INTERVALS for side in ("low", "high")]
    return frozenset([*of_rows, *(f"{name}_of_pair" for name in of_rows), *METRICS, *limits, *DERIVED, *GROUPS])


def value_text(value: object) -> str:
    """A value of an option as text, a number with as many digits as tell it from every other: 1, 0.5, 0.10000001."""
    return repr(float(value)).removesuffix(".0") if isinstance(value, float) else str(value)
