"""The same clip under two questions: which positions of the other question's run are written, and what they change."""

import json
import re

import msgspec
import pytest
import torch

from interventions import load_intervention
from pairs import build_pairs
from pairs.controls import clips_in_conflict
from tests.commands import FEW, NO_FIGURES, call, fails, rows
from tests.task.gender import refused
from voicepatch.runs.job import make_job
from voicepatch.runs.pair_loop import run_pairs
from voicepatch.types.task import load_task

LAST = 3  # of the small model's layers


@pytest.fixture(scope="module")
def by_words(small):
    return small.asking(load_task("emotion-by-words"))


def run(subject, clips, kind="prosody", **options):
    pairs = clips_in_conflict(build_pairs(clips, kind, max_pairs=3), clips)[:3]
    found = run_pairs(subject, load_intervention("instruction"), pairs, options=options)
    return pairs, [record for records in found for record in records]


def logits(records, name):
    return torch.tensor([list(row[name].values()) for row in records])


def answers(subject, task, pairs):
    of_clips = [subject.asking(load_task(task)).clips.unpatched(pair.a).logits for pair in pairs]
    return torch.cat(of_clips).repeat_interleave(LAST + 1, 0)


def test_the_donor_is_the_same_clip_under_the_other_question(by_words, demo_data):
    pairs, records = run(by_words, demo_data.clips)
    assert all(pair.a is pair.b and pair.target == pair.a.prosody_label != pair.a.semantic_label for pair in pairs)
    torch.testing.assert_close(logits(records, "logits_donor"), answers(by_words, "emotion-by-voice", pairs))
    torch.testing.assert_close(logits(records, "logits_base"), answers(by_words, "emotion-by-words", pairs))
    assert {pair.target for pair in run(by_words, demo_data.clips, "semantic")[0]} <= set(by_words.task.labels)


def test_all_positions_after_the_span_are_the_donors_whole_run(by_words, demo_data):
    _, records = run(by_words, demo_data.clips, at="after")
    torch.testing.assert_close(logits(records, "logits_patch"), logits(records, "logits_donor"), atol=1e-4, rtol=0)


def test_the_two_parts_of_the_prompt_take_turns(by_words, demo_data):
    (_, shared), (_, differing) = (run(by_words, demo_data.clips, at=at) for at in ("shared", "differing"))
    last = [number for number, row in enumerate(shared) if row["layer"] == LAST]
    patched, donor = logits(shared, "logits_patch"), logits(shared, "logits_donor")
    torch.testing.assert_close(patched[last], donor[last], atol=1e-4, rtol=0)
    assert torch.equal(logits(differing, "logits_patch")[last], logits(differing, "logits_base")[last])
    for one, other in zip(shared, differing, strict=True):
        assert other["patched_from"] + other["n_patched"] == one["patched_from"]
        assert one["n_patched"] + other["n_patched"] == by_words.n_after


def test_questions_of_two_lengths_are_aligned_from_the_end_with_a_warning(small, demo_data):
    job = make_job(small, load_intervention("instruction"))
    other = job.donor.n_after
    assert job.warning.startswith(f"the prompts have {small.n_after} and {other} tokens") and small.n_after != other
    (pair, *_), records = run(small, demo_data.clips)
    mine, donors = small.model.prompt.after, job.donor.model.prompt.after
    n = records[0]["n_patched"]
    assert mine[-n:] == donors[-n:] and mine[-n - 1] != donors[-n - 1]
    assert f"the last {n} are the same" in job.warning
    assert records[0]["patched_from"] + n == len(small.clips.get(pair.a).input_ids)
    with refused("--at after", "equally many tokens", "--at shared"):
        run(small, demo_data.clips, at="after")
    assert not make_job(small.asking(load_task("emotion-by-words")), load_intervention("instruction")).warning


def test_a_donor_task_with_other_labels_or_the_same_question_is_an_error(small, demo_data, tmp_path):
    for task, words in (("gender", "labels"), ("emotion", "asks the question of task emotion")):
        with refused(f"--donor-task {task}", words):
            run(small, demo_data.clips, donor_task=task)
    letters = dict(zip(small.task.labels, "ABCDE", strict=True))
    asked = msgspec.structs.replace(small.task, question="Which? {options}", answers=letters, orders="cyclic")
    with refused("--donor-task emotion-by-voice", "orders"):
        run(small.asking(asked), demo_data.clips)


def test_the_command_records_the_donors_task_and_reports_on_it(tmp_path):
    out = tmp_path / "run"
    words = ("instruction", "--task", "emotion-by-words", "--pairs", "prosody", "--out", out, *FEW)
    said = call(*words)
    assert "flip_to_target_rate_eligible" in said and "donor_is_target_rate" not in said
    ran = json.loads((out / "patching_config.json").read_text())["experiments"]["instruction-prosody"]
    assert ran["options"]["donor_task"] == "emotion-by-voice"
    assert ran["option_files"] == {"emotion-by-voice": load_task("emotion-by-voice").sha256}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert (
        "asked the question of task emotion-by-voice is written" in page and "at the tokens that both prompts" in page
    )
    assert "done already" in call(*words, NO_FIGURES)
    assert "options.donor_task was emotion-by-voice" in fails(*words, "--donor-task", "emotion", status=2)
    assert "did you mean emotion-by-voice?" in fails(*words, "--donor-task", "emotion-by-voise", status=2)
    assert "give one task" in fails(*words, "--donor-task", "emotion,gender", status=2)


def test_the_run_says_in_how_many_clips_the_two_questions_have_different_answers(tmp_path):
    words = ("--task", "emotion-by-words", "--out", tmp_path / "run", NO_FIGURES, *FEW)
    call("instruction", *words)
    first = {row["pair_id"]: row for row in rows(tmp_path / "run" / "patching_records_instruction-prosody.jsonl")}
    best = [[max(row[name], key=row[name].get) for name in ("logits_base", "logits_donor")] for row in first.values()]
    n_different = sum(one != other for one, other in best)
    found = f"answers the two questions differently in {n_different} of {len(best)} clips"
    assert found in call("report", tmp_path / "run")


def test_the_lines_of_its_figure_are_about_clips_and_questions(tmp_path):
    call("instruction", *FEW, "--out", tmp_path / "run", NO_FIGURES)
    call("figure", tmp_path / "run", "instruction-prosody", "--out", tmp_path / "figure.svg")
    svg, caption = ((tmp_path / f"figure.{end}").read_text() for end in ("svg", "txt"))
    text = " ".join(re.findall(r">([^<>]+)</t", svg))
    for line in ("clips whose answer changes", "voice's label", "own question, unpatched", "share of clips"):
        assert line in text
    assert "B's" not in text and "pairs" not in text and "clips, " in caption
