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
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.files import CONFIG, REPLACED, append, cannot_be_written, check_name, cut, write_whole
from voicepatch.store.changes import NO_MATTER, changes, difference, lasting
from voicepatch.store.documents import DOCUMENTS
from voicepatch.store.experiment import (
    ChangedFiles,
    count_done,
    files_hash,
    files_of,
    read_experiment,
    read_failures,
    read_pair_list,
    row_type_of,
)
from voicepatch.store.lock import only_user
from voicepatch.store.reading import has_line, offset_of_line, read_config, read_document
from voicepatch.types.record import FailedPair, PairRow, record_type

REPORT = "report.html"
# What tells whether a model can be studied; the checks stop at the first that fails.
CHECKED = ("sanity_check_audio_span.json", "sanity_check_model.json", "sanity_check_self_patch.json")
Row = dict[str, Any]
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class RunDir:
    """The files of one run under `path`; nothing is made on disk before the first write."""

    def __init__(self, path: Path):
        self.path = path
        self.remark = ""  # what `begin` found wrong in a finished experiment
        self._record_types: dict[str, Any] = {}  # of the experiments begun

    def file(self, kind: str, name: str, suffix: str) -> Path:
        """For example `file("patching_records", "prosody", ".jsonl")`."""
        return self.path / f"{kind}_{name}{suffix}"

    def pairs_file(self, name: str) -> Path:
        return files_of(self.path, name)[0]

    def records_file(self, name: str) -> Path:
        return files_of(self.path, name)[1]

    def failures_file(self, name: str) -> Path:
        return files_of(self.path, name)[2]

    def has_records(self, name: str) -> bool:
        """Whether an experiment has a whole record."""
        return has_line(self.records_file(name))

    def config(self) -> Row:
        """`patching_config.json`, or `{}` before the first experiment."""
        return read_config(self.path)

    def experiments(self) -> list[str]:
        """Names of the experiments begun, in order."""
        return list(self.config().get("experiments", {}))

    def in_use(self) -> AbstractContextManager[None]:
        """Within it no other process writes here; `UserError` that names the one that does.

        A folder with somebody else's report.html, which a run would replace, is an error too.
        """
        report = self.path / REPORT
        if os.path.exists(report) and not os.path.exists(self.path / CONFIG):
            raise UserError(f"{report}: is there, and no run; move it away, or pass another --out")
        return only_user(self.path)

    def check(self, identity: Row) -> None:
        """`UserError` where the directory is already that of another model, data set or prompt."""
        config = self._of_a_run()
        for part, value in identity.items():
            if config and lasting(part, config.get(part)) != lasting(part, value):
                how = difference(part, config.get(part), value)
                raise UserError(f"{self.path}: holds a run {how}; pass another --out, or remove it")

    def _of_a_run(self) -> Row:
        """The configuration; `{}` where all that was done here is a check that failed, so that it can be mended."""
        config = self.config()
        failed = any(read_document(self.path / name).get("passed") is False for name in CHECKED)
        return {} if failed and not config.get("experiments") else config

    def claim(self, identity: Row) -> None:
        """Make the directory that of this model, data set and prompt, unless it is another's."""
        self.check(identity)
        config = self._of_a_run()
        self.write_json(CONFIG, {**config, **identity, "experiments": config.get("experiments", {})})

    def begin(self, name: str, settings: Row, pair_rows: Sequence[Row], overwrite: bool = False) -> int:
        """Start or resume an experiment; the number of its pairs that are done already.

        `settings` must be those it was begun with; `UserError` names those that are not. With `overwrite`, files of an
        experiment that is finished or had other settings are moved aside, to `replaced-N/`.
        """
        check_name(name, self.path)
        self.remark = ""
        config = self.config()
        settings = json.loads(json.dumps(settings))  # as it will be read back: tuples are lists
        labels, swept = (tuple(values) for values in (config["task"]["labels"], settings["swept"]))
        self._record_types[name] = record_type(labels, swept, settings["approximate"])
        before = self._begun(name, config)
        changed = self._changed(name, before, settings, pair_rows, overwrite) if before else []
        if changed and not overwrite:
            raise self._other_settings(name, changed)
        # An interrupted experiment goes on even then: the same command, called again, must not begin again.
        if before is None or (overwrite and (changed or before["finished"])):
            self._start(name, settings, pair_rows)
            return 0
        if before["finished"]:
            try:
                read_experiment(self.path, config, name)
                return len(pair_rows)
            except ChangedFiles:  # no line shows where they were changed, so none can stay
                raise
            except UserError as error:  # what is missing or damaged is done again
                self._reopen(name, config, error)
        return self._cut_to_whole_pairs(name, config)

    def refuse_other_settings(self, name: str, settings: Row) -> None:
        """`UserError` where an experiment was begun with other values of `settings`, which need not be all."""
        before = self._begun(name, self.config())
        settings = json.loads(json.dumps(settings))
        changed = (
            changes({key: before.get(key) for key in settings}, settings, NO_MATTER, partly=True) if before else []
        )
        if changed:
            raise self._other_settings(name, changed)

    def append(self, name: str, records: Sequence[Row]) -> None:
        """Add one pair's records, all of them or, when interrupted, a torn tail that `begin` cuts off."""
        append(self.records_file(name), as_lines(records, self._record_types[name]))

    def append_failure(self, name: str, row: Row) -> None:
        """Add a pair that gave no record, with the reason."""
        append(self.failures_file(name), as_lines([row], FailedPair))

    def failures(self, name: str) -> list[Row]:
        """The pairs of an experiment that are listed as failed."""
        return [msgspec.to_builtins(row) for row in read_failures(self.failures_file(name), finished=False)]

    def finish(self, name: str, notes: Row) -> None:
        """Mark an experiment as finished, unless it is, and keep what was noticed about it.

        `UserError` where its files do not hold together or a pair is missing; then it stays unfinished.
        """
        config = self.config()
        if name not in config.get("experiments", {}):
            raise UserError(f"{self.path}: was removed or changed while {name} ran; run the same command again")
        if config["experiments"][name]["finished"]:
            return
        config["experiments"][name].pop("files_sha256", None)  # of other files, if the mark "finished" was taken away
        config["experiments"][name] |= {"finished": True, **notes}
        read_experiment(self.path, config, name)
        config["experiments"][name]["files_sha256"] = files_hash(self.path, name)
        # `report` may have made it from the first pairs; as that of a finished experiment it would mislead.
        self._remove(self.file("patching_metrics", name, ".csv"))
        self.write_json(CONFIG, config)

    def write_json(self, filename: str, content: Row) -> None:
        """Write a file as a whole or not at all; `ValueError` for what its declaration does not allow."""
        msgspec.convert(content, DOCUMENTS[filename])
        write_whole(self.path / filename, _document(content))

    def update_json(self, filename: str, key: str, content: Row) -> None:
        """Set one key of a JSON file and keep the others."""
        self.write_json(filename, read_document(self.path / filename) | {key: content})

    def write_pairs(self, name: str, rows: Sequence[Row], declared: Any = PairRow) -> None:
        """Write the pair list of an experiment, of the `declared` type, as a whole or not at all."""
        write_whole(self.pairs_file(name), as_lines(rows, declared))

    def read_pairs(self, name: str) -> list[Row]:
        """The rows of the pair list of an experiment that was begun."""
        return [msgspec.to_builtins(row) for row in read_pair_list(self.path, self.config(), name)]

    def _begun(self, name: str, config: Row) -> Row | None:
        """What an experiment was begun with. One that gave nothing yet may begin again with other ones."""
        before = config.get("experiments", {}).get(name)
        gave_nothing = not self.has_records(name) and not has_line(self.failures_file(name))
        return None if before and gave_nothing and not before["finished"] else before

    def _other_settings(self, name: str, changed: Sequence[str]) -> UserError:
        return UserError(
            f"{self.path}: experiment {name} was begun with other settings ({'; '.join(changed)}); "
            "pass --overwrite to run it again, or another --out",
            BAD_USAGE,
        )

    def _changed(self, name: str, before: Row, settings: Row, pair_rows: Sequence[Row], overwrite: bool) -> list[str]:
        changed = changes({key: before.get(key) for key in settings}, settings, NO_MATTER)
        if changed:
            return changed
        try:
            return ["the pair list differs"] if self.read_pairs(name) != list(pair_rows) else []
        except UserError as error:
            if overwrite:
                return [str(error)]
            raise

    def _start(self, name: str, settings: Row, pair_rows: Sequence[Row]) -> None:
        """Begin an experiment with its first pair. What is there of it already is kept in `replaced-N/`."""
        config = self.config()
        if self._begun(name, config) or self.has_records(name):
            self._copy_aside(name)
        config["experiments"].pop(name, None)  # so that it becomes the last one
        # Killed from here on, the next call finds neither entry nor records, and makes no copy of what is left.
        self.write_json(CONFIG, config)
        for path in [self.records_file(name), *self._files_of(name)]:
            self._remove(path)
        self.write_pairs(name, pair_rows, row_type_of(config))
        config["experiments"][name] = {**settings, "finished": False}
        self.write_json(CONFIG, config)

    def _reopen(self, name: str, config: Row, why: UserError) -> None:
        """Remove the mark "finished", and keep a copy of the files, since damaged records will be cut off."""
        copy = f", with a copy of its files in {self._copy_aside(name).name}" if self.has_records(name) else ""
        for note in ("n_pairs", "n_failed", "files_sha256", "workers"):
            config["experiments"][name].pop(note, None)
        config["experiments"][name]["finished"] = False
        self.write_json(CONFIG, config)
        self.remark = f"{name} was finished but is resumed{copy}: {why}"

    def _cut_to_whole_pairs(self, name: str, config: Row) -> int:
        """Pairs at the head of the list that are whole or have failed; what comes after them is cut off."""
        n_done, n_lines = count_done(self.path, config, name)
        _, records, failed = files_of(self.path, name)
        if records.exists():
            cut(records, offset_of_line(records, n_lines))
        done = {row["pair_id"] for row in self.read_pairs(name)[:n_done]}
        lines = as_lines([row for row in self.failures(name) if row["pair_id"] in done], FailedPair)
        if failed.exists():
            write_whole(failed, lines)
        return n_done

    def _files_of(self, name: str) -> list[Path]:
        """An experiment's files, with what was drawn and computed from them."""
        return sorted({*self.path.glob(f"*_{name}.*"), *self.path.glob(f"contrast_{name}_vs_*")})

    def _copy_aside(self, name: str) -> Path:
        """Copy an experiment's files and the configuration to the first free `replaced-N/`, which is complete."""
        names = (self.path / f"{REPLACED}{number}" for number in itertools.count(1))
        aside = next(path for path in names if not os.path.lexists(path))
        unfinished = self.path / f"replacing-{name}"
        try:
            if os.path.lexists(unfinished):  # a call before was killed
                shutil.rmtree(unfinished)
            unfinished.mkdir()
            for path in [self.path / CONFIG, *self._files_of(name)]:
                shutil.copyfile(path, unfinished / path.name)
            unfinished.rename(aside)
        except OSError as error:
            raise cannot_be_written(aside, error) from None
        return aside

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_be_written(path, error) from None


def _document(content: Row) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_lines(rows: Sequence[Row], declared: Any) -> str:
    """Rows as JSON lines; `ValueError` for one that is not as declared."""
    msgspec.convert(rows, list[declared])
    return "".join(f"{_encode(row)}\n" for row in rows)
