"""What is measured of each record, and the columns of the metrics that follow (SPEC sections 5 and 8).

    @metric
    def entropy(records):            # a frame with the columns of SPEC section 9
        return -(logits_of(records["logits_patch"]).softmax() * ...).sum(1)      # one value a record

Its mean is the column `entropy_mean`, with 95 % limits `entropy_mean_low` and `entropy_mean_high`. The built-in metrics
are declared in the same way; they name their columns themselves, since these are fixed. Importing this needs no pandas:
the names are reserved when the options of experiments are read.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from msgspec.structs import fields

from voicepatch.errors import UserError
from voicepatch.types.record import APPROXIMATE, PairRow, Record

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from voicepatch.analysis.logits import Logits

# With less than this many logits between A's and B's margin, a recovery is noise divided by noise; it is left out.
MIN_MARGIN_GAP = 1.0
# What the tables of the report group by, what is counted of each record, and the columns of a map's table.
OTHER_NAMES = (
    *(APPROXIMATE, "near_tie", "A", "B", "length", "positions", "pairs", "counted"),
    *("effect", "se", "limit_low", "limit_high", "p_max", "q", "marked", "n_texts", "reason"),
)


@dataclass(frozen=True)
class Metric:
    """`values(records)` gives one number or truth value a record; the `column` of the metrics is its mean in a cell."""

    name: str
    values: Callable[["pd.DataFrame"], Any]
    column: str
    eligible: bool = False  # whether the mean is over eligible pairs alone
    is_rate: bool = False
    limits: bool = True
    quartiles: bool = False  # columns `NAME_q25` and `NAME_q75`
    count: str = ""  # a column with the number of values
    where: str = ""  # file and line of the function

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the metrics, without limits."""
        quartiles = (f"{self.name}_q25", f"{self.name}_q75") if self.quartiles else ()
        return (self.column, *quartiles, *([self.count] if self.count else []))


def metric(function: Callable | None = None, /, *, column: str = "", **how: Any) -> Any:
    """A function as a metric: `@metric`, or with keywords that are the fields of `Metric`."""
    if function is None:
        return lambda decorated: metric(decorated, column=column, **how)
    name, code = function.__name__, function.__code__
    where = f"{code.co_filename}:{code.co_firstlineno}"
    return Metric(name, function, column or f"{name}_mean", where=where, **how)


def with_metrics(records: "pd.DataFrame", metrics: Sequence[Metric]) -> "pd.DataFrame":
    """The records with a column for each metric.

    Raises `UserError`, with file and line, for a metric that fails, whose values are not one finite number a record, or
    whose name is taken.
    """
    taken = {*records.columns, *reserved()}
    columns: dict[str, Any] = {}
    for one in metrics:
        if why := name_taken(one, taken):
            raise UserError(why)
        columns[one.name] = _checked(one, records)
        taken |= {one.name, *one.columns}
    return records.assign(**columns)


def name_taken(one: Metric, taken: Collection[str]) -> str:
    """Which name of a metric is that of a column already; "" where none is."""
    limits = (f"{one.column}_low", f"{one.column}_high") if one.limits else ()
    clash = next((name for name in (one.name, *one.columns, *limits) if name in taken), "")
    return clash and f"{one.where}: the metric {one.name} makes a column {clash}, which exists already; rename it"


def _checked(one: Metric, records: "pd.DataFrame") -> "np.ndarray":
    import numpy as np
    import pandas as pd

    what = f"{one.where}: the metric {one.name}"
    try:
        found = one.values(records)
    except Exception as error:
        raise UserError(f"{what} fails ({type(error).__name__}: {error})") from error
    if isinstance(found, pd.Series) and not found.index.equals(records.index):
        raise UserError(f"{what} gives an index of its own; it must be that of the records")
    try:
        values = np.asarray(found, float)
    except (TypeError, ValueError):
        raise UserError(f"{what} gives {type(found).__name__}, where numbers are needed, one a record") from None
    if values.shape != (len(records),):
        raise UserError(f"{what} gives values of shape {values.shape} for {len(records)} records; one each is needed")
    if not np.isfinite(values).all():
        wrong = records.iloc[int(np.argmin(np.isfinite(values)))]
        raise UserError(f"{what} is not finite in pair {wrong.get('pair_id', '?')} at layer {wrong['layer']}")
    return values


# --- the built-in metrics, in the order of their columns


@metric(column="flip_to_target_rate", is_rate=True)
def flip_to_target(records: "pd.DataFrame") -> "pd.Series":
    """Whether the patched answer is the target."""
    return records["flip_to_target"]


@metric(column="flip_from_base_rate", is_rate=True)
def flip_from_base(records: "pd.DataFrame") -> "pd.Series":
    """Whether the patched answer is no longer A's own."""
    return records["flip_from_base"]


@metric(quartiles=True)
def delta_logit_target(records: "pd.DataFrame") -> "pd.Series":
    """The target's logit, patched − unpatched."""
    return records["delta_logit_target"]


@metric(column="flip_to_target_rate_eligible", eligible=True, is_rate=True)
def flip_to_target_eligible(records: "pd.DataFrame") -> "pd.Series":
    """Whether the patched answer is the target where A's own answer was not."""
    return records["flip_to_target"]


@metric(column="base_is_target_rate", is_rate=True, limits=False)
def base_is_target(records: "pd.DataFrame") -> "pd.Series":
    """Whether A's own answer is the target already."""
    return ~records["eligible"]


@metric(column="donor_is_target_rate", is_rate=True, limits=False)
def donor_is_target(records: "pd.DataFrame") -> "pd.Series":
    """Whether B's own answer is the target."""
    return records["target"] == _logits(records, "donor").answers()


@metric(column="to_donor_semantic_rate", is_rate=True, limits=False)
def to_donor_semantic(records: "pd.DataFrame") -> "pd.Series":
    """Whether the patched answer is the label of B's words."""
    return records["pred_patch"] == records["semantic_label_b"]


@metric(column="to_donor_prosody_rate", is_rate=True, limits=False)
def to_donor_prosody(records: "pd.DataFrame") -> "pd.Series":
    """Whether the patched answer is the label of B's voice."""
    return records["pred_patch"] == records["prosody_label_b"]


@metric(column="logit_diff_mean", eligible=True, limits=False)
def margin_patch(records: "pd.DataFrame") -> "pd.Series":
    """The target's logit − that of A's own answer, patched."""
    return _margin(records, "patch")


@metric(column="normalised_recovery_mean", eligible=True, count="recovery_n")
def recovery(records: "pd.DataFrame") -> "pd.Series":
    """(m_patch − m_A) / (m_B − m_A) for the margin m; missing where |m_B − m_A| is below `MIN_MARGIN_GAP`."""
    base = _margin(records, "base")
    gap = _margin(records, "donor") - base
    return (_margin(records, "patch") - base) / gap.where(gap.abs() >= MIN_MARGIN_GAP)


@metric(limits=False)
def kl_to_donor(records: "pd.DataFrame") -> "np.ndarray":
    """Kullback-Leibler divergence of B's distribution over the labels from the patched one, in nats."""
    patch, donor = _logits(records, "patch"), _logits(records, "donor")
    return (donor.softmax() * (donor.log_softmax() - patch.log_softmax())).sum(1)


@metric(limits=False)
def label_mass_patch(records: "pd.DataFrame") -> "pd.Series":
    """The probability that the labels hold among all tokens, patched."""
    return records["label_mass_patch"]


@metric(limits=False)
def stream_shift(records: "pd.DataFrame") -> "pd.Series":
    """‖new − old‖ / ‖old‖ where values were written."""
    return records["stream_shift"]


BUILT_IN: tuple[Metric, ...] = tuple(one for one in list(globals().values()) if isinstance(one, Metric))
# The columns of the metrics in their order; swept options and limits follow.
METRICS = (
    *("layer", "n_pairs", "eligible_count"),
    *(column for one in BUILT_IN for column in one.columns),
    *("patch_alpha", "near_tie_count", "site"),
)


def _logits(records: "pd.DataFrame", which: str) -> "Logits":
    from voicepatch.analysis.logits import logits_of

    return logits_of(records[f"logits_{which}"])


def _margin(records: "pd.DataFrame", which: str) -> "pd.Series":
    logits = _logits(records, which)
    return logits.of(records["target"]) - logits.of(records["pred_base"])


@cache
def reserved() -> frozenset[str]:
    """All names of columns of a run's tables, which no option and no further metric may have."""
    of_rows = [field.name for declared in (Record, PairRow) for field in fields(declared)]
    names = [one.name for one in BUILT_IN]
    limits = [f"{one.column}_{side}" for one in BUILT_IN if one.limits for side in ("low", "high")]
    return frozenset([*of_rows, *(f"{name}_of_pair" for name in of_rows), *METRICS, *limits, *names, *OTHER_NAMES])
