"""What differs between the settings that an experiment was begun with and those it is asked to go on with.

changes(before, now, NO_MATTER)          # ["versions.torch was 2.9, is 2.10"]
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from voicepatch.text import listing
from voicepatch.types.settings import not_compared

N_CHANGES = 3  # of those between two runs that a message names
# What may change between the experiments of a run, and between the parts of one that was interrupted: how the data are
# called, where they lie and what was noticed of them (a hash says whether they and the model are the same), what draws
# the figures, what an experiment says of itself, and threads, which change the last digit.
PLACES = ("source", "texts", "renamed")
NOTED = {"data": (*PLACES, "name", "warnings", "corpus"), "model": ("family", "frames_per_second")}
NO_MATTER: tuple[str, ...] = (
    *("versions.altair", "versions.pandas", "program_sha256", "doc", "describes", "figures", "threads", "plugin"),
    *("places", "places.model", "places.base", "places.task", "places.plugins"),
    *not_compared(),
)


def lasting(part: str, content: Any) -> Any:
    """A part of the identity without what is only noted of it."""
    noted = NOTED.get(part, ())
    return {key: value for key, value in content.items() if key not in noted} if isinstance(content, dict) else content


def difference(part: str, before: Any, now: Any) -> str:
    """How a part of the identity differs from that of a run, as "with another data (sha256 was 2, is 3)"."""
    if part == "model" and before.get("random_weights") != now.get("random_weights"):
        return f"of {_weights(before)}, not of {_weights(now)}"
    return f"with another {part} ({listing(changes(before, now, PLACES), most=N_CHANGES)})"


def _weights(model: Mapping[str, Any]) -> str:
    """A model's name, which says so where its weights are random."""
    return str(model["name"]) if "random_weights" in model else f"the trained model {model['name']}"


def changes(before: Any, now: Any, ignored: Sequence[str] = (), name: str = "", partly: bool = False) -> list[str]:
    """What differs, as "versions.torch was 2.9, is 2.10"; a value that is long is cut. `partly`: now may lack keys."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [
            line
            for key in dict.fromkeys([*([] if partly else before), *now])
            for line in changes(before.get(key), now.get(key), ignored, f"{name}.{key}" if name else key, partly)
        ]
    return [] if before == now or name in ignored else [f"{name or 'it'} was {_cut(before)}, is {_cut(now)}"]


def _cut(value: Any, most: int = 80) -> str:
    text = str(value)
    if re.fullmatch("[0-9a-f]{64}", text):  # a sha256
        return text[:12]
    return text if len(text) <= most else f"{text[:most]}…"
