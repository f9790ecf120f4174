"""Which experiments there are.

    catalogue()                     # names, docstrings and options, without importing torch
    find("my_idea")                 # the entry of that name, or of my-idea
    load_intervention("random")     # the experiment, imported
    main_experiment()               # the one with main=True

The files of registered folders (`interventions/` registers itself) and the files of `--plugin` count.
"""

from functools import cache
from pathlib import Path
from types import ModuleType

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.registry.intervention import Intervention, command_name
from voicepatch.registry.plugins import forget_plugins, import_file, plugin_files, plugins, use_plugins
from voicepatch.registry.sources import folders
from voicepatch.registry.syntax import Entry, experiments_of

_broken: dict[Path, UserError] = {}


def add_plugin(path: str | Path) -> None:
    """Add a file outside the repository, or the files of a folder that register something.

    Raises `UserError` for what registers nothing, and for an experiment whose name is taken.
    """
    known = dict(catalogue())
    new = [file for file in plugin_files(path) if file not in plugins() and file.parent not in folders()]
    for file in new:
        _add_entries(file, known)
    use_plugins(new)
    catalogue.cache_clear()


def reset_plugins() -> None:
    """Drop all plugins and what they registered."""
    forget_plugins()
    catalogue.cache_clear()


@cache
def catalogue() -> dict[str, Entry]:
    """All experiments by name. Files are parsed, not imported, so that `--help` needs no torch.

    An invalid file of a registered folder is left out, and is in `broken()`.
    """
    found: dict[str, Entry] = {}
    _broken.clear()
    for path in sorted(file for folder in folders() for file in folder.glob("*.py")):
        before = dict(found)
        try:
            _add_entries(path, found)
        except UserError as error:
            found, _broken[path] = before, error
    for path in plugins():
        _add_entries(path, found)
    return found


def broken() -> dict[Path, UserError]:
    """The invalid files of registered folders, and what is wrong with each."""
    catalogue()
    return dict(_broken)


def refuse_broken(name: str) -> None:
    """Raise what is wrong with the file of that name, if it is invalid."""
    for path, error in broken().items():
        if command_name(name) == command_name(path.stem):
            raise error


def leave_out(entry: Entry, error: UserError) -> None:
    """Count the file of an entry among the broken ones; `error` is raised for one that was named as a plugin."""
    if entry.path in plugins():
        raise error
    del catalogue()[entry.name]
    _broken[entry.path] = error


def find(name: str) -> Entry | None:
    """The experiment of that name, with `-` or with `_`."""
    return catalogue().get(command_name(name))


def main_experiment() -> Entry:
    """The main experiment; `UserError` where its file is invalid or no folder is registered."""
    for entry in catalogue().values():
        if entry.main:
            return entry
    for error in _broken.values():
        raise error
    raise UserError("there is no main experiment; `import interventions` registers one")


def load_intervention(name: str) -> Intervention:
    """The experiment of that name, imported.

    Raises `UserError` for one that is not in `catalogue()`, and with file and line where importing it fails.
    """
    entry = find(name)
    if entry is None:
        refuse_broken(name)
        raise UserError(f"there is no intervention {name!r}; there are {', '.join(catalogue())}", BAD_USAGE)
    _figures_file(entry)
    found = getattr(import_file(entry.path, entry.line), entry.attribute, None)
    if not isinstance(found, Intervention):
        raise UserError(
            f"{entry.where}: {entry.attribute} is not an experiment after the file is imported; the name is used twice"
        )
    if found.function.__code__.co_name != entry.attribute:
        raise UserError(
            f"{entry.where}: a decorator under @intervention hides {entry.attribute}; it must use functools.wraps"
        )
    return found


def experiment_figures(name: str) -> ModuleType | None:
    """The module of an experiment's own figures and tables, imported.

    None where it has none, or where there is no experiment of that name, as without the plugin that has it.
    """
    entry = find(name)
    file = entry and _figures_file(entry)
    return import_file(file) if file else None


def _figures_file(entry: Entry) -> Path | None:
    """`figures/NAME.py` or `NAME.py` beside the experiment's file."""
    if not entry.figures:
        return None
    files = [folder / f"{entry.figures}.py" for folder in (entry.path.parent / "figures", entry.path.parent)]
    for file in files:
        if file.is_file():
            return file
    raise UserError(f"{entry.where}: figures={entry.figures!r}: there is no file {files[0]} and no file {files[1]}")


def _add_entries(path: Path, known: dict[str, Entry]) -> None:
    """Add the experiments of a file; `UserError` where a name, or the place of the main experiment, is taken."""
    for entry in experiments_of(path):
        if entry.name in known:
            other = known[entry.name].where
            raise UserError(f"{entry.where}: {entry.name} is an intervention already, in {other}; rename it", BAD_USAGE)
        main = next((other for other in known.values() if other.main and entry.main), None)
        if main:
            raise UserError(f"{entry.where}: main=True, but {main.where} is the main experiment", BAD_USAGE)
        known[entry.name] = entry
