"""Another question for a loaded model, and options with letters in one order or in each cyclic one."""

import json
from collections import Counter
from types import SimpleNamespace

import msgspec
import pytest
import torch

from interventions import load_intervention
from pairs import build_pairs, load_dataset
from tests.commands import MODEL, NO_FIGURES, call, fails, rows
from tests.models.toy_speech import write_toy
from tests.small import small_model
from tests.task.gender import refused
from voicepatch.engine.clips import answer
from voicepatch.engine.subject import load_subject
from voicepatch.engine.textbook import textbook
from voicepatch.models.speech_lm import join
from voicepatch.paths import DEMO_DATA
from voicepatch.registry.catalogue import add_plugin, reset_plugins
from voicepatch.runs.pair_loop import run_pairs
from voicepatch.types.task import Task, default_task, load_task

LAYERS = [0, 2]
LETTERS = Task(
    name="letters",
    question="Is this happy, sad or angry? {options}. Answer with one letter.",
    labels=("happy", "sad", "angry"),
    words=None,
    answers={"happy": "A", "sad": "B", "angry": "C"},
    orders="cyclic",
)
FILE = """\
name: letters
question: "What is the emotion? {options}. Answer with one letter."
labels: [neutral, happy, sad, angry, surprised]
answers: {neutral: A, happy: B, sad: C, angry: D, surprised: E}
orders: cyclic
"""
OF_TASKS = ("--max-pairs", "2", "--layers", "0,2", *MODEL, NO_FIGURES)


@pytest.fixture(scope="module")
def clips(demo_data):
    return [clip for clip in demo_data.clips if clip.prosody_label in LETTERS.labels]


def run(subject, clips, name="patch"):
    pairs = build_pairs(clips, "prosody", max_pairs=2, task=subject.task).pairs
    found = run_pairs(subject, load_intervention(name), pairs, layers=LAYERS, clips=clips)
    return [record for records in found for record in records]


def test_a_loaded_model_answers_another_question_as_if_it_had_been_loaded_with_it(small, clips, monkeypatch):
    encoded, encode = Counter(), small.model.encode
    monkeypatch.setattr(small.model, "encode", lambda mel: encoded.update([id(mel)]) or encode(mel), raising=False)
    task = load_task("emotion-by-voice")
    other = small.asking(task)
    assert other.model.llm is small.model.llm and other.task is task and task.question in other.model.prompt.text
    own = run(small, clips)
    n_encoded = encoded.total()
    mine = run(other, clips)
    assert encoded.total() == n_encoded, "the sounds are encoded already"
    assert mine == run(load_subject(small_model(), device="cpu", task=task), clips) != own
    assert run(small, clips) == own
    assert other.asking(default_task()).model.prompt == small.model.prompt


def test_a_model_that_cannot_be_asked_again_is_an_error_that_names_its_file(tmp_path):
    plugin, checkpoint = write_toy(tmp_path)
    add_plugin(plugin)
    try:
        with refused("task emotion-by-voice", "ask(question, labels)", str(plugin)):
            load_subject(checkpoint, device="cpu").asking(load_task("emotion-by-voice"))
    finally:
        reset_plugins()


def test_labels_are_read_from_the_tokens_of_their_answers(small, clips):
    task = msgspec.structs.replace(LETTERS, orders=None)
    subject = small.asking(task)
    assert "A. happy, B. sad, C. angry" in subject.model.prompt.text
    assert {label: entry["text"] for label, entry in subject.labels.report()["labels"].items()} == task.answers
    clip = clips[0]
    full = subject.engine.record(subject.clips.get(clip)).logits
    tokens = [subject.model.tokenizer.encode(letter)[0] for letter in "ABC"]
    assert torch.equal(subject.clips.unpatched(clip).logits, full[:, tokens])
    assert set(run(subject, clips)[0]["logits_base"]) == {"happy", "sad", "angry"}


def test_each_order_moves_the_labels_and_leaves_the_letters_in_place():
    asked = [LETTERS.asked(order).partition("? ")[2].partition(". Answer")[0] for order in range(3)]
    assert asked == ["A. happy, B. sad, C. angry", "A. sad, B. angry, C. happy", "A. angry, B. happy, C. sad"]
    for order in range(3):
        assert all(f"{letter}. {label}" in asked[order] for label, letter in LETTERS.answers_in(order).items())
        assert list(LETTERS.answers_in(order)) == list(LETTERS.labels)


def test_numbers_are_offered_in_their_order():
    labels = tuple(f"word{i}" for i in range(11, 0, -1))
    task = msgspec.structs.replace(
        LETTERS, labels=labels, answers={label: label.removeprefix("word") for label in labels}
    )
    assert "1. word1, 2. word2, 3. word3" in task.asked() and "9. word9, 10. word10, 11. word11." in task.asked()
    assert list(task.answers_in(3)) == list(labels) and task.answers_in(3)["word4"] == "1"


def test_cyclic_orders_average_log_probabilities_as_plain_forward_hooks_do(small, clips):
    subject = small.asking(LETTERS)
    pairs = build_pairs(clips, "prosody", max_pairs=2, task=LETTERS).pairs
    llm, records = subject.model.llm, run(subject, clips)
    for number, pair in enumerate(pairs):
        averaged, masses = 0, 0
        for order in range(3):
            asked = load_subject(small_model(), device="cpu", task=single_order(order))
            a, b = (join(asked.model, subject.clips.frames(clip)) for clip in (pair.a, pair.b))
            n = min(a.n_audio, b.n_audio)
            spans = (slice(clip.span.start, clip.span.start + n) for clip in (a, b))
            with torch.inference_mode():
                full = textbook(llm, lambda a=a: a.inputs_embeds, lambda b=b: b.inputs_embeds, *spans, LAYERS)
            tokens = [asked.model.tokenizer.encode(LETTERS.answers_in(order)[label])[0] for label in LETTERS.labels]
            averaged = averaged + full[:, tokens].log_softmax(1) / 3
            masses = masses + full.softmax(1)[:, tokens].sum(1) / 3
        mine = records[number * len(LAYERS) : (number + 1) * len(LAYERS)]
        expected = [dict(zip(LETTERS.labels, row, strict=True)) for row in averaged.tolist()]
        assert [row["logits_patch"] for row in mine] == [pytest.approx(row, abs=1e-4) for row in expected[1:]]
        assert all(row["logits_base"] == pytest.approx(expected[0], abs=1e-4) for row in mine)
        assert [row["label_mass_patch"] for row in mine] == pytest.approx(masses[1:].tolist(), abs=1e-5)
        own = subject.clips.unpatched(pair.b).logits[0].tolist()
        assert list(mine[0]["logits_donor"].values()) == pytest.approx(own, abs=1e-6)


def test_masses_are_averaged_and_each_order_has_its_own_tokens():
    asked = [SimpleNamespace(labels=SimpleNamespace(token_ids=ids)) for ids in ([0, 1], [1, 0])]
    readouts = [torch.log(torch.tensor([row])) for row in ([0.6, 0.2, 0.2], [0.1, 0.3, 0.6])]
    found = answer(asked, readouts)
    assert found.mass.tolist() == pytest.approx([0.6])
    assert found.logits.exp()[0].tolist() == pytest.approx([0.75, 0.25])
    alone = answer(asked[:1], readouts[:1])
    assert torch.equal(alone.logits, readouts[0][:, :2]), "of one order the logits as they are"


def single_order(order):
    """The task that asks with one shift of the options alone."""
    return msgspec.structs.replace(LETTERS, orders=None, answers=LETTERS.answers_in(order))


def without_mass(records):
    return [{name: value for name, value in row.items() if "mass" not in name} for row in records]


def test_permuted_letters_give_the_same_answers_under_cyclic_orders(small, clips):
    permuted = msgspec.structs.replace(LETTERS, answers={"happy": "C", "sad": "A", "angry": "B"})
    mine, theirs = (without_mass(run(small.asking(task), clips)) for task in (LETTERS, permuted))
    of_labels = ("pred_base", "pred_patch", "target", "clip_a")
    assert [[row[name] for name in of_labels] for row in mine] == [[row[name] for name in of_labels] for row in theirs]
    for one, other in zip(mine, theirs, strict=True):
        assert one["logits_patch"] == pytest.approx(other["logits_patch"], abs=2e-6)
    alone = [run(small.asking(msgspec.structs.replace(task, orders=None)), clips) for task in (LETTERS, permuted)]
    assert alone[0][0]["logits_base"] != pytest.approx(alone[1][0]["logits_base"], abs=1e-2), (
        "a preference for a letter"
    )


@pytest.mark.parametrize("name", ["attribution", "lens", "knockout", "steer", "suffix"])
def test_other_experiments_run_with_cyclic_orders(small, clips, name):
    records = run(small.asking(LETTERS), clips, name)
    assert records and all(sum(map(abs, row["logits_base"].values())) > 0 for row in records)


def test_what_reads_logits_as_sums_is_refused_with_cyclic_orders(small, clips):
    with refused("direct", "orders are cyclic", "without orders"):
        run(small.asking(LETTERS), clips, "direct")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ({"answers": "answers: {female: A}"}, "no text for the label 'male'"),
        ({"answers": "answers: {femal: A, male: B}"}, "did you mean female?"),
        ({"answers": "answers: {female: A, male: A}"}, "two labels the text 'A'"),
        ({"answers": "answers: {female: 1, male: 2}"}, "put text in quotes"),
        ({"answers": "answers: {female: A, male: ' B'}"}, "outer spaces"),
        ({"question": "question: 'Which? {options}'"}, "which needs answers"),
        ({"question": "question: 'Which? {Options}'"}, "question has '{Options}'; write {options}"),
        ({"orders": "orders: cyclic"}, "which needs answers"),
        ({"answers": "answers: {female: A, male: B}", "orders": "orders: cyclic"}, "{options} in the question"),
        ({"orders": "orders: random"}, "leave orders out, or write cyclic"),
    ],
)  # fmt: skip
def test_wrong_answers_are_one_line_that_names_the_file(task_file, lines, words):
    path = task_file(**lines)
    with refused(f"--task {path}", words):
        load_task(path)


def test_answers_with_one_token_are_an_error_that_names_both(small):
    with refused("task letters: labels 'sad' and 'sadly'", "same token", "answers"):
        small.asking(msgspec.structs.replace(LETTERS, answers={"happy": "sad", "sad": "sadly", "angry": "C"}))


@pytest.mark.parametrize("name", ["emotion-by-voice", "emotion-by-words"])
def test_the_emotion_tasks_differ_in_name_and_question_alone(name):
    task = load_task(name)
    assert msgspec.structs.replace(task, name="emotion", question=default_task().question) == default_task()


def test_the_tasks_are_listed_and_a_mistyped_one_is_answered_with_the_nearest():
    assert [line.split()[0] for line in call("tasks").splitlines()] == [
        "emotion", "emotion-by-voice", "emotion-by-words", "gender",
    ]  # fmt: skip
    line = fails("patch", "--kind", "prosody", "--task", "emotion-by-voise", status=2)
    assert "did you mean emotion-by-voice?" in line


def test_cyclic_orders_run_from_the_command_line_to_the_report(tmp_path):
    file, out = tmp_path / "letters.yaml", tmp_path / "run"
    file.write_text(FILE, encoding="utf-8")
    said = call("patch", "--kind", "prosody", "--no-need", "--task", file, "--out", out, *OF_TASKS)
    assert "2 pairs × 5 orders of the options × (2 + 2) = 40 forward passes" in said
    tokens = json.loads((out / "tokenization_report.json").read_text())
    assert [order["sad"] for order in tokens["orders"]] == list("CBAED") and not tokens["checks"][0]["note"]
    assert len(json.loads((out / "patching_config.json").read_text())["prompt"]["orders"]) == 5
    records = out / "patching_records_prosody.jsonl"
    content = records.read_bytes()
    assert len(rows(records)) == 4
    records.write_bytes(content[: content.index(b"\n") + 1])
    config = json.loads((out / "patching_config.json").read_text())
    config["experiments"]["prosody"]["finished"] = False
    config["experiments"]["prosody"].pop("files_sha256", None)
    (out / "patching_config.json").write_text(json.dumps(config))
    call("patch", "--kind", "prosody", "--no-need", "--task", file, "--out", out, *OF_TASKS)
    assert records.read_bytes() == content, "an interrupted run goes on to the same bytes"
    assert "report.html" in call("report", out)
    page = " ".join((out / "report.html").read_text(encoding="utf-8").split())
    assert "largest log-probability among the labels, averaged over 5 orders of the options" in page
    assert "Positions are those in the first order" in page


def test_letters_in_one_order_are_noted(tmp_path):
    file, out = tmp_path / "letters.yaml", tmp_path / "run"
    file.write_text(FILE.replace("orders: cyclic\n", ""), encoding="utf-8")
    said = call("patch", "--kind", "prosody", "--no-need", "--task", file, "--out", out, *OF_TASKS)
    assert "C for sad" in said and "orders: cyclic averages" in said and "orders of the options ×" not in said
    assert json.loads((out / "tokenization_report.json").read_text())["checks"][0]["note"]


def test_the_folder_layout_has_the_labels_of_a_task_with_letters():
    dataset = load_dataset(DEMO_DATA, task=msgspec.structs.replace(default_task(), answers=dict(zip(
        default_task().labels, "ABCDE", strict=True))))  # fmt: skip
    assert {clip.prosody_label for clip in dataset.clips} == set(default_task().labels)
