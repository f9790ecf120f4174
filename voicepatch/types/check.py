"""A check and its result, worded once: stored with the run, and shown by the terminal and the report."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, to_builtins


class Check(Struct, frozen=True, forbid_unknown_fields=True):
    """`text` says in one sentence what was found. `numbers` are the numbers in it, by name.

    `note` is true where a check passed and its text still names something that a reader must know.
    """

    name: str
    passed: bool
    text: str
    numbers: dict[str, Any] = {}
    note: bool = False

    @property
    def light(self) -> str:
        """passed, note or failed."""
        return "failed" if not self.passed else "note" if self.note else "passed"


def as_stored(checks: Sequence[Check]) -> dict[str, Any]:
    """The keys `passed` and `checks` of a file of checks."""
    return {"passed": all(check.passed for check in checks), "checks": to_builtins(checks)}
