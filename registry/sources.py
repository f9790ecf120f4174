"""The source files of an experiment, read as Python reads them and followed through their imports.

    parsed(path)                     # its syntax tree, whatever the file's encoding
    imported(path, tree)             # the files of its folder and of interventions/ that it imports, with their trees
    make_importable(path)            # a plugin's own modules are found, and no others under their names

Imports are read from the text, those inside functions too, so nothing is run.
"""

import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from errors import BAD_USAGE, UserError

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "interventions"
# The program's own modules, which a plugin's cannot replace.
MODULES = {path.stem for path in (*ROOT.glob("*.py"), *(init.parent for init in ROOT.glob("*/__init__.py")))}


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file, with a byte-order mark or a declared encoding too; `UserError` where it has none."""
    try:
        return ast.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two where it is nested deeply
        raise UserError(f"{path}:{getattr(error, 'lineno', None) or 1}: not readable as Python ({error})") from None


def imported(path: Path, tree: ast.Module) -> dict[Path, ast.Module]:
    """The files that a file imports, directly or not, from its folder and from `interventions/`."""
    trees, waiting = {}, [(path, tree)]
    for file, known in waiting:  # which grows
        for found in _imports(file, known, path.parent):
            if found != path and found not in trees:
                trees[found] = parsed(found)
                waiting.append((found, trees[found]))
    return trees


def own_files(path: Path) -> list[Path]:
    """A plugin and the files of its folder that it imports."""
    return [path, *(file for file in sorted(imported(path, parsed(path))) if not file.is_relative_to(FOLDER))]


def make_importable(path: Path) -> None:
    """Let a plugin import the modules of its folder, which come after the program's and the installed ones.

    They are imported anew. Raises `UserError` where another module has the name of one of them.
    """
    folder, files = path.parent, own_files(path)[1:]
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) in map(str, files):
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
        others = [place for place in places if os.path.realpath(place) not in mine]
        if others or not places:
            found = others[0] if others else "a built-in module"
            raise UserError(f"{path}: importing {own.stem} gives {found} and not {own}; rename the latter", BAD_USAGE)


def _imports(file: Path, tree: ast.Module, folder: Path) -> Iterator[Path]:
    """The files that one file imports, as far as they lie in `folder` or in `interventions/`."""
    for node in ast.walk(tree):
        level, names = 0, []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from package import module` names a file as well as `import package.module` does.
            level, package = node.level, [node.module] if node.module else []
            names = [".".join([*package, alias.name]) for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            names = [str(node.args[0].value)] if called in ("import_module", "__import__") else []
        for name in names:
            yield from _files_of(name.split("."), file, level, folder)


def _files_of(parts: list[str], file: Path, level: int, folder: Path) -> Iterator[Path]:
    """The files that run where a file imports a dotted name; `level` is the number of dots before it."""
    if level:
        root = file.parents[min(level, len(file.parents)) - 1]
    elif parts[0] == "interventions":
        root, parts = FOLDER, parts[1:]
    else:
        root = folder
        # Those of `interventions/` are imported by their full name alone, and the program's are none of a plugin's.
        if file.is_relative_to(FOLDER) or (folder == ROOT and parts[0] in MODULES):
            return
    if not root.is_relative_to(folder) and not root.is_relative_to(FOLDER):
        return
    for n in range(1, len(parts) + 1):
        module = root.joinpath(*parts[:n])
        if (module / "__init__.py").is_file():
            yield module / "__init__.py"
        elif not module.is_dir():
            if module.with_suffix(".py").is_file():
                yield module.with_suffix(".py")
            return
