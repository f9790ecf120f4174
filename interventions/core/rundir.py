"""A run directory: one model, one data set, one prompt, and the files of any number of experiments (SPEC section 8).

    run = RunDir(path)
    run.claim(identity)                            # refuses a directory of another model, data set or prompt
    done = run.begin("prosody", settings, pair_rows)
    run.append("prosody", records)                 # a pair at a time; what is there survives an interruption
    run.finish("prosody", notes)

This module alone writes there, and it needs neither torch nor pandas.
"""

import itertools
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from errors import BAD_USAGE, UserError

CONFIG = "patching_config.json"
# What is said of the model and the data, and where they were found: the last may change, the first may not.
PLACES = ("source",)
Row = dict[str, Any]


class RunDir:
    """The files of one run under `path`; nothing is made on disk before the first write."""

    def __init__(self, path: Path):
        self.path = path

    def file(self, kind: str, name: str, suffix: str) -> Path:
        """For example `file("patching_records", "prosody", ".jsonl")`."""
        return self.path / f"{kind}_{name}{suffix}"

    def records_file(self, name: str) -> Path:
        return self.file("patching_records", name, ".jsonl")

    def pairs_file(self, name: str) -> Path:
        return self.file("pair_list", name, ".jsonl")

    def config(self) -> Row:
        """`patching_config.json`, or `{}` before the first experiment."""
        return self._read_json(CONFIG)

    def experiments(self) -> list[str]:
        """Names of the experiments begun, in order."""
        return list(self.config().get("experiments", {}))

    def check(self, identity: Row) -> None:
        """`UserError` where the directory is already that of another model, data set or prompt."""
        config = self.config()
        for part, value in identity.items():
            if config and _lasting(config.get(part)) != _lasting(value):
                raise UserError(f"{self.path}: holds a run with another {part}; pass another --out, or remove it")

    def claim(self, identity: Row) -> None:
        """Make the directory that of this model, data set and prompt, unless it is another's."""
        self.check(identity)
        self.write_json(CONFIG, {**identity, "experiments": self.config().get("experiments", {})})

    def begin(self, name: str, settings: Row, pair_rows: Sequence[Row], overwrite: bool = False) -> int:
        """Start or resume an experiment; the number of its pairs that are done already.

        `settings` must be those it was begun with. With `overwrite` its files are moved aside, to `replaced-N/`.
        """
        config = self.config()
        settings = json.loads(json.dumps(settings))  # as it will be read back: tuples are lists
        before = config["experiments"].get(name)
        if before and overwrite:
            self._move_aside(name)
            before = None
        if before is None:
            self.write_rows(self.pairs_file(name), pair_rows)
            self.records_file(name).unlink(missing_ok=True)
            config["experiments"][name] = {**settings, "finished": False}
            self.write_json(CONFIG, config)
            return 0
        changed = [
            f"{key} was {before.get(key)}, is {value}" for key, value in settings.items() if before.get(key) != value
        ]
        if not changed and self.read_pairs(name) != list(pair_rows):
            changed = ["the pair list differs"]
        if changed:
            raise UserError(
                f"{self.path}: experiment {name} was begun with other settings ({'; '.join(changed)}); "
                "pass --overwrite to run it anew, or another --out",
                BAD_USAGE,
            )
        if before["finished"]:
            return len(pair_rows)
        return self._complete_pairs(name, [row["pair_id"] for row in pair_rows])

    def append(self, name: str, records: Sequence[Row]) -> None:
        """Add one pair's records, all of them or, when interrupted, a torn tail that `begin` cuts off."""
        with self.records_file(name).open("a", encoding="utf-8", newline="\n") as file:
            file.write("".join(_line(record) for record in records))
            file.flush()
            os.fsync(file.fileno())

    def finish(self, name: str, notes: Row) -> None:
        """Mark an experiment as finished and keep what was noticed about it."""
        config = self.config()
        config["experiments"][name] |= {"finished": True, **notes}
        self.write_json(CONFIG, config)

    def write_json(self, filename: str, content: Row) -> None:
        """Write a file as a whole or not at all."""
        self._write(self.path / filename, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def update_json(self, filename: str, key: str, content: Row) -> None:
        """Set one key of a JSON file and keep the others."""
        self.write_json(filename, self._read_json(filename) | {key: content})

    def write_rows(self, path: Path, rows: Sequence[Row]) -> None:
        """Write JSON lines as a whole or not at all."""
        self._write(path, "".join(_line(row) for row in rows))

    def read_pairs(self, name: str) -> list[Row]:
        """The rows of an experiment's pair list."""
        path = self.pairs_file(name)
        return [json.loads(line) for line in _lines(path)] if path.exists() else []

    def _read_json(self, filename: str) -> Row:
        path = self.path / filename
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise UserError(f"{path}: is damaged ({error}); move it away and run the command again") from None

    def _complete_pairs(self, name: str, pair_ids: list[str]) -> int:
        """Whole pairs at the head of the records file; what comes after them is cut off.

        All pairs have as many records as the first, which counts as whole when a second one follows it.
        """
        path = self.records_file(name)
        if not path.exists():
            return 0
        lines = [line for line in _lines(path) if line.endswith("\n")]
        counts = Counter(json.loads(line)["pair_id"] for line in lines)
        expected = counts[pair_ids[0]] if len(counts) > 1 else -1
        done = sum(1 for _ in itertools.takewhile(lambda pair_id: counts[pair_id] == expected, pair_ids))
        self._write(path, "".join(lines[: done * expected]) if done else "")
        return done

    def _move_aside(self, name: str) -> None:
        number = 1
        while (aside := self.path / f"replaced-{number}").exists():
            number += 1
        aside.mkdir()
        for path in sorted(self.path.glob(f"*_{name}.*")):
            path.rename(aside / path.name)

    def _write(self, path: Path, text: str) -> None:
        temporary = path.with_name(path.name + ".partial")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8", newline="\n")
            temporary.replace(path)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); free the disk or pass another --out"
            ) from None


def _lines(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="\n") as file:
        return file.readlines()


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _lasting(part: Any) -> Any:
    return {key: value for key, value in part.items() if key not in PLACES} if isinstance(part, dict) else part
