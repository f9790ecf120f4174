"""Whether a control ran as the main experiment did, so that the difference between the two is what the control changes.

differences(main, control)           # "" or "alpha 1, not 0.5; seed 1, not 42"
"""

from typing import TYPE_CHECKING, Any

from analysis.cells import DOSE, is_one_curve
from pairs.shown import shown

if TYPE_CHECKING:
    from analysis.results import Measured

# What must be equal, as it is said.
SETTINGS = {
    "align": "align",
    "dtype": "dtype",
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
    ours, theirs = main.settings, control.settings
    found = []
    if not is_one_curve(control.swept):
        found.append(f"it swept {', '.join(name for name in control.swept if name != DOSE)}")
    doses = [one.records[DOSE].max() for one in (control, main)]
    if doses[0] != doses[1]:
        found.append(f"alpha {doses[0]:g}, not {doses[1]:g}")
    layers = [ranges(settings["layers_to_patch"]) for settings in (theirs, ours)]
    if layers[0] != layers[1]:
        found.append(f"layers {layers[0]}, not {layers[1]}")
    names = SETTINGS | {f"max_pairs_{main.kind}": "max_pairs"}
    for key, name in names.items():
        if theirs.get(key) != ours.get(key):
            found.append(f"{name} {_said(theirs.get(key))}, not {_said(ours.get(key))}")
    if not found and theirs["intervention"] != DRAWS_ITS_OWN:
        shared = set(main.pairs["clip_a"]) & set(control.pairs["clip_a"])
        if list(main.pairs["clip_a"]) != list(control.pairs["clip_a"]):
            found.append(f"other recipients ({len(shared)} of {main.pairs['clip_a'].nunique()} are the same)")
    return "; ".join(found)


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
