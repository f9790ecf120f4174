"""Whether a control ran as the main experiment did, so that the difference between the two is what the control changes.

differences(main, control)           # "" or "alpha 1, not 0.5; seed 1, not 42"
curve_differences(one, other)        # the same of what makes a curve alone, for two main experiments
"""

from typing import TYPE_CHECKING, Any

from analysis.cells import DOSE, is_one_curve, value_text
from pairs.shown import shown

if TYPE_CHECKING:
    from analysis.results import Measured

# What must be equal, as it is said.
OF_CURVE = {"align": "align", "dtype": "dtype"}
DRAWN = {
    "pair_sampling_seed": "seed",
    "same_speaker": "same_speaker",
    "both_directions": "both_directions",
}
DRAWS_ITS_OWN = "no-conflict"  # its recipients are another sample, drawn as the main experiment's was


def differences(main: "Measured", control: "Measured") -> str:
    """In what a control differs from its main experiment besides what it patches; "" where the two were run alike.

    Compared are the dose that is drawn (the highest), options swept, layers, alignment, dtype, and how the pairs were
    sampled, with the seed; where all that is the same, the recipients.
    """
    found = []
    if not is_one_curve(control.swept):
        found.append(f"it swept {', '.join(name for name in control.swept if name != DOSE)}")
    found += curve_differences(main, control) + _unequal(main, control, DRAWN | {f"max_pairs_{main.kind}": "max_pairs"})
    if not found and control.settings["intervention"] != DRAWS_ITS_OWN:
        shared = set(main.pairs["clip_a"]) & set(control.pairs["clip_a"])
        if list(main.pairs["clip_a"]) != list(control.pairs["clip_a"]):
            found.append(f"other recipients ({len(shared)} of {main.pairs['clip_a'].nunique()} are the same)")
    return "; ".join(found)


def curve_differences(one: "Measured", other: "Measured") -> list[str]:
    """In what the second differs from the first of what makes a curve: highest dose, layers, alignment, dtype."""
    found = []
    doses = [each.records[DOSE].max() for each in (other, one)]
    if doses[0] != doses[1]:
        found.append(f"alpha {value_text(doses[0])}, not {value_text(doses[1])}")
    layers = [ranges(each.settings["layers_to_patch"]) for each in (other, one)]
    if layers[0] != layers[1]:
        found.append(f"layers {layers[0]}, not {layers[1]}")
    return found + _unequal(one, other, OF_CURVE)


def _unequal(one: "Measured", other: "Measured", names: dict[str, str]) -> list[str]:
    values = {name: (other.settings.get(key), one.settings.get(key)) for key, name in names.items()}
    return [f"{name} {_said(its)}, not {_said(was)}" for name, (its, was) in values.items() if its != was]


def ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] as 0-2,5, the way `--layers` takes it."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _said(value: Any) -> str:
    return "none" if value is None else shown(str(value))
