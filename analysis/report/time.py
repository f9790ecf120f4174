"""What the report says of a map in time.

alignment_in_time(experiment)
"""

from analysis.report.experiments import Experiment
from analysis.timeline import INTERVENTION


def alignment_in_time(experiment: Experiment) -> list[str]:
    """How the parts of A and B meet, and how far the two clips' lengths differ; nothing for other experiments."""
    if experiment.settings["intervention"] != INTERVENTION or experiment.records is None:
        return []
    first = experiment.records.drop_duplicates("pair_id")
    apart = (first["len_a"] - first["len_b"]).abs() / first[["len_a", "len_b"]].max(axis=1)
    if experiment.settings["align"] == "resample_linear":
        how = "B's span is interpolated to A's length, so that a part of A meets the same part of B's course"
    else:
        how = (
            "the spans are aligned at their start, so that a part of A meets what B says after as many seconds; in the "
            "same words spoken at another tempo that is another word (--align resample_linear follows the tempo)"
        )
    return [
        f"{experiment.name}: {how}. The two clips' lengths differ by {apart.median():.0%} of the longer one in the "
        f"median pair, by {apart.max():.0%} at most; {(apart <= 0.05).sum()} of {len(first)} pairs are equally long "
        "within 5 %."
    ]
