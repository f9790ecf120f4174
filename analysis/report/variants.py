"""What the report says of a map in time, and of a logit lens.

alignment_in_time(experiment), lens_result(experiment)
"""

from analysis.report.experiments import Experiment
from analysis.tables import lengths_apart
from analysis.timeline import INTERVENTION

LENS_LIMIT = (
    "A logit lens shows what the final norm and the head make of the readout position's stream after a layer, not what "
    "the model does with it: a label can lead there without being used, and one that is not yet written in the head's "
    "terms, or stands at other positions, is not seen. Early layers need not speak the head's language at all. It "
    "changes nothing, so it is no evidence of a cause."
)


def alignment_in_time(experiment: Experiment) -> list[str]:
    """How the parts of A and B meet, and how far the two clips' lengths differ; nothing for other experiments."""
    if experiment.settings["intervention"] != INTERVENTION or experiment.records is None:
        return []
    first = experiment.records.drop_duplicates("pair_id")
    apart = lengths_apart(first).abs()
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


def lens_result(experiment: Experiment) -> str:
    """When the final answer first leads in half of the clips, as a sentence."""
    agree = 1 - experiment.records.groupby("layer")["flip_from_base"].mean()
    layers = agree.index[agree >= 0.5]
    first = f"from layer {layers[0]} on" if len(layers) and (agree[layers[0] :] >= 0.5).all() else "at the last layers"
    return (
        f"A logit lens (final norm and head on the unpatched stream of the readout position) was applied to "
        f"{experiment.n_measured} clips; the label that leads was the final answer in at least half of them {first}."
    )
