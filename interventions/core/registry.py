"""Which interventions there are.

    @intervention(control=True)
    def random(lm, pair, layers): ...

    catalogue()                     # names and docstrings, without importing torch
    load_intervention("random")     # the function, imported

Every file of `interventions/` with a decorated function in it counts.
"""

import ast
import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pairs import Clip, Pair

FOLDER = Path(__file__).resolve().parent.parent
# (main pairs, all clips, seed) -> the pairs that a control runs on; same recipients and targets, in the same order.
PairMaker = Callable[[Sequence[Pair], Sequence[Clip], int], list[Pair]]


@dataclass(frozen=True)
class Intervention:
    """One experiment: `run(lm, pair, layers, **options)` gives logits `[1 + n_layers, vocabulary]`, A's own first."""

    name: str
    doc: str
    control: bool
    run: Callable[..., Any]
    pairs: PairMaker | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """The parameters after `lm, pair, layers`."""
        return tuple(inspect.signature(self.run).parameters)[3:]


@dataclass(frozen=True)
class Entry:
    """An intervention as its source text shows it: enough for `--help`."""

    name: str
    doc: str
    control: bool
    module: str
    attribute: str


def intervention(
    run: Callable[..., Any] | None = None, *, control: bool = False, pairs: PairMaker | None = None
) -> Any:
    """Make a function an intervention. `pairs` turns the main experiment's pairs into the control's own."""

    def decorate(function: Callable[..., Any]) -> Intervention:
        doc = inspect.getdoc(function) or ""
        return Intervention(_name(function.__name__), doc, control, function, pairs)

    return decorate(run) if run else decorate


def _name(attribute: str) -> str:
    return attribute.replace("_", "-")


@cache
def catalogue() -> dict[str, Entry]:
    """All interventions by name. Files are parsed, not imported, so that `--help` needs no torch."""
    entries = {}
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for decorator in getattr(node, "decorator_list", []):
                call = decorator if isinstance(decorator, ast.Call) else None
                target = call.func if call else decorator
                if not (isinstance(target, ast.Name) and target.id == "intervention"):
                    continue
                keywords = {k.arg: k.value for k in call.keywords} if call else {}
                control = "control" in keywords and ast.literal_eval(keywords["control"])
                doc = ast.get_docstring(node) or ""
                entries[_name(node.name)] = Entry(
                    _name(node.name), doc, control, f"interventions.{path.stem}", node.name
                )
    return entries


def load_intervention(name: str) -> Intervention:
    """The intervention called `name`; a `KeyError` for one that is not in `catalogue()`."""
    entry = catalogue()[name]
    return getattr(importlib.import_module(entry.module), entry.attribute)
