"""From the command line on the demo: where the span is read, by which parts, and at which token it then stands."""

import json
import re
import shutil

import pandas as pd
import pytest

from tests.analysis.made_run import Page
from tests.commands import NO_FIGURES, call, rows
from voicepatch.analysis.results import Results
from voicepatch.figures.charts import charts_of

SIZE = ("--max-pairs", "10", "--device", "cpu")


OUTPUTS = {}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Estimates, their confirmation, a knock-out, reads, the map of tokens and direct attribution in one run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    commands = {
        "attribution": (),
        "knockout": ("--k", 10),
        "reads": ("--readers", "question", "--layers", "0,4,9"),
        "tokens": ("--layers", "9"),
        "direct": (),
    }
    for name, options in commands.items():
        OUTPUTS[name] = call(name, "--pairs", "prosody", *options, "--out", out, *SIZE, NO_FIGURES)
    OUTPUTS["confirm"] = call("confirm", out, "--top", 3, "--draws", 2, *SIZE, NO_FIGURES)
    OUTPUTS["report"] = call("report", out)
    return out


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


def test_an_estimate_is_called_so_in_records_metrics_figures_and_report(run):
    records = rows(run / "patching_records_attribution-prosody.jsonl")
    assert all(row["approximate"] is True for row in records)
    assert not [path for path in run.glob("patching_records_*.jsonl") if "attribution" not in path.name
                for row in rows(path) if "approximate" in row]  # fmt: skip
    assert pd.read_csv(run / "patching_metrics_attribution-prosody.csv")["approximate"].all()
    assert "approximate" not in pd.read_csv(run / "patching_metrics_knockout-prosody.csv")
    assert not (run / "flip_rate_curve_attribution-prosody.png").exists()  # an estimate is no answer
    text = Page(run / "report.html").text
    assert "estimates: the model was not run with these changes" in text
    assert "attribution-prosody (estimates)" in text and "by the estimates, A's answer" in text


def test_a_set_of_parts_has_one_row_whatever_the_number_of_layers(run):
    records = rows(run / "patching_records_ranked-prosody.jsonl")
    n_sets, n_pairs = 3 + 2 + 3 + 2 * 3 + 1, len(rows(run / "pair_list_ranked-prosody.jsonl"))
    assert len(records) == n_sets * n_pairs and {row["layer"] for row in records} == {0}
    line = call("components", "--layers", "0", "--out", run, *SIZE, status=2).splitlines()[-1]
    assert line == "error: --layers: components has one row for all layers; leave --layers out"
    line = call("confirm", run, "--layers", "0", *SIZE, status=2).splitlines()[-1]
    assert line == "error: --layers: ranked has one row for all layers; leave --layers out"


def test_of_few_pairs_confirm_warns_everywhere_and_runs_on(run):
    ranking = json.loads((run / "confirm.json").read_text(encoding="utf-8"))["prosody"]
    n, n_patched = ranking["n_pairs"], len(rows(run / "pair_list_ranked-prosody.jsonl"))
    found = ranking["warnings"]
    assert [warning.partition(" of ")[0] for warning in found] == [
        f"the parts are ranked on {n} pairs", f"the parts are patched in {n_patched} pairs"
    ]  # fmt: skip
    text = Page(run / "report.html").text
    for warning in found:
        assert f"warning: {warning}" in OUTPUTS["confirm"] and warning in text


def test_a_setting_in_which_confirm_would_differ_from_the_estimates_is_an_error(run):
    for words, flag in ((("--max-pairs", "5"), "--max-pairs 5"), (("--seed", "1"), "--seed 1")):
        line = call("confirm", run, *words, "--device", "cpu", status=2).splitlines()[-1]
        assert line.startswith(f"error: {flag}: confirm runs in {run} as attribution-prosody did, with ")


def test_estimates_that_are_damaged_are_named_rather_than_missed(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    path = copied / "patching_records_attribution-prosody.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"approximate": true', '"approximate": false', 1))
    line = call("confirm", copied, *SIZE, status=1).splitlines()[-1]
    assert line.startswith(
        f"error: {path}: line 1: approximate is false, where the experiment's logits are estimates; "
    )


def test_the_terminal_answers_each_question_in_a_sentence(run):
    changed = pd.read_csv(run / "patching_metrics_knockout-prosody.csv").set_index("layer")["flip_from_base_rate"]
    assert changed[9] == 0
    expected = {
        "knockout": "With attention to the audio span blocked at 10 layers from layer l on, of the ",
        "reads": "With B's keys and values over the audio span read by the question at 9 layers from layer l on, ",
        "direct": "To the answer's logit, less the mean of all labels, ",
        "tokens": "With B's stream at one position after the span, at most ",
        "confirm": "The best 3 parts (",
    }
    for name, sentence in expected.items():
        assert [line for line in OUTPUTS["report"].splitlines() if line.startswith(sentence)], name


def test_what_has_no_donor_counts_clips_and_has_no_target(run):
    assert "clips × (10 + 2)" in OUTPUTS["knockout"] and "clips, " not in OUTPUTS["tokens"]
    text = Page(run / "report.html").text
    assert "Clips of prosody pairs, knockout" in (run / "flip_rate_curve_knockout-prosody.svg").read_text()
    assert re.search(r"A's answer changed in at most \d+% of 20 clips \(layer 0; 95 % interval", text)


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


def test_heads_that_change_the_logit_are_marked_in_the_map_of_layers_and_heads(tmp_path):
    out = tmp_path / "run"
    output = call("heads", "--at", "after", "--layers", "6-7", "--out", out, "--max-pairs", 30, "--device", "cpu")
    table = pd.read_csv(out / "map_cells_heads-prosody.csv")
    marked = table[table["marked"]]
    assert len(table) == 2 * 4 and (7, 3) in set(zip(marked["layer"], marked["head"], strict=True))
    assert f"marked with a dot: {len(marked)} of 8 cells" in output
    best = marked.loc[marked["effect"].abs().idxmax()]
    sentence = f"Head {best['head']} of layer {best['layer']} has the largest marked effect on the target's logit: "
    assert f"{sentence}+{best['effect']:.2f} on average over 30 pairs." in output
    spec = charts_of(Results(out), "heads-prosody")["delta_logit_curve_heads-prosody"].to_dict()
    cells, dots = ([row["value"] for row in spec["datasets"][layer["data"]["name"]]] for layer in spec["layer"])
    assert len(cells) == 8 and sorted(dots) == sorted(marked["head"])
