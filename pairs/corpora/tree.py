"""The files below a folder, without those that operating systems and unzipping leave there.

tree = walk(Path("/data/TESS"))
tree.wavs(), tree.find("0011.txt"), tree.text("0011/0011.txt")
"""

import os
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from voicepatch.errors import UserError
from voicepatch.text import escape

NOT_DATA = ("__MACOSX", "lost+found")  # of macOS in zip files, of a disk at its root
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"


@dataclass(frozen=True)
class Tree:
    """`files` holds their sizes by their paths from `root`, with slashes, the least nested first."""

    root: Path
    files: dict[str, int]

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for path in self.files:
            names.setdefault(path.rpartition("/")[2].casefold(), []).append(path)
        return names

    def wavs(self) -> list[str]:
        return [path for path in self.files if path[-4:].lower() == ".wav"]

    def find(self, name: str) -> str | None:
        """The least nested file of this name; `UserError` where there are several that differ in size."""
        first, *others = self._by_name.get(name.casefold()) or [""]
        for other in others:
            if self.files[other] != self.files[first]:
                raise UserError(
                    f"{self.root}: {first} and {other} have one name but differ in size; remove one of them"
                )
        return first or None

    def without(self, folders: Set[str]) -> "Tree":
        """The tree without what lies in folders of these names, given in lower case."""
        files = {path: n for path, n in self.files.items() if folders.isdisjoint(path.lower().split("/")[:-1])}
        return replace(self, files=files)

    def text(self, path: str) -> str:
        """A text file in UTF-16 with its mark, UTF-8 or GB18030; `UserError` for anything else."""
        data = self._read(path)
        is_utf_16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        for encoding in ["utf-16"] if is_utf_16 else ["utf-8-sig", "gb18030"]:
            with suppress(UnicodeDecodeError):
                text = data.decode(encoding)
                if "\0" not in text:  # else UTF-16 without its mark, or no text at all
                    return text.replace("\ufeff", "")
        raise UserError(
            f"{self.root / path}: neither UTF-16 with its mark nor UTF-8 nor GB18030; save the file as UTF-8"
        )

    def is_lfs_pointer(self, path: str) -> bool:
        """Whether Git LFS has not fetched this file yet."""
        return self.files[path] < 1024 and self._read(path).startswith(LFS_POINTER)

    def _read(self, path: str) -> bytes:
        try:
            return (self.root / path).read_bytes()
        except OSError as error:
            raise UserError(f"{self.root / path}: cannot be read ({error.strerror}); check its permissions") from None


def stem(path: str) -> str:
    """The name of a wav file without its suffix."""
    return path.rpartition("/")[2][:-4]


def walk(root: Path) -> Tree:
    """All files below `root`; links are followed, and one that leads nowhere has size 0."""
    files: dict[str, int] = {}
    seen: set[str] = set()

    def fail(error: OSError) -> None:
        raise UserError(f"{escape(error.filename)}: cannot be read ({error.strerror}); check its permissions")

    for folder, folders, names in os.walk(root, onerror=fail, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:  # a link to a folder above it, or to another copy
            folders.clear()
            continue
        seen.add(place)
        folders[:] = filter(_is_data, folders)
        for name in filter(_is_data, names):
            file = Path(folder, name)
            files[file.relative_to(root).as_posix()] = file.stat().st_size if os.path.isfile(file) else 0
    return Tree(root, dict(sorted(files.items(), key=lambda item: (item[0].count("/"), item[0]))))


def _is_data(name: str) -> bool:
    return not name.startswith(".") and name not in NOT_DATA  # .DS_Store, AppleDouble's ._1001_DFA_ANG_XX.wav
