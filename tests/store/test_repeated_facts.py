"""Two values of one key, and two lines that disagree about a clip, are refused in one line."""

import re

import pytest

from tests.store.made import IDENTITY, PAIRS, SETTINGS, failed, records
from voicepatch.errors import UserError
from voicepatch.store.directory import RunDir
from voicepatch.store.experiment import read_experiment
from voicepatch.store.reading import read_config
from voicepatch.types.record import PairRow


def make(folder, finished=True):
    """A run of which the second pair has failed."""
    run = RunDir(folder)
    run.claim(IDENTITY)
    run.begin("prosody", SETTINGS, PAIRS)
    run.append("prosody", records(0) + records(2))
    run.append_failure("prosody", failed(1))
    if finished:
        run.finish("prosody", {"n_pairs": 3, "n_failed": 1})
    return folder


def read(run):
    return read_experiment(run, read_config(run), "prosody")


def repeat(path, line, key, value):
    """Put the key with another value before its first place in a line, counted from 1."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    assert f'"{key}": ' in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(f'"{key}": ', f'"{key}": {value}, "{key}": ', 1)
    path.write_text("".join(lines), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "line", "key", "value"),
    [
        ("patching_records_prosody.jsonl", 3, "pred_patch", '"happy"'),
        ("patching_records_prosody.jsonl", 2, "angry", "1.5"),  # inside logits_base
        ("patching_records_prosody.jsonl", 1, "pair_id", '"a \\"quoted\\" name"'),
        ("pair_list_prosody.jsonl", 2, "target", '"happy"'),
        ("failed_pairs_prosody.jsonl", 1, "reason", '"another"'),
    ],
)
def test_a_key_that_is_there_twice_in_a_row_is_named_with_file_and_line(tmp_path, file, line, key, value):
    path = make(tmp_path) / file
    repeat(path, line, key, value)
    with pytest.raises(UserError, match=re.escape(f"{path}: line {line}: key '{key}' is there twice; ")):
        read(tmp_path)


def test_a_quotation_mark_in_a_value_is_no_second_key(tmp_path):
    path = make(tmp_path, finished=False) / "failed_pairs_prosody.jsonl"
    for written in ('the \\"model\\"', "the \\u0022model\\u0022"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub('"reason": ".*?(?<!\\\\)"', lambda _, w=written: f'"reason": "{w}"', text), "utf-8")
        assert read(tmp_path).failed == {"p1": 'the "model"'}


def test_a_key_that_is_there_twice_in_the_configuration_is_named_with_its_line(tmp_path):
    path = make(tmp_path) / "patching_config.json"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    number = next(i for i, line in enumerate(lines) if '"pair_sampling_seed"' in line)
    lines.insert(number, '      "pair_sampling_seed": 7,\n')
    path.write_text("".join(lines), encoding="utf-8")
    message = f"{path}: is damaged (key 'pair_sampling_seed' is there twice: line {number + 2} column 7"
    with pytest.raises(UserError, match=re.escape(message)):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_b": "a0", "text_id_b": "t9"}, "clip a0 text_id 't9', where line 1 gives 't0'"),
        ({"clip_a": "b0", "text_id_a": "t0"}, "clip b0 prosody_label 'angry', where line 1 gives 'sad'"),
        ({"clip_a": "a0", "text_id_a": "t0", "speaker_a": "s"}, "clip a0 speaker 's', where line 1 gives None"),
    ],
)
def test_pairs_that_disagree_about_a_clip_are_named_with_both_lines(tmp_path, changes, message):
    path = make(tmp_path) / "pair_list_prosody.jsonl"
    RunDir(tmp_path).write_pairs("prosody", [PAIRS[0], PAIRS[1] | changes, PAIRS[2]], PairRow)
    with pytest.raises(UserError, match=re.escape(f"{path}: line 2: gives {message}; ")):
        read(tmp_path)


def test_a_clip_may_be_in_many_pairs(tmp_path):
    make(tmp_path, finished=False)
    again = PAIRS[1] | {"clip_a": "a0", "text_id_a": "t0", "text_id_b": "t0"}
    RunDir(tmp_path).write_pairs("prosody", [PAIRS[0], again, PAIRS[2]], PairRow)
    assert [row.clip_a for row in read(tmp_path).pairs] == ["a0", "a0", "a2"]


def test_a_line_and_a_document_have_a_limit(tmp_path, monkeypatch):
    """Neither is read into memory beyond it."""
    make(tmp_path)
    path = tmp_path / "patching_records_prosody.jsonl"
    content = path.read_bytes()
    path.write_bytes(content + b"x" * 3000)
    monkeypatch.setattr("voicepatch.files.MAX_LINE", 2000)
    with pytest.raises(UserError, match=re.escape(f"{path}: line 5: is longer than 2,000 bytes; ")):
        read(tmp_path)
    monkeypatch.setattr("voicepatch.files.MAX_DOCUMENT", 100)
    with pytest.raises(UserError, match=r"patching_config.json: is damaged \(is larger than 100 bytes\); "):
        read_config(tmp_path)


@pytest.mark.parametrize("edit", ["records of another experiment", "another speaker", "another reason"])
def test_files_that_were_changed_after_the_end_are_an_error_and_are_not_continued(tmp_path, edit):
    """They agree with each other, so only their hash shows it."""
    make(tmp_path)
    if edit == "records of another experiment":
        path, old, new = tmp_path / "patching_records_prosody.jsonl", '"stream_shift": 1.0', '"stream_shift": 2.0'
    elif edit == "another speaker":
        path, old, new = tmp_path / "pair_list_prosody.jsonl", '"speaker_a": null', '"speaker_a": "s1"'
    else:
        path, old, new = tmp_path / "failed_pairs_prosody.jsonl", "a logit is not finite", "another"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(
        UserError, match="patching_records_prosody.jsonl: .* changed after the experiment had finished; run that"
    ):
        read(tmp_path)
    if edit != "another speaker":
        with pytest.raises(UserError, match="changed after the experiment had finished"):
            RunDir(tmp_path).begin("prosody", SETTINGS, PAIRS)
    assert RunDir(tmp_path).begin("prosody", SETTINGS, PAIRS, overwrite=True) == 0
    assert (tmp_path / "replaced-1" / path.name).exists()


def test_a_hash_that_is_left_of_another_end_is_replaced(tmp_path):
    make(tmp_path)
    run = RunDir(tmp_path)
    config = run.config()
    config["experiments"]["prosody"] |= {"finished": False, "files_sha256": "of other files"}
    run.write_json("patching_config.json", config)
    assert run.begin("prosody", SETTINGS, PAIRS) == 3
    run.finish("prosody", {"n_pairs": 3, "n_failed": 1})
    assert read(tmp_path).n_measured == 2
