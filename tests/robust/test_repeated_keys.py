"""Of a key that is there twice in an input, no value is used: one line names the file, the place and the key."""

import json
import re

import pytest

from pairs import load_dataset
from voicepatch.errors import UserError
from voicepatch.models.folder import read_config
from voicepatch.types.task import load_task
from voicepatch.yaml_file import read_yaml

TEXT = {"text_id": "t1", "text": "It is noon.", "semantic_label": "neutral"}
CLIP = {"clip_id": "c1", "path": "c1.wav", "prosody_label": "sad", **TEXT}


def message(read, path):
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("prosody_label", "happy"), ("speaker", "s2"), ("path", "c2.wav")])
def test_in_a_manifest(tmp_path, key, value):
    path = tmp_path / "manifest.jsonl"
    line = json.dumps(CLIP | {"speaker": "s1"})
    path.write_text(f'{line}\n\n{line[:-1]}, "{key}": "{value}"}}\n')
    assert f"{path}: row 3: broken JSON (key '{key}' is there twice: " in message(load_dataset, path)


def test_in_the_texts_of_a_folder(tmp_path):
    line = json.dumps(TEXT)
    (tmp_path / "text.jsonl").write_text(f'{line[:-1]}, "semantic_label": "happy"}}\n')
    text = message(load_dataset, tmp_path)
    assert f"{tmp_path / 'text.jsonl'}: row 1: broken JSON (key 'semantic_label' is there twice: " in text


def test_in_the_configuration_of_a_checkpoint(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{\n "text_config": {\n  "rope_theta": 1e4,\n  "rope_theta": 1e6\n }\n}\n')
    text = message(read_config, tmp_path)
    assert f"{path}: is not readable JSON (key 'rope_theta' is there twice: line 4 column 3" in text


@pytest.mark.parametrize("again", ["labels: [yes, no]", "question: Which?", '"name": other', "'name': other"])
def test_in_a_task(tmp_path, again):
    path = tmp_path / "task.yaml"
    path.write_text(f"name: a\nquestion: What?\nlabels: [one, two]\n{again}\n")
    key = re.sub(r"\W", "", again.partition(":")[0])
    assert f"--task {path}: is not valid YAML (line 4: '{key}' is there twice; " in message(load_task, path)


@pytest.mark.parametrize(
    "text", ["seed: 1\nalpha: 1\nseed: 2\n", "a:\n  seed: 1\n  seed: 1\n", "a: [{seed: 1,\n\nseed: 2}]"]
)
def test_in_a_settings_file(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    assert "(line 3: 'seed' is there twice; " in message(lambda path: read_yaml(path, "--config", "example"), path)


@pytest.mark.parametrize("name", ["manifest.jsonl", "manifest.csv", "text.jsonl"])
def test_a_line_without_end_is_not_read_into_memory(tmp_path, name):
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(b"clip_id,path\n")
        file.truncate(3 << 30)  # zeros that take no room on the disk
    text = message(load_dataset, tmp_path if name == "text.jsonl" else path)
    assert text.startswith(f"{path}: line 2: is longer than 1,048,576 bytes; ")


def test_a_configuration_without_end_is_not_read_into_memory(tmp_path):
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(3 << 30)
    assert "config.json: is not readable JSON (is larger than 67,108,864 bytes)" in message(read_config, tmp_path)
