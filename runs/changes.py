"""What differs between the settings that an experiment was begun with and those it is asked to go on with.

changes(before, now, NO_MATTER)          # ["versions.torch was 2.9, is 2.10"]
"""

from collections.abc import Mapping, Sequence
from typing import Any

# What may change between the experiments of a run, and between the parts of one that was interrupted: where the data
# were found, what draws the figures, what an experiment says of itself, and threads, which change the last digit.
PLACES = ("source", "texts")
NO_MATTER = ("versions.altair", "versions.pandas", "doc", "threads")


def lasting(part: Any) -> Any:
    """A part of the identity without the places where it was found."""
    return {key: value for key, value in part.items() if key not in PLACES} if isinstance(part, dict) else part


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
    return text if len(text) <= most else f"{text[:most]}…"
