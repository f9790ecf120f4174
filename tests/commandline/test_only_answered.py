"""`--only answered`, from the command to the report."""

import html
import json

import pandas as pd
import pytest

from tests.commands import MODEL, NO_FIGURES, call, fails, rows
from voicepatch.commandline.running import run_path
from voicepatch.errors import BAD_USAGE
from voicepatch.paths import DEMO_DATA
from voicepatch.types.settings import Settings

ONLY = ("--only", "answered", "--max-pairs", 4, "--layers", "0,3", *MODEL)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("answered") / "run"
    said = call("patch", "--no-need", "--kind", "prosody", "--out", out, *ONLY)
    return out, said


def test_both_clips_of_every_pair_answer_with_their_voice(run):
    out, said = run
    pairs = {row["pair_id"]: row for row in rows(out / "pair_list_prosody.jsonl")}
    assert len(pairs) == 4
    for record in rows(out / "patching_records_prosody.jsonl"):
        pair, donor = pairs[record["pair_id"]], record["logits_donor"]
        assert record["pred_base"] == pair["prosody_label_a"]
        assert max(donor, key=donor.get) == pair["prosody_label_b"] == record["target"]
    counts = json.loads((out / "pair_construction_report.json").read_text())["prosody"]["answered"]
    assert counts["passed"] == 4 < counts["tried"]
    line = f"in 4 of {counts['tried']} pairs tried, A and B each answer with their own prosody label"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert (
        line in said
        and line in page
        and "The results hold for prosody pairs that the model answers, not for all" in page
    )
    assert "only pairs whose clips the unpatched model answers with their own label" in page
    assert "--only answered" in page.partition("Reproduce</h2>")[2]


def test_bs_own_rate_is_said_to_be_chosen_and_the_clips_that_were_tried_are_shown(run):
    out, said = run
    found = "only prosody pairs that the model answers were taken (--only answered): B's own rate is 100%"
    page = html.unescape((out / "report.html").read_text(encoding="utf-8"))
    assert found in said and page.index(f"O{found[1:]}") < page.index('id="question-title"')
    n = len(rows(out / "answers.jsonl"))
    assert f"the {n} clips of the pairs that were tried" in page
    unpatched = page[page.index('<section id="unpatched"') : page.index('<section id="results"')]
    assert "only pairs whose clips" not in unpatched  # it has the clips that failed too


def test_the_details_say_how_many_pairs_were_tried_and_how_many_passed(run):
    out, _ = run
    construction = json.loads((out / "pair_construction_report.json").read_text())["prosody"]
    tried = f"{construction['answered']['tried']} of {construction['pairs_possible']} possible were tried, of which 4"
    assert f"Prosody pairs: {tried} passed (seed 42" in (out / "report.html").read_text(encoding="utf-8")


def test_what_was_answered_is_not_computed_again_by_a_control_or_by_a_second_call(run):
    out, _ = run
    before = (out / "answers.jsonl").read_bytes()
    said = call("control", "--kind", "random", "--out", out, NO_FIGURES, *MODEL)
    assert "answers:" not in said and (out / "answers.jsonl").read_bytes() == before
    random, main = (rows(out / f"pair_list_{name}prosody.jsonl") for name in ("random-", ""))
    assert [pair["clip_a"] for pair in random] == [pair["clip_a"] for pair in main]
    assert json.loads((out / "patching_config.json").read_text())["experiments"]["random-prosody"]["only"] == "answered"
    call("patch", "--no-need", "--kind", "prosody", "--out", out, NO_FIGURES, *ONLY)
    assert (out / "answers.jsonl").read_bytes() == before


def test_a_control_may_not_take_all_pairs_where_the_main_experiment_did_not(run):
    line = fails("control", "--kind", "random", "--only", "all", "--out", run[0], *MODEL, status=BAD_USAGE)
    assert "--only: random runs as the prosody experiment" in line and "whose only is answered, not all" in line


def test_the_command_answers_adds_the_others(run):
    out, _ = run
    known = rows(out / "answers.jsonl")
    call("answers", "--out", out, *MODEL)
    assert rows(out / "answers.jsonl")[: len(known)] == known
    table = pd.read_csv(out / "answers.csv")
    assert len(table) == 150 and table["clip_id"].is_monotonic_increasing


@pytest.mark.parametrize("command", [("pairs", "--kind", "prosody"), ("check", "--natural", *MODEL)])
def test_a_command_that_draws_pairs_without_a_model_refuses_it(command, tmp_path):
    line = fails(*command, "--only", "answered", "--out", tmp_path / "run", status=BAD_USAGE)
    assert "draws its pairs without the model's answers" in line and not (tmp_path / "run").exists()


def test_its_default_folder_is_another_one(demo_data):
    name = run_path(Settings(data=DEMO_DATA, only="answered"), demo_data).name
    assert name == "opens2s-demo--synthetic-clips--answered"
