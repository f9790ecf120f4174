"""The file of the gender task, and the task."""

import pytest

from tests.task.gender import GENDER
from voicepatch.types.task import load_task


@pytest.fixture
def task_file(tmp_path):
    """A function that writes the gender task with some lines replaced."""

    def write(**lines):
        text = "".join(lines.pop(line.partition(":")[0], line) + "\n" for line in GENDER.splitlines()) + "".join(
            f"{line}\n" for line in lines.values()
        )
        path = tmp_path / "my.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def gender(task_file):
    return load_task(task_file())
