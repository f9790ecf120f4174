"""The words for columns of the metrics, on axes and beside lines.

words("flip_to_target_rate_eligible", "B's label")   # "eligible pairs that answer with B's label"
axis_title("entropy_mean")                           # "mean entropy"
"""

TO_TARGET, TO_TARGET_ELIGIBLE, FROM_BASE = "flip_to_target_rate", "flip_to_target_rate_eligible", "flip_from_base_rate"
DELTA_LOGIT, RECOVERY = "delta_logit_target_mean", "normalised_recovery_mean"
TARGET = "the target"  # where it is not B's label, as for a random donor
RATES = {
    TO_TARGET: "all {unit} that answer with {target}",
    TO_TARGET_ELIGIBLE: "eligible {unit} that answer with {target}",
    FROM_BASE: "{unit} whose answer changes",
    "answers_changed_rate": "answers that change",
}
MEANS = {DELTA_LOGIT: "change of the logit of {target}", RECOVERY: "normalised recovery (0: A, 1: B)"}
SYMBOLS = ("p", "p_max", "q")
HEADINGS = {  # of columns of a table, which must be short
    TO_TARGET: "flips to target",
    TO_TARGET_ELIGIBLE: "flips to target (eligible)",
    FROM_BASE: "answer changes",
    DELTA_LOGIT: "Δ logit of target",
    RECOVERY: "normalised recovery",
    "base_is_target_rate": "A's own rate",
    "donor_is_target_rate": "B's own rate",
    "n_pairs": "pairs",
    "eligible_count": "eligible",
    "n_clips": "clips",
    "n_texts": "texts",
    "lost_rate": "answers that change",
    "hand_over_layer": "hand-over layer",
    "p": "p",
    "p_max": "p (all layers)",
    "q": "q",
    "patch_alpha": "dose",
}


def words(column: str, target: str = TARGET, unit: str = "pairs") -> str:
    """What a column of the metrics holds, in words."""
    known = RATES.get(column) or MEANS.get(column)
    if known:
        return known.format(target=target, unit=unit)
    name = column.removesuffix("_mean").replace("_", " ")
    return f"mean {name}" if column.endswith("_mean") else name


def axis_title(column: str, target: str = TARGET, unit: str = "pairs") -> str:
    """The title of an axis or of colours: a rate is a share."""
    what = words(column, target, unit)
    return f"share of {what}" if column in RATES else what


def heading(column: str) -> str:
    """The heading of a column of a table, with a capital letter but for symbols."""
    text = HEADINGS.get(column) or words(column)
    return text if column in SYMBOLS else text[:1].upper() + text[1:]
