"""Commands of the program, called within the process of the tests.

call("patch", "--no-need", "--kind", "prosody", "--out", out, *FEW)     # its output
fails("patch", "--alpha", "2", status=2)                   # the line that says why
"""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from cli import cli
from tests.small import small_model

MODEL = ("--model", str(small_model()), "--device", "cpu")
FEW = ("--max-pairs", "5", *MODEL)
NO_FIGURES = "--no-figures"


def call(*words: Any, status: int = 0) -> str:
    """The output of a command that ends with `status`."""
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == status, result.output + repr(result.exception)
    assert "Traceback" not in result.output
    return result.output


def fails(*words: Any, status: int) -> str:
    """The last line of a command that ends with `status`, which says why."""
    return call(*words, status=status).strip().splitlines()[-1]


def rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
