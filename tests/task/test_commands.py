"""A task on the command line."""

import json
import re
from dataclasses import replace

import pytest

from pairs import load_dataset
from tests.commands import MODEL, call
from tests.task.gender import write_manifest
from voicepatch.commandline.running import run_path
from voicepatch.engine.subject import load_subject
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.paths import DEMO_DATA, DEMO_MODEL
from voicepatch.types.settings import Settings
from voicepatch.types.task import default_task, load_task, task_of


@pytest.fixture
def gender_data(tmp_path):
    """A manifest of the demo's clips: two of the voices are called female, two male."""
    genders = {"neutral": "f", "happy": "F", "sad": "m", "angry": "male"}
    lines = ["clip_id,path,text_id,text,gender,speaker"]
    for row in map(json.loads, (DEMO_DATA / "text.jsonl").read_text(encoding="utf-8").splitlines()[:4]):
        text_id = row["text_id"]
        lines += [
            f'{text_id}_{voice},{DEMO_DATA / voice / text_id}.flac,{text_id},"{row["text"]}",{label},{row["speaker"]}'
            for voice, label in genders.items()
        ]
    path = tmp_path / "clips.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_another_task_runs_from_the_command_line_to_the_report(task_file, gender_data, tmp_path):
    out = tmp_path / "run"
    how = ("--data", gender_data, "--out", out, "--max-pairs", 3, "--layers", "0,3", *MODEL)
    file = tmp_path / "settings.yaml"
    file.write_text(f"task: {task_file()}\n", encoding="utf-8")
    said = call("patch", "--no-need", "--kind", "prosody", "--config", file, *how)
    assert "data: gender: F counts as female (4 clips); f counts as female (4 clips); m counts as male" in said
    config = json.loads((out / "patching_config.json").read_text(encoding="utf-8"))
    assert task_of(config["task"]) == load_task(task_file()) and config["labels"]["order"] == ["female", "male"]
    assert not config["experiments"]["prosody"]["same_speaker"]
    call("control", "--kind", "same-label", "--config", file, *how)
    assert "words: null" in call("control", "--kind", "no-conflict", "--config", file, *how, status=1)
    assert "words: null" in call("patch", "--no-need", "--kind", "semantic", "--config", file, *how, status=1)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "female" in page and "surprised" not in page and "report.html" in call("report", out)
    line = call("patch", "--no-need", "--kind", "prosody", *how[2:], status=1).splitlines()[-1]
    assert "holds a run with another task (name was gender, is emotion" in line and len(line) < 600


def test_the_default_directory_names_any_task_but_the_default(gender, tmp_path):
    dataset = load_dataset(write_manifest(tmp_path), task=gender)
    assert run_path(Settings(), dataset).name == "opens2s-demo--clips--gender"
    assert run_path(Settings(), replace(dataset, task=default_task())).name == "opens2s-demo--clips"


def test_a_wrong_task_is_wrong_usage(task_file):
    path = task_file(labels="labels: [female]")
    assert f"--task {path}: labels has 1" in call("pairs", "--kind", "prosody", "--task", path, status=BAD_USAGE)


def test_labels_with_one_first_token_are_an_error_that_names_the_tasks_file(tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text("name: twice\nquestion: Which?\nlabels: [surprised, surprising]\n")
    with pytest.raises(UserError, match=rf"^{re.escape(str(file))}: labels 'surprised' and 'surprising' start with"):
        load_subject(DEMO_MODEL, device="cpu", task=load_task(file))
