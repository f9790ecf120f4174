"""Which interventions there are.

    @intervention(control=True)
    def random(lm, pair, layers): ...

    catalogue()                     # names, docstrings and options, without importing torch
    load_intervention("random")     # the function, imported

Every file of `interventions/` with a decorated function in it counts, and every file named with `--plugin`.
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from errors import BAD_USAGE, UserError
from pairs import Clip, Pair, PairSample

FOLDER = Path(__file__).resolve().parent.parent
# (the main experiment's pairs, all clips) -> the pairs that a control runs on
PairMaker = Callable[[PairSample, Sequence[Clip]], Sequence[Pair]]
_plugins: list[Path] = []


@dataclass(frozen=True)
class Intervention:
    """One experiment: `run(lm, pair, layers, **options)` gives logits `[1 + rows, vocabulary]`, A's own first."""

    name: str
    doc: str
    control: bool
    run: Callable[..., Any]
    pairs: PairMaker | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """The parameters after `lm, pair, layers`."""
        return tuple(inspect.signature(self.run).parameters)[3:]

    def code_hash(self) -> str:
        """sha256 of the code of its file, whatever its comments and docstrings; of itself alone in a notebook."""
        path = Path(inspect.getsourcefile(self.run))
        source = path.read_text(encoding="utf-8") if path.is_file() else inspect.getsource(self.run)
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """An intervention as its source text shows it: enough for `--help`. `options` are names and defaults."""

    name: str
    doc: str
    control: bool
    path: Path
    attribute: str
    options: dict[str, Any]

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return self.doc.splitlines()[0] if self.doc else ""


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


def add_plugin(path: Path) -> None:
    """Let a file outside the repository count as well; `UserError` when it holds no intervention."""
    path = Path(path).resolve()
    if not path.is_file():
        raise UserError(f"--plugin {path}: no such file", BAD_USAGE)
    if not _entries(path):
        raise UserError(f"--plugin {path}: holds no function decorated with @intervention", BAD_USAGE)
    if path not in _plugins:
        _plugins.append(path)
        catalogue.cache_clear()


@cache
def catalogue() -> dict[str, Entry]:
    """All interventions by name. Files are parsed, not imported, so that `--help` needs no torch."""
    return {entry.name: entry for path in [*sorted(FOLDER.glob("*.py")), *_plugins] for entry in _entries(path)}


def _entries(path: Path) -> list[Entry]:
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f"{path}:{getattr(error, 'lineno', 1)}: not readable as Python ({error})") from None
    return [
        _entry(path, node, decorator)
        for node in body
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if ast.unparse(decorator).partition("(")[0].rpartition(".")[2] == "intervention"
    ]


def _entry(path: Path, node: ast.FunctionDef, decorator: ast.expr) -> Entry:
    keywords = {k.arg: ast.unparse(k.value) for k in decorator.keywords} if isinstance(decorator, ast.Call) else {}
    arguments = [*node.args.args, *node.args.kwonlyargs]
    defaults = [*node.args.defaults, *node.args.kw_defaults]
    named = dict(zip([argument.arg for argument in arguments[len(arguments) - len(defaults) :]], defaults, strict=True))
    try:
        options = {name: ast.literal_eval(default) for name, default in named.items()}
    except (ValueError, TypeError):
        raise UserError(f"{path}:{node.lineno}: the defaults of {node.name} must be plain values") from None
    missing = [argument.arg for argument in arguments[3:] if argument.arg not in options]
    if len(arguments) < 3 or missing:
        raise UserError(
            f"{path}:{node.lineno}: {node.name} must take (lm, pair, layers) and then options with defaults"
            + (f"; {', '.join(missing)} has none" if missing else "")
        )
    doc = ast.get_docstring(node) or ""
    return Entry(_name(node.name), doc, keywords.get("control") == "True", path, node.name, options)


def load_intervention(name: str) -> Intervention:
    """The intervention called `name`; `UserError` for one that is not in `catalogue()`."""
    if name not in catalogue():
        raise UserError(f"no intervention is called {name!r}; there are {', '.join(catalogue())}", BAD_USAGE)
    entry = catalogue()[name]
    if entry.path.parent == FOLDER:
        return getattr(importlib.import_module(f"interventions.{entry.path.stem}"), entry.attribute)
    return getattr(_import_file(entry.path), entry.attribute)


def _import_file(path: Path) -> Any:
    name = f"plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
