"""The files of a run, how one of them is damaged, and what `report` answers."""

import json
import shutil

from click.testing import CliRunner

import cli
from voicepatch.store.documents import DOCUMENTS
from voicepatch.types.record import FailedPair, pair_row_type, record_type
from voicepatch.types.task import default_task

LINE = 2  # of a file of rows, that is damaged
ROWS = {
    "pair_list_prosody.jsonl": pair_row_type(default_task().labels),
    "patching_records_prosody.jsonl": record_type(default_task().labels),
    "failed_pairs_prosody.jsonl": FailedPair,
}
NOT_READ = ("in_use.json", "confirm.json")  # not by the commands that are tried here
FILES = {**{name: declared for name, declared in DOCUMENTS.items() if name not in NOT_READ}, **ROWS}
MAY_BE_MISSING = [name for name in DOCUMENTS if name != "patching_config.json"]  # the page says that it is


def report(run):
    result = CliRunner().invoke(cli.cli, ["report", str(run)])
    return result.exit_code, [line for line in result.output.splitlines() if line.startswith("error: ")], result.output


def error_line(run, drawn, file, line=None):
    """The one line in which `report` ends, which names the file; nothing is drawn."""
    status, errors, output = report(run)
    assert status == 1 and len(errors) == 1 and output.splitlines() == errors, output
    assert str(run / file) in errors[0] and "a bug in the program" not in errors[0], errors[0]
    assert line is None or f": line {line}: " in errors[0], errors[0]
    assert errors[0].partition("; ")[2], "no way out"
    assert drawn == []
    return errors[0]


def rewritten(run, intact, file, content):
    """The file with another content, or what the content does to it."""
    path = run / file
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    return path


def rows_of(run, file="patching_records_prosody.jsonl"):
    return [json.loads(line) for line in (run / file).read_text(encoding="utf-8").splitlines()]
