"""The store of answers holds each clip once, and refuses a line that cannot be right and answers made otherwise."""

import json

import pytest

from tests.store.made import IDENTITY, SETTINGS, logits
from voicepatch.errors import UserError
from voicepatch.store.answers import Answers, read_answers
from voicepatch.store.directory import RunDir

HOW = {key: SETTINGS[key] for key in ("device", "dtype", "threads", "versions", "program_sha256")} | {"max_seconds": 60}


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path / "run")
    run.claim(IDENTITY)
    return run


def answer(i, label="sad"):
    row = {"clip_id": f"c{i}", "text_id": "t", "text_type": None, "speaker": None}
    return row | {
        "semantic_label": "happy",
        "prosody_label": "sad",
        "answer": label,
        "label_mass": 0.9,
        "logits": logits(label),
    }


def stored(run, *rows):
    answers = Answers(run, HOW)
    for row in rows:
        answers.add(row)
    return run.path / "answers.jsonl"


def test_what_was_added_is_read_again(run):
    stored(run, answer(0), answer(1, "angry"))
    assert read_answers(run.path, run.config()) == {"c0": answer(0), "c1": answer(1, "angry")}
    assert list(Answers(run, HOW).rows) == ["c0", "c1"]


def test_an_end_that_was_torn_is_cut_off(run):
    path = stored(run, answer(0), answer(1))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    answers = Answers(run, HOW)
    assert list(answers.rows) == ["c0"]
    answers.add(answer(1))
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"answer": "angry"}, "answer is not the label with the largest logit"),
        ({"clip_id": "c0"}, "gives clip c0 a second time"),
        ({"label_mass": 2}, "label_mass"),
        ({"prosody_label": "bored"}, "prosody_label"),
        ({"more": 1}, "more"),
    ],
)
def test_a_line_that_cannot_be_right_is_an_error_that_names_it(run, change, why):
    path = stored(run, answer(0))
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(answer(1) | change) + "\n")
    for read in (lambda: Answers(run, HOW), lambda: read_answers(run.path, run.config())):
        with pytest.raises(UserError, match=f"answers.jsonl: line 2: .*{why}.*; move it away"):
            read()


def test_answers_that_were_computed_otherwise_are_refused_and_threads_do_not_matter(run):
    path = stored(run, answer(0))
    with pytest.raises(
        UserError, match=r"dtype was float32, is bfloat16\); move this file away .* or pass another --out"
    ):
        Answers(run, HOW | {"dtype": "bfloat16"})
    assert list(Answers(run, HOW | {"threads": 8}).rows) == ["c0"]
    path.unlink()
    assert not Answers(run, HOW | {"dtype": "bfloat16"}).rows
    assert run.config()["answers"]["dtype"] == "bfloat16"


def test_the_runs_experiments_keep_the_answers_settings(run):
    stored(run, answer(0))
    Answers(run, HOW).finish([{"clip_id": "c1", "reason": "cannot be read"}])
    run.claim(IDENTITY)
    assert run.config()["answers"] == HOW | {
        "finished": True,
        "left_out": [{"clip_id": "c1", "reason": "cannot be read"}],
    }


def test_answers_of_another_version_are_refused(run):
    stored(run, answer(0))
    path = run.path / "patching_config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"voicepatch": "', '"voicepatch": "9.'), encoding="utf-8")
    with pytest.raises(UserError, match="command answers was run with another version of the program"):
        run.config()
