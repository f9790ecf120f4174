"""The import graph of the program, of files and of rooms, late imports included.

    python -m tests.imports          # the rooms as a Mermaid diagram, which CONTRIBUTING.md holds

A room is a folder of `voicepatch/`, or what stands on top: `cli.py`, `interventions/`, `pairs/`. Imports under
`if TYPE_CHECKING:` count too.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOPS = ("cli.py", "interventions", "pairs", "voicepatch")
# Its __init__.py offers names of all rooms to users; nothing of the program imports them from there.
FACADE = "voicepatch"


def modules() -> dict[str, Path]:
    """Dotted name -> file, for all of the program."""
    files = [path for top in TOPS for path in ([ROOT / top] if top.endswith(".py") else (ROOT / top).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports() -> dict[str, set[str]]:
    """Module -> the modules of the program that it imports, anywhere in its text."""
    known = modules()
    return {
        name: {found for found in _imported(name, path, known) if found not in (name, FACADE)}
        for name, path in known.items()
        if name != FACADE
    }


def room_of(module: str) -> str:
    """The room of a module: `engine`, `pairs`, `cli`; a file that stands alone in `voicepatch/` is its own room."""
    parts = module.split(".")
    return parts[1] if parts[0] == FACADE else parts[0]


def rooms() -> dict[str, set[str]]:
    """Room -> the rooms that its files import."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, targets in imports().items():
        found[room_of(name)] |= {room_of(target) for target in targets} - {room_of(name)}
    return dict(found)


def mermaid() -> str:
    """The rooms and their imports, without those that follow from others."""
    graph = rooms()
    lines = [
        f"  {room} --> {target}"
        for room in sorted(graph)
        for target in sorted(graph[room])
        if not any(target in _reached(graph, other) for other in graph[room] - {target})
    ]
    return "\n".join(["graph TD", *lines])


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    reached, waiting = set(), [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - reached
        reached |= new
        waiting += new
    return reached


def _imported(module: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [name if (name := f"{node.module}.{alias.name}") in known else node.module for alias in node.names]
        else:
            continue
        yield from (name for name in names if name in known)


if __name__ == "__main__":
    print(mermaid())
