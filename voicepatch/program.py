"""The program's own version, and the hash of its code, which every run records."""

import hashlib
from functools import cache

from voicepatch.paths import ROOT

VERSION = "0.1.0"  # pyproject.toml has the same


@cache
def program_hash() -> str:
    """sha256 of the names and the content of the program's Python files, experiments and plugins not among them."""
    total = hashlib.sha256()
    for folder in ("voicepatch", "pairs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            content = path.read_bytes()
            total.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode() + content)
    return total.hexdigest()
