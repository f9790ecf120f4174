"""The command `answers`, from the data to its table."""

import json
import re
import shutil
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from tests.analysis.made_run import change
from tests.commands import MODEL, NO_FIGURES, call, fails, rows
from tests.few_clips import few_clips
from voicepatch.types.task import default_task

COLUMNS = ["clip_id", "text_id", "text_type", "speaker", "semantic_label", "prosody_label", "answer", "label_mass"]
LABELS = list(default_task().labels)


@pytest.fixture
def task_file_of_no_answers(tmp_path):
    """A task without labels of the words, and whose labels the model never answers."""
    path = tmp_path / "german.yaml"
    path.write_text(
        "name: german\nquestion: Which?\nlabels: [Freude, Trauer, Wut]\nwords: null\n"
        "spellings: {happy: Freude, sad: Trauer, angry: Wut}\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    out, data = folder / "run", few_clips(folder)
    said = call("answers", "--data", data, "--out", out, *MODEL)
    return out, data, said


def test_the_table_has_each_clip_once_in_the_columns_of_the_contract(run):
    out, data, _ = run
    table = pd.read_csv(out / "answers.csv")
    assert list(table) == [*COLUMNS, *(f"logit_{label}" for label in LABELS)]
    assert table["clip_id"].tolist() == sorted(pd.read_csv(data)["clip_id"])
    best = table[[f"logit_{label}" for label in LABELS]].to_numpy().argmax(1)
    assert table["answer"].tolist() == [LABELS[i] for i in best] and table["label_mass"].between(0, 1).all()


def test_the_answers_are_the_unpatched_ones_of_the_records(run, tmp_path):
    out, data, _ = run
    call("patch", "--no-need", "--kind", "prosody", "--data", data, "--out", tmp_path / "patch", NO_FIGURES, *MODEL)
    table = pd.read_csv(out / "answers.csv").set_index("clip_id")
    for record in rows(tmp_path / "patch" / "patching_records_prosody.jsonl"):
        logits = [table.loc[record["clip_b"], f"logit_{label}"] for label in LABELS]
        assert logits == list(record["logits_donor"].values())
        assert table.loc[record["clip_a"], "answer"] == record["pred_base"]
        base = [table.loc[record["clip_a"], f"logit_{label}"] for label in LABELS]
        np.testing.assert_allclose(base, list(record["logits_base"].values()), atol=1e-4)


def test_at_the_width_of_a_column_what_is_followed_stands_in_one_row(run, tmp_path):
    call("figure", run[0], "answers", "--width", "3.3in", "--out", tmp_path / "answers.svg")
    heights = heights_of_texts(ElementTree.parse(tmp_path / "answers.svg").getroot())
    assert len({heights[name] for name in ("the voice", "the words", "neither")}) == 1


def heights_of_texts(element, above=0.0):
    """How far below the top the first place of each text of an SVG is."""
    move = re.search(r"translate\([^,]+,([^)]+)\)", element.get("transform", ""))
    here = above + float(move[1]) if move else above
    found = {element.text: here} if element.tag.endswith("text") else {}
    for child in element:
        found = heights_of_texts(child, here) | found
    return found


def test_the_summary_is_written_and_shown(run):
    out, _, said = run
    summary = pd.read_csv(out / "answers_summary.csv")
    conflict = summary[(summary["text_type"] == "all") & (summary["congruence"] == "conflict")]
    assert conflict["share"].sum() == pytest.approx(1) and conflict["follows"].tolist() == ["voice", "words", "neither"]
    assert "chance (20%)" in said  # twelve clips of four texts show little
    assert "conflict" in said and "answers.csv" in said and "answers.png" in said
    assert (out / "answers.png").stat().st_size > 1000


def test_a_second_call_computes_nothing_and_gives_the_same_files(run, monkeypatch):
    out, data, _ = run
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr("voicepatch.engine.clips.ClipStore.unpatched", None)
    call("answers", "--data", data, "--out", out, *MODEL)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_labels_that_hold_little_of_the_probability_are_warned_of(task_file_of_no_answers, run, tmp_path):
    said = call("answers", "--task", task_file_of_no_answers, "--data", run[1], "--out", tmp_path / "run", *MODEL)
    assert re.search(r"warning: the labels hold 0\.\d% of the unpatched model's probability on average", said)
    assert "another label" in (tmp_path / "run" / "answers.svg").read_text(encoding="utf-8")


def test_report_makes_tables_and_figure_again_without_a_model(run, tmp_path, monkeypatch):
    copy = shutil.copytree(run[0], tmp_path / "run")
    made = [path for path in copy.iterdir() if path.suffix in (".csv", ".png", ".svg", ".txt")]
    before = {path: path.read_bytes() for path in made}
    for path in made:
        path.unlink()
    monkeypatch.setattr("voicepatch.commandline.loading.load_model", None)
    assert "answers.csv" in call("report", copy)
    assert len(made) == 5 and {path: path.read_bytes() for path in made} == before


def test_a_report_of_answers_alone_says_what_it_lacks(run, tmp_path):
    out, _, _ = run
    line = fails("report", out, "--by", "speaker", status=2)
    assert "has answers and no experiment; leave --by out" in line
    copy = shutil.copytree(out, tmp_path / "copy")
    change(copy, "patching_config.json", lambda config: config["answers"].update(finished=False))
    assert "the command `answers` is not finished; run the same command again" in fails("report", copy, status=1)


def test_answers_renew_the_report_of_the_experiments_in_their_run(run, tmp_path):
    out, data, _ = run
    copy = shutil.copytree(out, tmp_path / "copy")
    chosen = ("--data", data, "--out", copy, *MODEL)
    call("patch", "--kind", "prosody", "--max-pairs", "6", "--no-need", NO_FIGURES, *chosen)
    assert not (copy / "report.html").exists()
    call("answers", *chosen)
    assert "Does the model do the task?" in (copy / "report.html").read_text(encoding="utf-8")


def test_a_run_of_answers_alone_has_a_figure_and_a_table_for_a_paper_and_nothing_to_compare(run, tmp_path):
    call("figure", run[0], "answers", "--out", tmp_path / "answers.pdf")
    assert "the 12 clips" in (tmp_path / "answers.txt").read_text(encoding="utf-8").lower()
    assert "| Follows |" in call("table", run[0], "answers_summary", "--format", "markdown")
    other = shutil.copytree(run[0], tmp_path / "other")
    assert "has no finished main experiment" in fails("compare", run[0], other, "--out", tmp_path / "both", status=1)


def test_a_directory_of_another_model_is_refused(run):
    out, data, _ = run
    line = fails("answers", "--data", data, "--out", out, "--random-weights", *MODEL, status=1)
    assert "holds a run of the trained model" in line


def test_a_clip_that_cannot_be_read_is_listed_or_stops_the_command(tmp_path):
    data = few_clips(tmp_path, n_texts=2)
    broken = tmp_path / "broken.flac"
    broken.write_bytes(b"fLaC")
    lines = data.read_text(encoding="utf-8").splitlines()
    first = lines[1].split(",")
    data.write_text("\n".join([lines[0], lines[1].replace(first[1], str(broken)), *lines[2:]]) + "\n", encoding="utf-8")
    how = ("--data", data, "--out", tmp_path / "run", *MODEL)
    line = fails("answers", *how, status=1)
    assert first[0] in line and "--on-bad-clip skip leaves it out" in line
    assert f"1 of 6 clips gave no answer: {first[0]}" in call("answers", "--on-bad-clip", "skip", *how)
    assert first[0] not in pd.read_csv(tmp_path / "run" / "answers.csv")["clip_id"].tolist()
    (left_out,) = json.loads((tmp_path / "run" / "patching_config.json").read_text())["answers"]["left_out"]
    assert left_out["clip_id"] == first[0] and "broken.flac" in left_out["reason"]


def test_the_report_shows_the_answers_of_all_clips_and_damaged_ones_as_a_failed_check(run, tmp_path):
    out, data, _ = run
    copy = shutil.copytree(out, tmp_path / "run")
    how = ("--data", data, "--max-pairs", 2, "--layers", "0", *MODEL)
    call("patch", "--no-need", "--kind", "prosody", "--out", copy, *how)
    page = (copy / "report.html").read_text(encoding="utf-8")
    assert "What the unpatched answers follow: the 12 clips that were asked about" in page
    assert "python cli.py answers --model" in page and "This run had --device cpu --dtype float32" in page
    path = copy / "answers.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"label_mass": 0', '"label_mass": 2', 1), encoding="utf-8")
    assert "answers.jsonl: line" in call("report", copy, status=1).splitlines()[-1]
    page = (copy / "report.html").read_text(encoding="utf-8")
    assert "The answers cannot be shown" in page and "answers.jsonl: line" in page


def test_answers_that_say_another_thing_of_a_clip_than_the_data_are_an_error(run, tmp_path):
    out, data, _ = run
    shutil.copytree(out, tmp_path / "run")
    lines = (tmp_path / "run" / "answers.jsonl").read_text().splitlines(keepends=True)
    row = json.loads(lines[0])
    other = next(label for label in LABELS if label != row["prosody_label"])
    (tmp_path / "run" / "answers.jsonl").write_text(
        "".join([json.dumps(row | {"prosody_label": other}) + "\n", *lines[1:]])
    )
    line = fails("answers", "--data", data, "--out", tmp_path / "run", *MODEL, status=1)
    assert f"clip {row['clip_id']} has prosody_label '{other}'" in line and "in the data" in line


@pytest.mark.parametrize("option", ["--max-pairs", "--only", "--both-directions"])
def test_answers_takes_no_option_that_is_about_pairs(option):
    assert "No such option" in fails("answers", option, "1", status=2)
