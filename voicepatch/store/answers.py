"""The model's own answers, which a run directory holds one line a clip, in the order in which they were computed.

    answers = Answers(run, settings)             # refuses answers that were computed in another way
    answers.rows["clip_1"]["answer"]             # what was computed before
    answers.add(row)
    read_answers(run.path, run.config())         # the same rows, for readers

`answers.jsonl` is the only store. `answers.csv` and the figure are made from it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.files import CONFIG, append, cut
from voicepatch.store.changes import NO_MATTER, changes
from voicepatch.store.directory import Row, RunDir, as_lines
from voicepatch.store.reading import MOVE_AWAY, line_error, read_rows, whole_lines
from voicepatch.text import escape
from voicepatch.types.record import answer_type

STEM = "answers"  # of the files, and the key of patching_config.json
FILE = f"{STEM}.jsonl"


def read_answers(run: Path, config: Mapping[str, Any], complete: bool = True) -> dict[str, Row]:
    """The rows of a run's answers by clip_id, none where it has none; `UserError` at a line that cannot be right.

    A last line without its end is an error where they are `complete`, and else ignored.
    """
    path, found = run / FILE, {}
    for number, answer in read_rows(path, answer_type(tuple(config["task"]["labels"])), MOVE_AWAY, complete):
        row = msgspec.to_builtins(answer)
        if row["clip_id"] in found:
            raise line_error(path, number, f"gives clip {escape(row['clip_id'])} a second time", MOVE_AWAY)
        if row["logits"][row["answer"]] != max(row["logits"].values()):
            raise line_error(path, number, "answer is not the label with the largest logit", MOVE_AWAY)
        found[row["clip_id"]] = row
    return found


class Answers:
    """The answers of a run, to which new ones are added; `rows` are those that are known, by clip_id.

    `settings` are what new answers are computed with; `UserError` where the known ones were computed otherwise.
    """

    def __init__(self, run: RunDir, settings: Row):
        self.run, self._path = run, run.path / FILE
        config = run.config()
        self._type = answer_type(tuple(config["task"]["labels"]))
        self.rows = read_answers(run.path, config, complete=False)
        if self._path.exists():
            cut(self._path, whole_lines(self._path))
        before = config.get(STEM, {})
        changed = changes({key: before.get(key) for key in settings}, settings, NO_MATTER) if self.rows else []
        if changed:
            raise UserError(
                f"{self._path}: the answers were computed with other settings ({'; '.join(changed)}); move this file "
                "away to compute them again, or pass another --out",
                BAD_USAGE,
            )
        if not self.rows:
            run.update_json(CONFIG, STEM, {**settings, "finished": False, "left_out": []})

    def add(self, row: Row) -> None:
        """Store the answer to one more clip."""
        append(self._path, as_lines([row], self._type))
        self.rows[row["clip_id"]] = row

    def finish(self, left_out: Sequence[Row]) -> None:
        """Record that every clip of the data has its answer, but for those `left_out`, each with the reason."""
        settings = self.run.config()[STEM]
        self.run.update_json(CONFIG, STEM, {**settings, "finished": True, "left_out": list(left_out)})
