"""Labels are read from the columns, folders and file names of the task, and its question reaches the model."""

from pathlib import Path

import msgspec
import pytest
import soundfile

from pairs import build_pairs, load_dataset
from pairs.corpora.corpus import declared_corpora
from pairs.corpora.read import read_corpus
from pairs.corpora.tree import Tree
from tests.task.gender import refused, write_manifest
from voicepatch.engine.subject import load_subject
from voicepatch.errors import UserError
from voicepatch.paths import DEMO_DATA, DEMO_MODEL, ROOT
from voicepatch.registry.catalogue import load_intervention
from voicepatch.runs.pair_loop import run_pairs
from voicepatch.types.task import Task, default_task, load_task


def test_the_labels_are_read_from_the_columns_of_the_task(tmp_path, gender):
    dataset = load_dataset(write_manifest(tmp_path), task=gender)
    assert [clip.prosody_label for clip in dataset.clips] == ["female", "female", "male", "male"]
    assert {clip.semantic_label for clip in dataset.clips} == {None} and dataset.task == gender
    sample = build_pairs(dataset.clips, "prosody", task=gender)
    assert len(sample.pairs) == 2 and not sample.report["same_speaker"]
    assert all(pair.target == pair.b.prosody_label != pair.a.prosody_label for pair in sample.pairs)


def test_the_label_of_the_words_has_a_column_of_its_own(tmp_path, task_file):
    task = load_task(task_file(words="words: about"))
    path = write_manifest(tmp_path, "clip_id,path,text_id,text,gender,speaker,about", lambda row: [*row, row[4]])
    with pytest.raises(UserError, match=r"row 4: text_id 't0' has about 'male' here and 'female' in row 2"):
        load_dataset(path, task=task)
    write_manifest(
        tmp_path,
        "clip_id,path,text_id,text,gender,speaker,about",
        lambda row: [*row, "Male" if row[2] == "t0" else "female"],
    )
    clips = load_dataset(path, task=task).clips
    assert [clip.semantic_label for clip in clips] == ["male", "female", "male", "female"]
    assert {pair.target for pair in build_pairs(clips, "semantic", task=task).pairs} <= {"female", "male"}


def test_a_missing_column_is_named_with_the_file(tmp_path, gender):
    path = write_manifest(tmp_path, "clip_id,path,text_id,text,sex,speaker")
    with refused(str(path), "no column gender"):
        load_dataset(path, task=gender)


def test_an_unknown_label_names_the_row_and_the_labels(tmp_path, gender):
    path = write_manifest(tmp_path, change=lambda row: [*row[:4], "child" if row[0] == "c2" else row[4], row[5]])
    with refused(str(path), "row 4", "'child'", "female, male"):
        load_dataset(path, task=gender)


def test_without_labels_of_the_words_there_are_no_semantic_pairs(tmp_path, gender):
    clips = load_dataset(write_manifest(tmp_path), task=gender).clips
    with refused("semantic", "words: null"):
        build_pairs(clips, "semantic", task=gender)
    with refused("without conflict", "words: null"):
        build_pairs(clips, "prosody", task=gender, agreeing_recipient=True)


def test_folders_are_called_as_the_labels(tmp_path, gender):
    (tmp_path / "text.jsonl").write_text('{"text_id": "t1", "text": "Hello."}\n')
    for folder in ("F", "male"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t1.wav").write_bytes(b"")
    assert [clip.prosody_label for clip in load_dataset(tmp_path, task=gender).clips] == ["female", "male"]


RAVDESS = next(corpus for corpus in declared_corpora() if corpus.name == "RAVDESS")
NAMES = {f"03-01-{emotion}-01-01-01-{actor}.wav": 9_000 for emotion in ("02", "03", "05") for actor in ("01", "02")}


def test_a_corpus_gives_emotions_in_the_words_of_the_task():
    task = msgspec.structs.replace(
        default_task(), labels=("calm", "furious"), words=None, spellings={"angry": "furious"}
    )
    clips, _, recognised = read_corpus(Tree(Path("/x"), NAMES), RAVDESS, task)
    assert sorted(clip.prosody_label for clip in clips) == ["calm", "calm", "furious", "furious"]
    assert {clip.semantic_label for clip in clips} == {None}
    assert recognised.left_out == {"happy": 2} and list(recognised.pairs) == ["prosody"]


def test_a_corpus_without_the_labels_of_the_task_in_its_names_is_an_error(gender):
    tree = Tree(Path("/x"), NAMES)
    with refused("RAVDESS", "accent", "manifest"):
        read_corpus(tree, RAVDESS, msgspec.structs.replace(gender, voice="accent"))
    without_neutral = msgspec.structs.replace(default_task(), labels=("calm", "angry"), spellings={})
    with refused("RAVDESS", "neutral", "words: null"):
        read_corpus(tree, RAVDESS, without_neutral)


def test_the_question_and_the_labels_reach_the_model(gender):
    subject = load_subject(DEMO_MODEL, device="cpu", task=gender)
    assert gender.question in subject.model.prompt.text and subject.task == gender
    assert list(subject.labels.report()["labels"]) == ["female", "male"] and not subject.warnings
    after = subject.model.prompt.after
    assert after != load_subject(DEMO_MODEL, device="cpu").model.prompt.after


def test_labels_with_one_first_token_are_an_error():
    task = Task(name="close", question="Which?", labels=("sad", "happy", "sad sad"))
    with refused("'sad' and 'sad sad'", "3-way"):
        load_subject(DEMO_MODEL, device="cpu", task=task)


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    yaml, script = (text.partition(f"```{kind}\n")[2].partition("```")[0] for kind in ("yaml", "python"))
    rows = text.partition("```\nclip_id")[2].partition("```")[0]
    (tmp_path / "my" / "clips").mkdir(parents=True)
    (tmp_path / "my" / "gender.yaml").write_text(yaml)
    (tmp_path / "my" / "clips.csv").write_text(f"clip_id{rows}")
    for name, sound in zip(("a1", "a2", "b1", "b2"), sorted(DEMO_DATA.glob("*/sad_implicit_*.flac")), strict=False):
        samples, rate = soundfile.read(sound)
        soundfile.write(tmp_path / "my" / "clips" / f"{name}.wav", samples, rate)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(script.replace("CASIA-LM/OpenS2S", str(DEMO_MODEL)), found)
    assert set(found["records"]["pred_base"]) <= {"female", "male"}
    assert len(found["records"]) == 2 * 10 and found["records"]["semantic_label_b"].isna().all()


def permuted(task):
    return msgspec.structs.replace(task, labels=tuple(reversed(task.labels)))


def records(task):
    dataset = load_dataset(DEMO_DATA, task=task)
    pairs = build_pairs(dataset.clips, "prosody", max_pairs=2, task=task).pairs
    subject = load_subject(DEMO_MODEL, device="cpu", task=task)
    return [row for rows in run_pairs(subject, load_intervention("patch"), pairs, layers=[0, 4]) for row in rows]


def test_permuted_labels_give_permuted_records():
    """The label that each logit belongs to comes from the task alone."""
    mine, theirs = records(default_task()), records(permuted(default_task()))
    for row in (*mine, *theirs):  # sums over the labels in another order
        for mass in ("label_mass_base", "label_mass_patch"):
            row[mass] = pytest.approx(row[mass], abs=2e-6)
    assert mine == theirs
    assert [list(row["logits_base"]) for row in theirs] == [list(reversed(default_task().labels))] * len(theirs)


def test_pairs_of_another_task_are_errors(tmp_path, gender):
    pairs = build_pairs(load_dataset(write_manifest(tmp_path), task=gender).clips, "prosody", task=gender).pairs
    with refused("male", "task emotion", "same task"):
        next(run_pairs(load_subject(DEMO_MODEL, device="cpu"), load_intervention("patch"), pairs))
