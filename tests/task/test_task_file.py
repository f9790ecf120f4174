"""A task is read from its file, recorded and compared, and what is wrong in it is named."""

import json

import msgspec
import pytest

from tests.task.gender import refused
from voicepatch.types.task import default_task, load_task, task_of


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
def test_a_wrong_task_is_one_line_that_names_the_file(task_file, lines, words):
    path = task_file(**lines)
    with refused(f"--task {path}", words):
        load_task(path)


@pytest.mark.parametrize("name", ["nothing", "../tasks/emotion", "", "no/such.yaml"])
def test_an_unknown_task_is_an_error(name):
    with refused("--task"):
        load_task(name)
