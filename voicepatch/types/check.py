"""A check and its result, worded once: stored with the run, and shown by the terminal and the report."""

from typing import Any

from msgspec import Struct


class Check(Struct, frozen=True):
    """`text` says in one sentence what was found. `numbers` are the numbers in it, by name."""

    name: str
    passed: bool
    text: str
    numbers: dict[str, Any] = {}
