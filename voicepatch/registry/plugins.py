"""The files named with `--plugin`, and what they register besides experiments.

    plugin_files("my_folder")             # its files that register something
    metrics: Registry[Metric] = Registry("metric")
    metrics.add("entropy", made, where)   # what the decorator `@metric` does
    metrics.all()                         # by name; plugins that register one of these are imported first

A file registers with the decorators `@intervention`, `@metric`, `@family` and `@corpus`, or by calling `corpus(...)`.
Whether it does is read from its text, so that `--help` imports nothing.
"""

import ast
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.paths import ROOT
from voicepatch.registry.sources import folders, own_files, parsed

Made = TypeVar("Made")
KINDS = ("intervention", "metric", "family", "corpus")
PROGRAM = ("voicepatch", "pairs", "interventions")
_plugins: list[Path] = []
_imported: set[Path] = set()
_importing: list[Path] = []
_registries: "list[Registry]" = []


class Registry(Generic[Made]):
    """What is registered of one kind, by name, with the file and line of each.

    With `from_anywhere`, a declaration in a notebook or an imported module counts as well, and may be repeated there.
    Without, it is not registered: such an object is passed as an argument.
    """

    def __init__(self, kind: str, from_anywhere: bool = False):
        self.kind, self.from_anywhere = kind, from_anywhere
        self._found: dict[str, tuple[Made, str, Path | None]] = {}
        _registries.append(self)

    def add(self, name: str, made: Made, where: str) -> None:
        """Register an object; `UserError` where another one of the program or of a plugin has its name."""
        plugin = _importing[-1] if _importing and not _is_of_program(where) else None
        if plugin is None and not _is_of_program(where) and not self.from_anywhere:
            return
        _, other, its_plugin = self._found.get(name, (made, where, plugin))
        if other != where and (its_plugin or plugin or _is_of_program(other)):
            raise UserError(f"{where}: {name} is a {self.kind} already, in {other}; rename it", BAD_USAGE)
        self._found[name] = made, where, plugin

    def all(self) -> dict[str, Made]:
        """Everything that is registered, by name."""
        import_plugins()
        return {name: made for name, (made, _, _) in self._found.items()}

    def forget(self, plugin: Path) -> None:
        """Drop what a plugin registered."""
        self._found = {name: found for name, found in self._found.items() if found[2] != plugin}


def _is_of_program(where: str) -> bool:
    path = Path(where.rpartition(":")[0])
    return any(path.is_relative_to(ROOT / room) for room in PROGRAM)


def plugin_files(path: str | Path) -> list[Path]:
    """The file of a plugin, or the files of its folder that register something; `UserError` where there is none."""
    if not str(path).strip():
        raise UserError("--plugin: is empty; name a Python file or a folder", BAD_USAGE)
    if os.path.isdir(path):
        found = [file for file in sorted(Path(path).resolve().glob("*.py")) if kinds_in(file)]
        what = "no file of the folder registers anything"
    else:
        if not os.path.isfile(path):
            hint = "; folders are separated by / on this system" if os.sep == "/" and "\\" in str(path) else ""
            raise UserError(f"--plugin {path}: no such file{hint}", BAD_USAGE)
        found = [file for file in [Path(path).resolve()] if kinds_in(file)]
        what = "registers nothing"
    if not found:
        decorators = ", ".join(f"@{kind}" for kind in KINDS)
        raise UserError(f"--plugin {path}: {what}; decorate a function with one of {decorators}", BAD_USAGE)
    return found


def kinds_in(path: Path) -> set[str]:
    """Which of `KINDS` the text of a file registers."""
    used = set()
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            used |= {called_name(decorator) for decorator in node.decorator_list}
        elif isinstance(node, ast.Expr | ast.Assign) and isinstance(node.value, ast.Call):
            used.add(called_name(node.value))
    return used & set(KINDS)


def called_name(node: ast.expr) -> str:
    """The last name of `name`, `module.name`, `name(...)` or `module.name(...)`; "" for another expression."""
    node = node.func if isinstance(node, ast.Call) else node
    return getattr(node, "attr", getattr(node, "id", ""))


def plugins() -> list[Path]:
    """The files of all plugins."""
    return list(_plugins)


def use_plugins(files: Sequence[Path]) -> None:
    """Add files to those of the plugins."""
    _plugins.extend(files)


def import_plugins() -> None:
    """Import the plugins that register something else than experiments, each once."""
    for path in _plugins:
        if path not in _imported and kinds_in(path) - {"intervention"}:
            import_file(path)


def forget_plugins() -> None:
    """Drop all plugins and what they registered."""
    for path in _plugins:
        for registry in _registries:
            registry.forget(path)
    _plugins.clear()
    _imported.clear()


def import_file(path: Path, line: int = 1) -> ModuleType:
    """The module of a file of a registered folder, or of a plugin.

    Raises `UserError` with file and line, `line` where nothing else is known, for a file that cannot be imported.
    """
    try:
        for folder, package in folders().items():
            if path.is_relative_to(folder):
                return importlib.import_module(".".join([package, *path.relative_to(folder).with_suffix("").parts]))
        return run_file(path)
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}:{line}: {error}", error.status) from None
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise UserError(
            f"{path}:{lines[-1] if lines else 1}: cannot be imported ({type(error).__name__}: {error})"
        ) from error


def run_file(path: Path) -> ModuleType:
    """The module of a plugin's file, which runs and registers again at each call."""
    _make_importable(path)
    for registry in _registries:
        registry.forget(path)
    name = f"plugin_{path.stem}_{hashlib.sha256(str(path).encode(errors='surrogateescape')).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Python compares compiled files by seconds and size; without them no older version is run.
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    _importing.append(path)
    try:
        spec.loader.exec_module(module)
    finally:
        _importing.remove(path)
        sys.dont_write_bytecode = before
    _imported.add(path)
    return module


def _make_importable(path: Path) -> None:
    """Let a plugin import the modules of its folder, which come after the program's and the installed ones.

    They run again. Raises `UserError` where another module has the name of one of them.
    """
    folder, files = path.parent, own_files(path)[1:]
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)) in map(str, files):
            del sys.modules[name]
    importlib.invalidate_caches()
    for own in dict.fromkeys(folder / file.relative_to(folder).parts[0] for file in files):
        try:
            spec = importlib.util.find_spec(own.stem)
        except ValueError:  # a module that somebody made by hand
            spec = None
        # A package without an __init__.py may lie in several folders, and a built-in module lies in none.
        places = [spec.origin] if spec and spec.has_location else [*(spec and spec.submodule_search_locations or ())]
        mine = [os.path.realpath(place) for place in (own, own / "__init__.py")]
        others = [place for place in places if os.path.realpath(str(place)) not in mine]
        if others or not places:
            found = others[0] if others else "a built-in module"
            raise UserError(f"{path}: importing {own.stem} gives {found} and not {own}; rename the latter", BAD_USAGE)
