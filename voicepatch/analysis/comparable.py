"""Whether two experiments ran with the same settings, so that only what is compared can make a difference.

control_differences(main, control)   # [] or ["alpha 1, not 0.5", "seed 1, not 42"]
curve_differences(one, other)        # what makes a curve alone, for two main experiments
"""

from voicepatch.analysis.cells import DOSE, is_one_curve, ranges, value_text
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.text import escape

# Stored name of a setting -> its option.
OF_CURVE = {"align": "align", "dtype": "dtype"}
OF_SAMPLE = {
    "only": "only",
    "pair_sampling_seed": "seed",
    "same_speaker": "same_speaker",
    "both_directions": "both_directions",
    "max_acoustic_distance": "max_acoustic_distance",
    "where": "where",
}


def control_differences(main: ExperimentResults, control: ExperimentResults) -> list[str]:
    """How a control differs from its main experiment beside what it patches.

    Compared are the swept options, what makes a curve, and how the pairs were sampled; where all that is the same, the
    recipients, unless the control draws its own.
    """
    found = []
    if not is_one_curve(control.swept):
        found.append(f"it swept {', '.join(name for name in control.swept if name != DOSE)}")
    found += curve_differences(main, control)
    found += _unequal(main, control, OF_SAMPLE | {f"max_pairs_{main.kind}": "max_pairs"})
    same_recipients = list(main.pairs["clip_a"]) == list(control.pairs["clip_a"])
    if not found and control.settings["recipients"] == "main" and not same_recipients:
        shared = set(main.pairs["clip_a"]) & set(control.pairs["clip_a"])
        found.append(f"other recipients ({len(shared)} of {main.pairs['clip_a'].nunique()} are the same)")
    return found


def curve_differences(one: ExperimentResults, other: ExperimentResults) -> list[str]:
    """How the second differs from the first in highest dose, layers, alignment and dtype."""
    found = []
    doses = [value_text(each.records[DOSE].max()) for each in (other, one)]
    layers = [ranges(each.settings["layers_to_patch"]) for each in (other, one)]
    for what, (its, first) in (("alpha", doses), ("layers", layers)):
        if its != first:
            found.append(f"{what} {its}, not {first}")
    return found + _unequal(one, other, OF_CURVE)


def _unequal(one: ExperimentResults, other: ExperimentResults, names: dict[str, str]) -> list[str]:
    def text(experiment: ExperimentResults, key: str) -> str:
        value = experiment.settings.get(key)
        return "none" if value is None else escape(str(value))

    return [
        f"{name} {text(other, key)}, not {text(one, key)}"
        for key, name in names.items()
        if other.settings.get(key) != one.settings.get(key)
    ]
