"""The files below a folder, without what operating systems and unzipping leave there.

tree = walk(Path("/data/TESS"))
tree.wavs(), tree.find("0011.txt"), tree.text("0011/0011.txt")
"""

import errno
import os
from collections.abc import Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from voicepatch.errors import UserError, can_be_written
from voicepatch.text import escape

MOST_ENTRIES = 500_000
NOT_DATA = ("__MACOSX", "lost+found")  # of macOS in zip files, of a disk at its root
MOST_BYTES = 2**24  # of a transcript
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"


@dataclass(frozen=True)
class Tree:
    """`files` holds their sizes by their paths from `root`, with slashes, the least nested first.

    `left_out` says of other entries why they are not among them.
    """

    root: Path
    files: dict[str, int]
    left_out: tuple[str, ...] = ()

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for path in self.files:
            names.setdefault(path.rpartition("/")[2].casefold(), []).append(path)
        return names

    def wavs(self) -> list[str]:
        return [path for path in self.files if path[-4:].lower() == ".wav"]

    def has(self, name: str) -> bool:
        """Whether a file of this name is anywhere, in any case of letters."""
        return name.casefold() in self._by_name

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
        kept = {path: n for path, n in self.files.items() if folders.isdisjoint(path.lower().split("/")[:-1])}
        return replace(self, files=kept)

    def text(self, path: str) -> str:
        """A text file in UTF-16 with its mark, UTF-8 or GB18030; `UserError` for anything else."""
        file = self.root / path
        try:
            with file.open("rb") as opened:
                data = opened.read(MOST_BYTES + 1)
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror}); check the file and its permissions") from None
        if len(data) > MOST_BYTES:
            raise UserError(f"{file}: larger than {MOST_BYTES >> 20} MiB, so no transcript; put the corpus' own back")
        if data.startswith(LFS_POINTER):
            raise UserError(f"{file}: a Git-LFS pointer in place of the text; fetch the files with `git lfs pull`")
        is_utf_16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        for encoding in ["utf-16"] if is_utf_16 else ["utf-8-sig", "gb18030"]:
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                continue
            if "\0" in text:  # UTF-16 without its mark, UTF-32, or no text at all
                break
            return text.replace("\ufeff", "")
        raise UserError(f"{file}: neither UTF-16 with its mark nor UTF-8 nor GB18030; save the file as UTF-8")

    def is_lfs_pointer(self, path: str) -> bool:
        if self.files[path] >= 1024:
            return False
        try:
            with (self.root / path).open("rb") as file:
                return file.read(len(LFS_POINTER)) == LFS_POINTER
        except OSError as error:
            raise UserError(f"{self.root / path}: cannot be read ({error.strerror}); check its permissions") from None


def stem(path: str) -> str:
    """The name of a wav file without its suffix."""
    return path.rpartition("/")[2][:-4]


def walk(root: Path) -> Tree:
    """All files below `root`; links are followed, and one that leads nowhere has size 0.

    Left out are links that lead to themselves, and names that are not in UTF-8.
    """
    files: dict[str, int] = {}
    left_out: list[str] = []
    seen: set[tuple[int, int]] = set()
    folders = [(root, "")]
    n_entries = 0
    while folders:
        folder, prefix = folders.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder above it, or to another copy
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    n_entries += 1
                    if n_entries > MOST_ENTRIES:
                        raise UserError(f"{root}: more than {MOST_ENTRIES:,} files; name the corpus' own folder")
                    # .DS_Store, AppleDouble's ._1001_DFA_ANG_XX.wav
                    if entry.name.startswith(".") or entry.name in NOT_DATA:
                        continue
                    path = prefix + entry.name
                    if not can_be_written(entry.name):
                        left_out.append(f"{path} (its name is not in UTF-8)")
                    elif _leads_to_itself(entry):
                        left_out.append(f"{path} (a link that leads to itself)")
                    elif entry.is_dir():
                        folders.append((Path(entry.path), f"{path}/"))
                    elif entry.is_file():
                        files[path] = entry.stat().st_size
                    elif entry.is_symlink():
                        files[path] = 0
        except OSError as error:
            raise UserError(f"{escape(folder)}: cannot be read ({error.strerror}); check its permissions") from None
    return Tree(
        root, dict(sorted(files.items(), key=lambda item: (item[0].count("/"), item[0]))), tuple(sorted(left_out))
    )


def _leads_to_itself(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_symlink() and not entry.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
