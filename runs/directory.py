"""A run directory: one model, one data set, one prompt, and the files of any number of experiments (SPEC section 8).

    run = RunDir(path)
    with run.in_use():                             # refuses a directory in which another process writes
        run.claim(identity)                        # refuses a directory of another model, data set or prompt
        done = run.begin("prosody", settings, pair_rows)
        run.append("prosody", records)             # a pair at a time; what is there survives an interruption
        run.finish("prosody", notes)

This module alone writes there, and it needs neither torch nor pandas.
"""

import itertools
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from errors import BAD_USAGE, UserError
from files import CONFIG, append, cannot_be_written, check_name, read_config, read_json, whole_lines, write_whole
from runs.lock import only_user

# What may change between the experiments of a run, and between the parts of one that was interrupted: how the data are
# called, where they lie and what was noticed of them (their hash says whether they are the same), what draws the
# figures, what an experiment says of itself, and threads, which change the last digit.
PLACES = ("source", "texts")
NOTED = {"data": (*PLACES, "name", "warnings", "corpus")}
NO_MATTER = ("versions.altair", "versions.pandas", "doc", "threads")
REPORT = "report.html"
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

    def failures_file(self, name: str) -> Path:
        return self.file("failed_pairs", name, ".jsonl")

    def has_records(self, name: str) -> bool:
        """Whether an experiment has a whole record."""
        path = self.records_file(name)
        return path.exists() and b"\n" in path.read_bytes()

    def config(self) -> Row:
        """`patching_config.json`, or `{}` before the first experiment."""
        return read_config(self.path)

    def experiments(self) -> list[str]:
        """Names of the experiments begun, in order."""
        return list(self.config().get("experiments", {}))

    def in_use(self) -> AbstractContextManager[None]:
        """Within it no other process writes here; `UserError` that names the one that does.

        A folder with somebody else's report.html, which a run would replace, is refused too.
        """
        report = self.path / REPORT
        if os.path.exists(report) and not os.path.exists(self.path / CONFIG):
            raise UserError(f"{report}: is there, and no run; move it away, or pass another --out")
        return only_user(self.path)

    def check(self, identity: Row) -> None:
        """`UserError` where the directory is already that of another model, data set or prompt."""
        config = self.config()
        for part, value in identity.items():
            if config and _lasting(part, config.get(part)) != _lasting(part, value):
                changed = "; ".join(_changes(config.get(part), value, PLACES))
                raise UserError(
                    f"{self.path}: holds a run with another {part} ({changed}); pass another --out, or remove it"
                )

    def claim(self, identity: Row) -> None:
        """Make the directory that of this model, data set and prompt, unless it is another's."""
        self.check(identity)
        self.write_json(CONFIG, {**identity, "experiments": self.config().get("experiments", {})})

    def begin(self, name: str, settings: Row, pair_rows: Sequence[Row], overwrite: bool = False) -> int:
        """Start or resume an experiment; the number of its pairs that are done already.

        `settings` must be those it was begun with; `UserError` names those that are not. With `overwrite`, files of an
        experiment that is finished or had other settings are moved aside, to `replaced-N/`.
        """
        check_name(name, self.path)
        config = self.config()
        self._refuse_twin(name, config)
        settings = json.loads(json.dumps(settings))  # as it will be read back: tuples are lists
        before = self._begun(name, config)
        changed = self._changed(name, before, settings, pair_rows) if before else []
        if changed and not overwrite:
            raise self._other_settings(name, changed)
        # An interrupted experiment goes on even then: the same command, called again, must not begin anew.
        if before is None or (overwrite and (changed or before["finished"])):
            self._begin_anew(name, settings, pair_rows)
            return 0
        if before["finished"] and self.records_file(name).exists():
            return len(pair_rows)
        if before["finished"]:
            config["experiments"][name]["finished"] = False
            self.write_json(CONFIG, config)
        return self._complete_pairs(name, [row["pair_id"] for row in pair_rows])

    def refuse_other_settings(self, name: str, settings: Row) -> None:
        """`UserError` where an experiment was begun with other values of `settings`, which need not be all."""
        before = self._begun(name, self.config())
        settings = json.loads(json.dumps(settings))
        changed = (
            _changes({key: before.get(key) for key in settings}, settings, NO_MATTER, partly=True) if before else []
        )
        if changed:
            raise self._other_settings(name, changed)

    def append(self, name: str, records: Sequence[Row]) -> None:
        """Add one pair's records, all of them or, when interrupted, a torn tail that `begin` cuts off."""
        append(self.records_file(name), "".join(_line(record) for record in records))

    def append_failure(self, name: str, row: Row) -> None:
        """Add a pair that gave no record, with the reason."""
        append(self.failures_file(name), _line(row))

    def failures(self, name: str) -> list[Row]:
        """The pairs of an experiment that gave no record."""
        path = self.failures_file(name)
        return [json.loads(line) for line in whole_lines(path)] if path.exists() else []

    def finish(self, name: str, notes: Row) -> None:
        """Mark an experiment as finished, unless it is, and keep what was noticed about it."""
        config = self.config()
        if config["experiments"][name]["finished"]:
            return
        # `report` may have made it from the first pairs; as that of a finished experiment it would mislead.
        self._remove(self.file("patching_metrics", name, ".csv"))
        config["experiments"][name] |= {"finished": True, **notes}
        self.write_json(CONFIG, config)

    def write_json(self, filename: str, content: Row) -> None:
        """Write a file as a whole or not at all."""
        write_whole(self.path / filename, _document(content))

    def update_json(self, filename: str, key: str, content: Row) -> None:
        """Set one key of a JSON file and keep the others."""
        self.write_json(filename, read_json(self.path / filename) | {key: content})

    def write_rows(self, path: Path, rows: Sequence[Row]) -> None:
        """Write JSON lines as a whole or not at all."""
        write_whole(path, "".join(_line(row) for row in rows))

    def read_pairs(self, name: str) -> list[Row]:
        """The rows of an experiment's pair list."""
        path = self.pairs_file(name)
        return [json.loads(line) for line in whole_lines(path)] if path.exists() else []

    def _begun(self, name: str, config: Row) -> Row | None:
        """What an experiment was begun with. One that gave nothing yet may begin anew with other ones."""
        before = config.get("experiments", {}).get(name)
        gave_nothing = not self.has_records(name) and not self.failures(name)
        return None if before and gave_nothing and not before["finished"] else before

    def _other_settings(self, name: str, changed: Sequence[str]) -> UserError:
        return UserError(
            f"{self.path}: experiment {name} was begun with other settings ({'; '.join(changed)}); "
            "pass --overwrite to run it anew, or another --out",
            BAD_USAGE,
        )

    def _refuse_twin(self, name: str, config: Row) -> None:
        for other in config["experiments"]:
            if other != name and other.casefold() == name.casefold():
                raise UserError(
                    f"{self.path}: the files of {name} and {other} are the same to many systems; pass another --out",
                    BAD_USAGE,
                )

    def _changed(self, name: str, before: Row, settings: Row, pair_rows: Sequence[Row]) -> list[str]:
        changed = _changes({key: before.get(key) for key in settings}, settings, NO_MATTER)
        return changed or (["the pair list differs"] if self.read_pairs(name) != list(pair_rows) else [])

    def _begin_anew(self, name: str, settings: Row, pair_rows: Sequence[Row]) -> None:
        config = self.config()
        if self._begun(name, config) or self.has_records(name):
            self._move_aside(name)
        for torn in (self.records_file(name), self.failures_file(name)):
            self._remove(torn)
        config["experiments"].pop(name, None)
        self.write_rows(self.pairs_file(name), pair_rows)
        config["experiments"][name] = {**settings, "finished": False}
        self.write_json(CONFIG, config)

    def _complete_pairs(self, name: str, pair_ids: list[str]) -> int:
        """Pairs at the head of the list that are whole or have failed; what comes after them is cut off.

        All pairs have as many records as the first, which counts as whole when a second one follows it.
        """
        path = self.records_file(name)
        content = path.read_bytes() if path.exists() else b""
        lines = [line + b"\n" for line in content.split(b"\n")[:-1]]
        counts = Counter(itertools.takewhile(lambda pair_id: pair_id is not None, map(_pair_id, lines)))
        expected = next(iter(counts.values())) if len(counts) > 1 else -1
        failures = self.failures(name)
        failed = {row["pair_id"] for row in failures}
        done = list(itertools.takewhile(lambda pair_id: pair_id in failed or counts[pair_id] == expected, pair_ids))
        n_measured = sum(pair_id not in failed for pair_id in done)
        self._cut(path, content, b"".join(lines[: n_measured * expected]) if n_measured else b"")
        kept = [row for row in failures if row["pair_id"] in done]
        path = self.failures_file(name)
        self._cut(path, path.read_bytes() if path.exists() else b"", "".join(map(_line, kept)).encode())
        return len(done)

    def _cut(self, path: Path, content: bytes, kept: bytes) -> None:
        if kept != content:
            write_whole(path, kept)

    def _move_aside(self, name: str) -> None:
        """Move an experiment's files, and what was drawn and computed with it, to `replaced-N/` with its settings."""
        aside = self._new_folder()
        config = self.config()
        write_whole(aside / CONFIG, _document(config))
        # Interrupted from here on, the experiment is unknown but its records are there, and are moved the next time.
        config["experiments"].pop(name, None)
        self.write_json(CONFIG, config)
        records = self.records_file(name)
        mine = {*self.path.glob(f"*_{name}.*"), *self.path.glob(f"contrast_{name}_vs_*")} - {records}
        for path in [*sorted(mine), *([records] if records.exists() else [])]:
            try:
                path.rename(aside / path.name)
            except OSError as error:
                raise cannot_be_written(aside / path.name, error) from None

    def _new_folder(self) -> Path:
        for number in itertools.count(1):
            aside = self.path / f"replaced-{number}"
            try:
                aside.mkdir()
                return aside
            except FileExistsError:
                continue
            except OSError as error:
                raise cannot_be_written(aside, error) from None

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_be_written(path, error) from None


def _pair_id(line: bytes) -> str | None:
    """None for a line that is none of ours: what comes after it is not trusted."""
    try:
        return json.loads(line)["pair_id"]
    except (ValueError, TypeError, KeyError):
        return None


def _document(content: Row) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _lasting(part: str, content: Any) -> Any:
    noted = NOTED.get(part, ())
    return {key: value for key, value in content.items() if key not in noted} if isinstance(content, dict) else content


def _changes(before: Any, now: Any, ignored: Sequence[str] = (), name: str = "", partly: bool = False) -> list[str]:
    """What differs, as "versions.torch was 2.9, is 2.10"; a value that is long is cut. `partly`: now may lack keys."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [
            line
            for key in dict.fromkeys([*([] if partly else before), *now])
            for line in _changes(before.get(key), now.get(key), ignored, f"{name}.{key}" if name else key, partly)
        ]
    return [] if before == now or name in ignored else [f"{name or 'it'} was {_cut(before)}, is {_cut(now)}"]


def _cut(value: Any, most: int = 80) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}…"
