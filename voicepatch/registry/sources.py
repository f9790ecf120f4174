"""The source files of an experiment, read as Python reads them and followed through their imports.

    parsed(path)                     # its syntax tree, whatever the file's encoding
    imported(path, tree)             # the files that it imports from its folder and registered folders, with trees

Imports are read from the text, those inside functions too, so nothing is run.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from voicepatch.errors import UserError
from voicepatch.paths import ROOT

_folders: dict[Path, str] = {}
# The program's own modules, which a plugin's cannot replace.
MODULES = {path.stem for path in (*ROOT.glob("*.py"), *(init.parent for init in ROOT.glob("*/__init__.py")))}


def register_folder(folder: Path, package: str) -> None:
    """Let the experiments of a folder count, which is importable as `package`."""
    _folders[folder] = package


def folders() -> Mapping[Path, str]:
    """The registered folders and the packages that they are."""
    return _folders


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file, with a byte-order mark or a declared encoding too; `UserError` where it has none."""
    try:
        return ast.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two where it is nested deeply
        raise UserError(f"{path}:{getattr(error, 'lineno', None) or 1}: not readable as Python ({error})") from None


def imported(path: Path, tree: ast.Module) -> dict[Path, ast.Module]:
    """The files that a file imports, directly or not, from its folder and from registered folders."""
    trees, waiting = {}, [(path, tree)]
    for file, known in waiting:  # which grows
        for found in _imports(file, known, path.parent):
            if found != path and found not in trees:
                trees[found] = parsed(found)
                waiting.append((found, trees[found]))
    return trees


def own_files(path: Path) -> list[Path]:
    """A plugin and the files of its folder that it imports."""
    return [path, *(file for file in sorted(imported(path, parsed(path))) if not _registered(file))]


def _imports(file: Path, tree: ast.Module, folder: Path) -> Iterator[Path]:
    """The files that one file imports, as far as they lie in `folder` or in a registered folder."""
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
    elif parts[0] in _folders.values():
        root, parts = next(root for root, package in _folders.items() if package == parts[0]), parts[1:]
    else:
        root = folder
        # Files of registered folders are imported by their full names, and the program's are not a plugin's.
        if _registered(file) or (folder == ROOT and parts[0] in MODULES):
            return
    if not root.is_relative_to(folder) and not _registered(root):
        return
    for n in range(1, len(parts) + 1):
        module = root.joinpath(*parts[:n])
        if (module / "__init__.py").is_file():
            yield module / "__init__.py"
        elif not module.is_dir():
            if module.with_suffix(".py").is_file():
                yield module.with_suffix(".py")
            return


def _registered(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in _folders)
