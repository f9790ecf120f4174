"""What runs in a worker: one model, and the pairs that it is given.

    worker = Worker(Load("demo/opens2s-demo", {"device": "cpu"}, threads=1))
    worker.load()                                       # About: where it is, what it loaded, with which versions
    worker.begin(Order("patch", code_sha256, settings, dataset, hashes, threads=1))
    part = worker.run(chunk)                            # what it computed in a second; for the rest, run()

Plain Python: Ray makes an actor of it, tests call it as it is.
"""

import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.failures import PairFailed
from errors import UserError
from pairs import Dataset, Pair
from pairs.clips import file_hash
from registry.catalogue import add_plugin, find, load_intervention
from registry.sources import own_files
from runs.directory import Row
from runs.settings import LIBRARIES, Settings

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 1.0  # a part is done after so long: what a stop waits for, and how often the progress moves


@dataclass(frozen=True)
class Load:
    """What a worker loads; `how` are the arguments of `load_subject`.

    `plugins` are by their path what each is made of: its own content and that of the files that it imports, by their
    places in its folder.

    `threads` are those that the arithmetic may use; `settled` says that it must use as many.
    """

    model: str
    how: Mapping[str, Any]
    threads: int
    settled: bool = False
    plugins: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)


@dataclass(frozen=True)
class About:
    """Where a worker is, and what must be the same for all: `versions`, and the `identity` of the model."""

    host: str
    pid: int
    device: str
    threads: int
    dtype: str
    identity: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True)
class Order:
    """An experiment to run, by its name; its code must be that of the driver, and each clip's file as `hashes` say.

    `threads` are the first worker's; `files` has the sha256 of each file that an option names.
    """

    name: str
    code_sha256: str
    settings: Settings
    dataset: Dataset
    hashes: Mapping[Path, str | None]
    threads: int
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Part:
    """What came of some pairs, in order: records, or why there are none; and what was said.

    `error` ends the run at the pair that comes next.
    """

    rows: list[tuple[list[Row], PairFailed | None]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    error: UserError | None = None


class Notebook:
    """Takes what the gates write and say, for the driver to write and say: `events` are (method, arguments)."""

    def __init__(self, path: Path):
        self.path, self.events = path, []

    def write_json(self, *args: Any) -> None:
        self.events.append(("write_json", args))

    def update_json(self, *args: Any) -> None:
        self.events.append(("update_json", args))

    def say(self, line: str) -> None:
        self.events.append(("say", (line,)))


class Worker:
    """One model in a process of its own. Errors of `load`, `begin` and `check` are the user's, as without workers."""

    def __init__(self, load: Load):
        self._load = load
        self._rows: Iterator[list[Row]] = iter(())
        self._left = 0
        self._failed: PairFailed | None = None
        self._said: list[str] = []

    def load(self) -> About:
        """Load the model and say where, and with what."""
        import torch

        from engine.subject import load_subject
        from runs.place import Local

        if not self._load.settled:  # what Ray set, and nobody asked for
            os.environ.pop("OMP_NUM_THREADS", None)
        torch.set_num_threads(self._load.threads)
        try:
            for path, files in self._load.plugins.items():
                add_plugin(_plugin(Path(path), files))
            self._place = Local(load_subject(self._load.model, **self._load.how))
        except UserError as error:  # the driver does not know yet where this is
            raise UserError(f"{error} (on {platform.node()})", error.status) from None
        llm = self._place.subject.model.llm
        device = torch.cuda.get_device_name(llm.device) if llm.device.type == "cuda" else llm.device.type
        return About(
            platform.node(),
            os.getpid(),
            device,
            torch.get_num_threads(),
            self._place.dtype,
            self._place.identity(),
            versions(),
        )

    def begin(self, order: Order, pairs: Sequence[Pair] = ()) -> tuple[Row, int]:
        """Make an experiment ready, for `pairs` that it must fit; its recorded settings and number of combinations."""
        import torch

        torch.set_num_threads(order.threads)  # one number for all: another would round another way
        experiment = load_intervention(order.name)
        if experiment.code_hash() != order.code_sha256:
            raise UserError(f"{find(order.name).path}: holds another {order.name} than where the command was started")
        for path, sha256 in order.files.items():
            if os.path.isfile(path) and file_hash(Path(path)) != sha256:
                raise UserError(f"{path}: is another file on {platform.node()} than where the command was started")
        self._place.expect(order.hashes)
        self._task = self._place.task(experiment, order.settings, order.dataset, pairs)
        return self._task.recorded, self._task.n_combinations

    def check(self, order: Order, pairs: Sequence[Pair], name: str, path: Path) -> tuple[list[tuple], UserError | None]:
        """The gates, and the error that one of them ends with; what they write and say is handed back."""
        self.begin(order)
        notebook = Notebook(path)
        try:
            self._task.check(pairs, name, notebook, notebook.say)
        except UserError as error:
            return notebook.events, error
        return notebook.events, None

    def run(self, pairs: Sequence[Pair] | None = None, seconds: float = SECONDS) -> Part:
        """Begin a chunk, or go on with it for None; gives what was done within `seconds`, at least one pair."""
        if pairs is not None:
            self._rows = self._task.records(pairs, self._said.append, self._note, lambda: False)
            self._left = len(pairs)
        part, end = Part(), time.monotonic() + seconds
        try:
            while self._left and (not part.rows or time.monotonic() < end):
                records = next(self._rows)
                part.rows.append((records, self._failed))
                self._failed = None
                self._left -= 1
            if not self._left:
                next(self._rows, None)  # to its end, where it forgets the clips
        except UserError as error:
            part.error = error
        part.said, self._said[:] = list(self._said), []
        return part

    def _note(self, pair: Pair, error: PairFailed) -> None:
        self._failed = error


def versions() -> dict[str, str]:
    """What results depend on beside model, data and settings: interpreter, libraries, the program's own code.

    Ray compares its own version when a machine joins.
    """
    found = {name: version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **found, "code": code_sha256()}


def code_files() -> list[Path]:
    """The program's files, relative to its root: those of its rooms, and of no other folder beside them."""
    rooms = [folder for folder in ROOT.iterdir() if (folder / "__init__.py").is_file() and folder.name != "tests"]
    return sorted(path.relative_to(ROOT) for room in rooms for path in room.rglob("*.py")) + sorted(
        path.relative_to(ROOT) for path in ROOT.glob("*.py")
    )


def code_sha256() -> str:
    """sha256 over the program's files."""
    total = hashlib.sha256()
    for path in code_files():
        total.update(f"{path.as_posix()}\n".encode() + (ROOT / path).read_bytes())
    return total.hexdigest()


def plugin_files(path: Path) -> dict[str, bytes]:
    """A plugin and the files of its folder that it imports, by their places there."""
    return {file.relative_to(path.parent).as_posix(): file.read_bytes() for file in own_files(path)}


def _plugin(path: Path, files: Mapping[str, bytes]) -> Path:
    """The plugin where the driver has it, or, where that is not what stands there, a copy of all its files.

    The copy lies beside the code that was sent here, so that Ray removes both.
    """
    if all((path.parent / name).is_file() and (path.parent / name).read_bytes() == files[name] for name in files):
        return path
    sent = "runtime_resources" in ROOT.parts
    folder = Path(tempfile.mkdtemp(prefix="plugin-", dir=ROOT if sent else None))
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder / path.name
