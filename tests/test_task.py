"""A task is the question and its labels, and a file that is wrong is refused in one line that names it."""

import json
import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import soundfile
from click.testing import CliRunner

from cli import cli
from pairs import build_pairs, load_dataset
from pairs.corpora.corpus import declared_corpora
from pairs.corpora.read import read_corpus
from pairs.corpora.tree import Tree
from voicepatch.commandline.running import run_path
from voicepatch.engine.subject import load_subject
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.paths import DEMO_DATA, DEMO_MODEL, ROOT
from voicepatch.registry.catalogue import load_intervention
from voicepatch.runs.pair_loop import run_pairs
from voicepatch.types.settings import Settings
from voicepatch.types.task import Task, default_task, load_task, task_of

GENDER = """\
name: gender
question: "Is the speaker of this audio female or male? Answer with exactly one word: female or male."
labels: [female, male]
voice: gender
words: null
speaker: may_differ
spellings: {f: female, w: female, m: male}
"""


@contextmanager
def refused(*words):
    """The body is refused with one line that holds all of the words."""
    with pytest.raises(UserError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message


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


def test_the_default_task_asks_the_specified_question_verbatim():
    task = default_task()
    assert task.question == (
        "What is the emotion of this audio? Answer with exactly one word: neutral, happy, sad, angry, or surprised."
    )
    assert task.labels == ("neutral", "happy", "sad", "angry", "surprised")
    assert (task.voice, task.words, task.same_speaker) == ("prosody_label", "semantic_label", True)


@pytest.mark.parametrize(
    ("label", "spellings"),
    [
        ("neutral", "neutral Neutral NEU neu"),
        ("happy", "happy HAP Happiness joy"),
        ("sad", "sad SAD sadness"),
        ("angry", "angry ANG anger"),
        ("surprised", "surprised Surprise sur PS pleasant_surprise Pleasant-Surprised"),
    ],
)
def test_spellings_of_the_corpora_are_understood(label, spellings):
    assert {default_task().label_of(spelling) for spelling in spellings.split()} == {label}


def test_inner_and_outer_space_do_not_matter():
    assert default_task().label_of("  Pleasant  Surprise\t") == "surprised"


def test_every_label_is_a_spelling_of_itself():
    assert [default_task().label_of(label) for label in default_task().labels] == list(default_task().labels)


@pytest.mark.parametrize(
    "other", "calm fear fearful FEA disgust DIS excited exc frustrated fru boredom a 01 xxx".split() + [""]
)
def test_another_emotion_is_never_taken_for_one_of_the_five(other):
    assert default_task().label_of(other) is None


def test_a_task_file_is_read(gender):
    assert gender.labels == ("female", "male") and gender.kinds == ("prosody",) and not gender.same_speaker
    assert [gender.label_of(text) for text in ("F", "w", "M ", "Female", "x")] == [
        "female", "female", "male", "female", None,
    ]  # fmt: skip


def test_a_task_is_the_same_after_it_was_recorded(gender):
    assert task_of(json.loads(json.dumps(gender.identity()))) == gender


def test_comments_and_the_order_of_keys_do_not_change_a_task_but_every_field_does(gender, task_file):
    path = task_file()
    path.write_text("# mine\n" + "\n".join(reversed(path.read_text().splitlines())))
    assert load_task(path).sha256 == gender.sha256
    for field, value in {
        "name": "sex", "question": "Who?", "labels": ("male", "female"), "voice": "sex", "words": "topic",
        "speaker": "same", "spellings": {},
    }.items():  # fmt: skip
        assert msgspec.structs.replace(gender, **{field: value}).sha256 != gender.sha256, field


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ({"labels": "labels: [female]"}, "labels has 1"),
        ({"labels": "labels: []"}, "labels has 0"),
        ({"labels": "labels: [female, Female]"}, "'female' twice"),
        ({"labels": "labels: [yes, no]"}, "put text in quotes"),
        ({"labels": "labels: [1, 2]"}, "put text in quotes"),
        ({"labels": "labels: [female, '']"}, "labels has ''"),
        ({"labels": 'labels: [female, "ma\\tle"]'}, "labels has"),
        ({"labels": "labels: [female, ' male']"}, "outer spaces"),
        ({"name": "name: ../x"}, "name is '../x'"),
        ({"name": ""}, "name"),
        ({"question": ""}, "question"),
        ({"question": "question: ''"}, "question has ''"),
        ({"voice": "voice: speaker"}, "voice is speaker"),
        ({"words": "words: text"}, "words is text"),
        ({"words": "words: gender"}, "both gender"),
        ({"speaker": "speaker: any"}, "any"),
        ({"spellings": "spellings: {f: femal}"}, "'femal'"),
        ({"spellings": "spellings: {f: female, F: male}"}, "two labels"),
        ({"spellings": "spellings: {f: female, f: male}"}, "'f' is there twice"),
        ({"spellings": "spellings: {male: female}"}, "'male'"),
        ({"more": "colour: red"}, "colour"),
        ({"more": "voice: sex"}, "'voice' is there twice"),
    ],
)  # fmt: skip
def test_a_wrong_task_is_refused_in_one_line_that_names_the_file(task_file, lines, words):
    path = task_file(**lines)
    with refused(f"--task {path}", words):
        load_task(path)


@pytest.mark.parametrize("name", ["nothing", "../tasks/emotion", "", "no/such.yaml"])
def test_an_unknown_task_is_refused(name):
    with refused("--task"):
        load_task(name)


# --- data


def write_manifest(folder, header="clip_id,path,text_id,text,gender,speaker", change=lambda row: row):
    """Four clips of two texts by a woman and a man, without sound in them."""
    rows = [
        change([f"c{i}", f"c{i}.wav", f"t{i % 2}", f"Text {i % 2}.", "f" if i < 2 else "m", f"s{i // 2}"])
        for i in range(4)
    ]
    for row in rows:
        (folder / row[1]).write_bytes(b"")
    path = folder / "clips.csv"
    path.write_text("\n".join([header, *map(",".join, rows)]) + "\n")
    return path


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


def test_a_corpus_is_refused_for_what_its_names_do_not_say(gender):
    tree = Tree(Path("/x"), NAMES)
    with refused("RAVDESS", "gender", "manifest"):
        read_corpus(tree, RAVDESS, gender)
    without_neutral = msgspec.structs.replace(default_task(), labels=("calm", "angry"), spellings={})
    with refused("RAVDESS", "neutral", "words: null"):
        read_corpus(tree, RAVDESS, without_neutral)


# --- the model


def test_the_question_and_the_labels_reach_the_model(gender):
    subject = load_subject(DEMO_MODEL, device="cpu", task=gender)
    assert gender.question in subject.model.prompt.text and subject.task == gender
    assert list(subject.labels.report()["labels"]) == ["female", "male"] and not subject.warnings
    after = subject.model.prompt.after
    assert after != load_subject(DEMO_MODEL, device="cpu").model.prompt.after


def test_labels_with_one_first_token_are_refused():
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


def test_pairs_of_another_task_are_refused(tmp_path, gender):
    pairs = build_pairs(load_dataset(write_manifest(tmp_path), task=gender).clips, "prosody", task=gender).pairs
    with refused("male", "task emotion", "same task"):
        next(run_pairs(load_subject(DEMO_MODEL, device="cpu"), load_intervention("patch"), pairs))


# --- the commands


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


def call(*words, status=0):
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == status, result.output + repr(result.exception)
    return result.output


def test_another_task_runs_from_the_command_line_to_the_report(task_file, gender_data, tmp_path, blank_figures):
    out = tmp_path / "run"
    how = ("--data", gender_data, "--out", out, "--max-pairs", 3, "--layers", "0,4", "--device", "cpu")
    file = tmp_path / "settings.yaml"
    file.write_text(f"task: {task_file()}\n", encoding="utf-8")
    said = call("patch", "--kind", "prosody", "--config", file, *how)
    assert "data: gender: F counts as female (4 clips); f counts as female (4 clips); m counts as male" in said
    config = json.loads((out / "patching_config.json").read_text(encoding="utf-8"))
    assert task_of(config["task"]) == load_task(task_file()) and config["labels"]["order"] == ["female", "male"]
    assert not config["experiments"]["prosody"]["same_speaker"]
    call("control", "--kind", "same-label", "--config", file, *how)
    assert "words: null" in call("control", "--kind", "no-conflict", "--config", file, *how, status=1)
    assert "words: null" in call("patch", "--kind", "semantic", "--config", file, *how, status=1)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "female" in page and "surprised" not in page and "report.html" in call("report", out)
    line = call("patch", "--kind", "prosody", *how[2:], status=1).splitlines()[-1]
    assert "holds a run with another task (name was gender, is emotion" in line and len(line) < 600


def test_the_default_directory_names_any_task_but_the_default(gender, tmp_path):
    dataset = load_dataset(write_manifest(tmp_path), task=gender)
    assert run_path(Settings(), dataset).name == "opens2s-demo--clips--gender"
    assert run_path(Settings(), replace(dataset, task=default_task())).name == "opens2s-demo--clips"


def test_a_wrong_task_is_wrong_usage(task_file):
    path = task_file(labels="labels: [female]")
    assert f"--task {path}: labels has 1" in call("pairs", "--kind", "prosody", "--task", path, status=BAD_USAGE)


def test_labels_with_one_first_token_are_refused_by_the_tasks_file(tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text("name: twice\nquestion: Which?\nlabels: [surprised, surprising]\n")
    with pytest.raises(UserError, match=rf"^{re.escape(str(file))}: labels 'surprised' and 'surprising' start with"):
        load_subject(DEMO_MODEL, device="cpu", task=load_task(file))
