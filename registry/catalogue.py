"""Which experiments there are.

    catalogue()                     # names, docstrings and options, without importing torch
    find("my_idea")                 # the entry called so, or my-idea
    load_intervention("random")     # the experiment, imported

Every file of `interventions/` with a decorated function in it counts, and every file named with `--plugin`.
"""

import ast
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from errors import BAD_USAGE, UserError
from registry.intervention import FOLDER, Intervention, checked_options, command_name

MAIN = "patch"
KEYWORDS = ("control", "pairs", "over", "silent", "least")
_plugins: list[Path] = []


@dataclass(frozen=True)
class Entry:
    """An experiment as its source text shows it: enough for `--help`. `options` are names and defaults."""

    name: str
    doc: str
    control: bool
    silent: bool
    over: Mapping[str, str]
    options: Mapping[str, Any]
    path: Path
    line: int
    attribute: str
    least: Mapping[str, float]

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return self.doc.splitlines()[0] if self.doc else ""

    @property
    def where(self) -> str:
        """File and line, as errors begin."""
        return f"{self.path}:{self.line}"


def add_plugin(path: str | Path) -> None:
    """Let a file outside the repository count as well.

    Raises `UserError` for what is no file, and one that holds no experiment, or one whose name is taken.
    """
    if not str(path).strip():
        raise UserError("--plugin: is empty; name a Python file", BAD_USAGE)
    if not os.path.isfile(path):
        raise UserError(f"--plugin {path}: no such file", BAD_USAGE)
    path = Path(path).resolve()
    if not _entries(path):
        raise UserError(f"--plugin {path}: holds no function decorated with @intervention", BAD_USAGE)
    if path not in _files():
        _collect([*_files(), path])
        _plugins.append(path)
        catalogue.cache_clear()


@cache
def catalogue() -> dict[str, Entry]:
    """All experiments by name. Files are parsed, not imported, so that `--help` needs no torch."""
    return _collect(_files())


def find(name: str) -> Entry | None:
    """The experiment called `name`, with `-` or with `_`."""
    return catalogue().get(command_name(name))


def load_intervention(name: str) -> Intervention:
    """The experiment called `name`, imported.

    Raises `UserError` for one that is not in `catalogue()`, and with file and line where importing it fails.
    """
    entry = find(name)
    if entry is None:
        raise UserError(f"no intervention is called {name!r}; there are {', '.join(catalogue())}", BAD_USAGE)
    try:
        if entry.path.parent == FOLDER:
            module = importlib.import_module(f"interventions.{entry.path.stem}")
        else:
            module = _import_file(entry.path)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(entry.path)
        ]
        raise UserError(
            f"{entry.path}:{lines[-1] if lines else 1}: cannot be imported ({type(error).__name__}: {error})"
        ) from error
    return getattr(module, entry.attribute)


def _import_file(path: Path) -> Any:
    name = f"plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _files() -> list[Path]:
    return [*sorted(FOLDER.glob("*.py")), *_plugins]


def _collect(paths: Sequence[Path]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in (entry for path in paths for entry in _entries(path)):
        if entry.name in found:
            raise UserError(
                f"{entry.where}: {entry.name} is an intervention already, in {found[entry.name].where}; rename it",
                BAD_USAGE,
            )
        found[entry.name] = entry
    return found


def _entries(path: Path) -> list[Entry]:
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path}:{getattr(error, 'lineno', 1)}: not readable as Python ({error})") from None
    return [
        _entry(path, node, decorator)
        for node in body
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if ast.unparse(decorator).partition("(")[0].rpartition(".")[2] == "intervention"
    ]


def _entry(path: Path, node: ast.FunctionDef, decorator: ast.expr) -> Entry:
    where = f"{path}:{node.lineno}"
    keywords = {k.arg: k.value for k in decorator.keywords} if isinstance(decorator, ast.Call) else {}
    unknown = [name for name in keywords if name not in KEYWORDS]
    if unknown:
        raise UserError(f"{where}: @intervention takes {', '.join(KEYWORDS)}, not {unknown[0]}")
    control = _literal(where, "control=", keywords.get("control"), bool)
    silent = _literal(where, "silent=", keywords.get("silent"), bool)
    over = _literal(where, "over=", keywords.get("over"), dict)
    least = _literal(where, "least=", keywords.get("least"), dict)
    positional = [*node.args.posonlyargs, *node.args.args]
    values = dict(zip(positional[len(positional) - len(node.args.defaults) :], node.args.defaults, strict=True))
    values |= dict(zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True))
    defaults = {
        argument.arg: _literal(where, f"the default of {argument.arg}", value)
        for argument, value in values.items()
        if value is not None  # a parameter by keyword alone that has no default
    }
    stars = ["*" + node.args.vararg.arg] if node.args.vararg else []
    more = ["**" + node.args.kwarg.arg] if node.args.kwarg else []
    names = [*(a.arg for a in positional), *stars, *(a.arg for a in node.args.kwonlyargs), *more]
    options = checked_options(where, node.name, names, defaults, over, least)
    doc = ast.get_docstring(node) or ""
    return Entry(command_name(node.name), doc, control, silent, over, options, path, node.lineno, node.name, least)


def _literal(where: str, what: str, value: ast.expr | None, kind: type = object) -> Any:
    """What an expression says without being run; an empty `kind` where there is none."""
    if value is None:
        return kind()
    try:
        found = ast.literal_eval(value)
        if isinstance(found, kind):
            return found
    except (ValueError, TypeError):
        pass
    raise UserError(f"{where}: {what} must be a plain value, written out, not {ast.unparse(value)}")
