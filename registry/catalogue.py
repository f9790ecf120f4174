"""Which experiments there are.

    catalogue()                     # names, docstrings and options, without importing torch
    find("my_idea")                 # the entry called so, or my-idea
    load_intervention("random")     # the experiment, imported

Every file of `interventions/` with a decorated function in it counts, and every file named with `--plugin`.
"""

import ast
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from errors import BAD_USAGE, UserError
from registry.intervention import PLAIN, Intervention, checked_options, command_name, literals
from registry.sources import FOLDER, make_importable, parsed

MAIN = "patch"
KEYWORDS = ("control", "pairs", "over", "silent", "least")
_plugins: list[Path] = []
_broken: dict[Path, UserError] = {}


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
    choices: Mapping[str, tuple]

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
        hint = "; folders are separated by / on this system" if os.sep == "/" and "\\" in str(path) else ""
        raise UserError(f"--plugin {path}: no such file{hint}", BAD_USAGE)
    path = Path(path).resolve()
    if not _entries(path):
        raise UserError(f"--plugin {path}: holds no function decorated with @intervention", BAD_USAGE)
    if path not in _plugins and path.parent != FOLDER:
        _new_entries(path, catalogue())
        _plugins.append(path)
        catalogue.cache_clear()


def plugins() -> list[Path]:
    """The files that were added."""
    return list(_plugins)


@cache
def catalogue() -> dict[str, Entry]:
    """All experiments by name. Files are parsed, not imported, so that `--help` needs no torch.

    A file of `interventions/` that cannot be used is left out, and is in `broken()`.
    """
    found: dict[str, Entry] = {}
    _broken.clear()
    for path in sorted(FOLDER.glob("*.py")):
        try:
            found |= _new_entries(path, found)
        except UserError as error:
            _broken[path] = error
    for path in _plugins:
        found |= _new_entries(path, found)
    return found


def broken() -> dict[Path, UserError]:
    """The files of `interventions/` that cannot be used, and why."""
    catalogue()
    return dict(_broken)


def refuse_broken(name: str) -> None:
    """Raise what is wrong with the file of `interventions/` that is called so, if it is broken."""
    for path, why in broken().items():
        if command_name(name) == command_name(path.stem):
            raise why


def leave_out(entry: Entry, why: UserError) -> None:
    """Count the file of an entry among the broken ones; `why` is raised for one that was named as a plugin."""
    if entry.path in _plugins:
        raise why
    del catalogue()[entry.name]
    _broken[entry.path] = why


def find(name: str) -> Entry | None:
    """The experiment called `name`, with `-` or with `_`."""
    return catalogue().get(command_name(name))


def load_intervention(name: str) -> Intervention:
    """The experiment called `name`, imported.

    Raises `UserError` for one that is not in `catalogue()`, and with file and line where importing it fails.
    """
    entry = find(name)
    if entry is None:
        refuse_broken(name)
        raise UserError(f"no intervention is called {name!r}; there are {', '.join(catalogue())}", BAD_USAGE)
    try:
        if entry.path.parent == FOLDER:
            module = importlib.import_module(f"interventions.{entry.path.stem}")
        else:
            module = _import_file(entry.path)
    except UserError as error:
        raise error if str(entry.path) in str(error) else UserError(f"{entry.where}: {error}") from None
    except (Exception, SystemExit) as error:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(entry.path)
        ]
        raise UserError(
            f"{entry.path}:{lines[-1] if lines else 1}: cannot be imported ({type(error).__name__}: {error})"
        ) from error
    return _as_written(getattr(module, entry.attribute, None), entry)


def _as_written(found: Any, entry: Entry) -> Intervention:
    """The experiment of an entry; `UserError` where what its file made of the function is another one."""
    if not isinstance(found, Intervention):
        raise UserError(f"{entry.where}: {entry.attribute} is no experiment once the file is imported; rename what is")
    code = found.function.__code__
    if code.co_name != entry.attribute or Path(code.co_filename).resolve() != entry.path.resolve():
        raise UserError(
            f"{entry.where}: a decorator under @intervention hides {entry.attribute}; it must use functools.wraps"
        )
    return found


def _import_file(path: Path) -> Any:
    make_importable(path)
    name = f"plugin_{path.stem}_{hashlib.sha256(str(path).encode(errors='surrogateescape')).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Compiled files are told apart by seconds and size; one of a version before is never run, if none is written.
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def _new_entries(path: Path, known: Mapping[str, Entry]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in _entries(path):
        other = known.get(entry.name, found.get(entry.name))
        if other is not None:
            raise UserError(
                f"{entry.where}: {entry.name} is an intervention already, in {other.where}; rename it", BAD_USAGE
            )
        found[entry.name] = entry
    return found


def _entries(path: Path) -> list[Entry]:
    tree = parsed(path)
    named = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    found = []
    for node in tree.body:
        for number, decorator in enumerate(node.decorator_list if isinstance(node, ast.FunctionDef) else []):
            if ast.unparse(decorator).partition("(")[0].rpartition(".")[2] == "intervention":
                if number:
                    raise UserError(
                        f"{path}:{decorator.lineno}: @intervention must be the outermost decorator of {node.name}; put "
                        "it above the others"
                    )
                found.append(_entry(path, node, decorator, named))
    return found


def _entry(path: Path, node: ast.FunctionDef, decorator: ast.expr, named: Mapping[str, ast.expr]) -> Entry:
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
    annotations = {a.arg: _annotation(a.annotation, named) for a in (*positional, *node.args.kwonlyargs)}
    stars = ["*" + node.args.vararg.arg] if node.args.vararg else []
    more = ["**" + node.args.kwarg.arg] if node.args.kwarg else []
    names = [*(a.arg for a in positional), *stars, *(a.arg for a in node.args.kwonlyargs), *more]
    options, choices = checked_options(where, node.name, names, defaults, over, least, annotations)
    doc = ast.get_docstring(node) or ""
    return Entry(
        command_name(node.name), doc, control, silent, over, options, path, node.lineno, node.name, least, choices
    )


def _annotation(node: ast.expr | None, named: Mapping[str, ast.expr]) -> Any:
    """A plain type or a `Literal` as it is written, in quotes or under a name of the file; None for anything else."""
    try:
        for _ in range(3):  # a name in quotes leads to what it stands for
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                node = ast.parse(node.value.strip(), mode="eval").body
            if isinstance(node, ast.Name):
                node = named.get(node.id, node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return _union([node.left, node.right], named)
        if isinstance(node, ast.Constant) and node.value is None:
            return NoneType
        if isinstance(node, ast.Subscript):
            name = ast.unparse(node.value).rpartition(".")[2]
            parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if name == "Literal":
                return Literal[ast.literal_eval(node.slice)]
            if name == "Annotated":
                return _annotation(parts[0], named)
            if name in ("Optional", "Union"):
                return _union(parts, named)
    except (SyntaxError, ValueError, TypeError):
        return None
    return {kind.__name__: kind for kind in PLAIN}.get(node.id) if isinstance(node, ast.Name) else None


def _union(parts: Sequence[ast.expr], named: Mapping[str, ast.expr]) -> Any:
    """`Literal` of the values of all parts, None where one of them is something else."""
    kinds = [_annotation(part, named) for part in parts]
    each = [literals(kind) for kind in kinds if kind is not NoneType]
    return Literal[tuple(chain.from_iterable(each))] if each and all(each) else None


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
