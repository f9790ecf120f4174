"""From the command line on the demo: where the span is read, by which parts, and at which token it then stands."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

from cli import cli
from tests.analysis.made_run import Page

SIZE = ("--max-pairs", "10", "--device", "cpu")


def call(*words, status=0):
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == status, result.output + repr(result.exception)
    return result.output


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Estimates, their confirmation, a knock-out, the map of tokens and direct attribution in one run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    call("attribution", "--pairs", "prosody", "--out", out, *SIZE)
    call("confirm", out, "--top", 3, "--draws", 2, *SIZE)
    call("knockout", "--pairs", "prosody", "--k", 10, "--layers", "0,9", "--out", out, *SIZE)
    call("tokens", "--pairs", "prosody", "--layers", "9", "--out", out, *SIZE)
    call("direct", "--pairs", "prosody", "--out", out, *SIZE)
    return out


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_no_text_that_ranks_is_measured(run):
    ranking = json.loads((run / "confirm.json").read_text(encoding="utf-8"))["prosody"]
    measured = {row[key] for row in rows(run / "pair_list_ranked-prosody.jsonl") for key in ("text_id_a", "text_id_b")}
    assert measured and not measured & set(ranking["texts"]) and len(ranking["best"]) == 3


def test_all_parts_together_give_the_donors_answer_and_the_sets_are_named(run):
    table = pd.read_csv(run / "ranked_ranked-prosody.csv")
    assert table.groupby("role", sort=False).size().to_dict() == {
        "jointly": 3, "alone": 2, "all but them": 3, "random": 6, "all": 1
    }  # fmt: skip
    recovery = table.set_index("role")["normalised_recovery_mean"]
    assert recovery["all"] == pytest.approx(1, abs=0.01) and abs(recovery["random"]).max() < 0.7
    best = json.loads((run / "confirm.json").read_text(encoding="utf-8"))["prosody"]["best"]
    assert table["components"][2] == "+".join(best)


def test_blocked_from_the_first_layer_on_answers_are_lost_and_at_the_last_they_are_not(run):
    table = pd.read_csv(run / "knockout_knockout-prosody.csv")
    change = table[table["clips"] == "all clips"].set_index("layer")["change_of_answer"]
    assert change[0] < -50 and abs(change[9]) < 5


def test_an_experiment_without_a_donor_has_no_figure_of_a_target(run):
    drawn = {path.stem for path in run.glob("*_knockout-prosody.png")}
    assert drawn == {"flip_rate_curve_knockout-prosody", "knockout_knockout-prosody"}


def test_at_the_last_layer_the_answer_stands_at_the_last_token(run):
    metrics = pd.read_csv(run / "patching_metrics_tokens-prosody.csv")
    config = json.loads((run / "patching_config.json").read_text(encoding="utf-8"))
    last = len(config["prompt"]["tokens_after"]) - 1
    effect = metrics.set_index("token")["delta_logit_target_mean"]
    assert effect[last] > 1 and effect.drop(last).abs().max() == 0
    assert (run / "tokens_tokens-prosody.png").exists()


def test_the_report_says_that_the_parts_sum_to_the_logits_and_what_is_an_estimate(run):
    text = Page(run / "report.html").text
    assert "Heads, MLPs and embeddings sum to the logits" in text and "its logits are estimates" in text


def test_a_run_without_estimates_is_answered_with_the_command_that_makes_them(run):
    line = call("confirm", run, "--kind", "semantic", status=1).splitlines()[-1]
    assert line == (
        f"error: {run}: holds no finished estimates of semantic pairs; run "
        f"python cli.py attribution --pairs semantic --out {run}"
    )
