"""Semantic pairs whose shared voice is the target are in the metrics, and in no comparison."""

import json
import re
import shutil
from collections import Counter

import pandas as pd
import pytest

from pairs import build_pairs, load_dataset
from tests.analysis.made_run import DEMO, Page, make_run, write_lines, write_report
from voicepatch.analysis.congruence import NONE_LEFT, is_congruent_in, note, without
from voicepatch.analysis.contrasts import Contrast
from voicepatch.analysis.hand_over import hand_over
from voicepatch.analysis.results import Results
from voicepatch.analysis.words_and_voice import contrast_of, headline
from voicepatch.figures.charts import charts_of
from voicepatch.figures.curves import KIND_LINES
from voicepatch.report import overview
from voicepatch.report.compare import compare
from voicepatch.report.details import details
from voicepatch.report.experiments import read_run
from voicepatch.report.methods import methods
from voicepatch.report.summary import summarise

NAMES = ("prosody", "semantic", "random-semantic", "same-label-semantic")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("congruent") / "run", NAMES, n_pairs=40)


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    monkeypatch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
    return shutil.copytree(made, tmp_path / "run")


def pair_table(*rows):
    return pd.DataFrame(rows, columns=["pair_id", "kind", "prosody_label_a", "target"])


def test_a_semantic_pair_is_congruent_where_the_shared_voice_is_the_target_and_a_prosody_pair_never():
    pairs = pair_table(
        ("1", "semantic", "sad", "sad"), ("2", "semantic", "sad", "happy"), ("3", "prosody", "sad", "sad")
    )
    assert is_congruent_in(pairs).tolist() == [True, False, False]
    records = pd.DataFrame({"pair_id": ["1", "1", "2"], "layer": [0, 1, 0]})
    left, its_pairs = without(records, pairs, is_congruent_in(pairs))
    assert left["pair_id"].tolist() == ["2"] and its_pairs["pair_id"].tolist() == ["2", "3"]
    assert note(is_congruent_in(pairs)).startswith("2 of 3 semantic pairs are compared; in the other 1 ")
    assert note(is_congruent_in(pairs[1:])) == ""


def test_the_construction_report_counts_congruent_pairs():
    clips = load_dataset(DEMO).clips
    sample = build_pairs(clips, "semantic", 100)
    expected = sum(pair.b.semantic_label == pair.a.prosody_label == pair.b.prosody_label for pair in sample.pairs)
    assert sample.report["n_congruent"] == expected > 0
    assert build_pairs(clips, "prosody", 100).report["n_congruent"] == 0


def test_metrics_are_over_all_pairs_and_a_second_file_has_both_parts(run):
    metrics, _ = summarise(Results(run), "semantic")
    parts = pd.read_csv(run / "patching_metrics_semantic_by_congruence.csv")
    assert list(parts) == ["congruent", *pd.read_csv(run / "patching_metrics_semantic.csv", nrows=0)]
    n = parts.groupby("congruent")["n_pairs"].first()
    assert n.sum() == 40 and n[True] > 0 and (metrics["n_pairs"] == 40).all()
    flips = parts.assign(n=parts["flip_to_target_rate"] * parts["n_pairs"]).groupby("layer")["n"].sum()
    assert flips.tolist() == pytest.approx((metrics["flip_to_target_rate"] * 40).tolist(), abs=1e-3)


def test_comparisons_leave_congruent_pairs_out_and_give_both_counts(run):
    results = Results(run)
    main = results.main("semantic")
    n_congruent = int(main.congruent.sum())
    n = 40 - n_congruent
    assert 0 < n < 40 and len(main.side.pairs) == n
    assert results.hand_over("semantic") == hand_over(main.side.records, main.side.pairs, None, main.seed)
    assert results.cached(contrast_of).table["n_semantic"].max() == n
    counts = f"{n} of 40 semantic pairs are compared; in the other {n_congruent} the shared voice is the target"
    charts = charts_of(results, "semantic")
    for stem in (
        "prosody_and_semantic",
        "controls_semantic",
        "contrast_prosody_vs_semantic",
        "flip_rate_curve_semantic",
    ):
        assert counts in "".join(charts[stem].to_dict()["usermeta"]["notes"]), stem
    drawn = [row for rows in charts["prosody_and_semantic"].to_dict()["datasets"].values() for row in rows]
    n_eligible = main.compared_curve["eligible_count"].max()
    assert {row["n"] for row in drawn if row.get("series") == KIND_LINES["semantic"] and "n" in row} == {n_eligible}
    text = Page(write_report(run)).text
    assert text[: text.index("Controls and variants", 2000)].count(counts) == 1


def test_a_number_of_the_compared_pairs_names_them_where_its_row_has_others(run_of_two_kinds):
    """The hand-over layer of 28 of 30 semantic pairs, in the table, on the terminal, in the statistics and in texts."""
    pairs, records = (run_of_two_kinds / f"{stem}_semantic.jsonl" for stem in ("pair_list", "patching_records"))
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    congruent = {row["pair_id"] for row in rows[:2]}
    for path in (pairs, records):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        voices = [{key: row["target"] for key in row if key.startswith("prosody_label")} for row in rows]
        write_lines(
            path, [row | (v if row["pair_id"] in congruent else {}) for row, v in zip(rows, voices, strict=True)]
        )
    results = Results(run_of_two_kinds)
    run = read_run(results)
    glance = overview.glance(run)
    layers = dict(zip(("prosody", "semantic"), (row[-1] for row in glance.rows), strict=True))
    assert layers["semantic"].endswith("), of 28 pairs") and "pairs" not in layers["prosody"]
    for texts in (details(run), summarise(results, "semantic")[0].attrs["notes"]):
        (line,) = [
            part for text in texts for part in text.split(". ") if "hand-over layer is" in part and " of 28" in part
        ]
        assert re.search(r"\), of 28 pairs", line)
    assert json.loads((run_of_two_kinds / "statistics_semantic.json").read_text())["n_pairs"] == 28
    assert "28 of 30 semantic pairs were compared" in methods(run)
    (main,) = [one for one in run.mains if one.kind == "semantic"]
    assert main.compared_counts == "28 of 30 pairs" and results.main("prosody").compared_counts == "30 pairs"


def test_a_control_is_compared_on_the_recipients_of_its_main_experiment(run):
    """Also where its own target is another label: that of A, in `same-label`."""
    path = run / "pair_list_same-label-semantic.jsonl"
    targets = {row["pair_id"]: row["semantic_label_a"] for row in map(json.loads, path.read_text().splitlines())}
    for file in (path, run / "patching_records_same-label-semantic.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        write_lines(file, [with_target(row, targets[row["pair_id"]]) for row in rows])
    results = Results(run)
    main, control = results.main("semantic"), results.experiment("same-label-semantic")
    assert is_congruent_in(control.pairs).tolist() != main.congruent.tolist()
    assert results.beside_main(control).pairs["clip_a"].tolist() == main.side.pairs["clip_a"].tolist()
    assert (results.contrast(control)["n_pairs"] == len(main.side.pairs)).all()


def with_target(row, target):
    if "layer" not in row:
        return row | {"target": target}
    moved = row["logits_patch"][target] - row["logits_base"][target]
    flips = {"eligible": row["pred_base"] != target, "flip_to_target": row["pred_patch"] == target}
    return row | flips | {"target": target, "delta_logit_target": moved}


def test_where_all_pairs_are_congruent_there_is_no_comparison_but_a_reason(run, tmp_path):
    for name in NAMES[1:]:
        path, records = run / f"pair_list_{name}.jsonl", run / f"patching_records_{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [row for row in rows if row["target"] == row["prosody_label_a"]]
        write_lines(path, rows)
        left = {row["pair_id"] for row in rows}
        lines = [json.loads(line) for line in records.read_text().splitlines()]
        write_lines(records, [line for line in lines if line["pair_id"] in left])
    results = Results(run)
    for name in NAMES:
        summarise(results, name)
    assert results.hand_over("semantic")["reason"] == NONE_LEFT
    assert f"Words and voice are not contrasted. {NONE_LEFT[0].upper()}{NONE_LEFT[1:]}." in headline(results)
    assert not {"prosody_and_semantic", "controls_semantic"} & set(charts_of(results, "semantic"))
    assert NONE_LEFT in Page(write_report(run)).text
    table, _ = compare([run, shutil.copytree(run, tmp_path / "other")], tmp_path / "out")
    assert table["kind"].unique().tolist() == ["prosody"]
    assert f"semantic: run is left out: {NONE_LEFT}" in table.attrs["contrasts"]


def test_a_control_with_other_donors_is_judged_by_both_rates(run):
    """The first pair's donor is another clip, as in `random`."""
    rows = [json.loads(line) for line in (run / "pair_list_random-semantic.jsonl").read_text().splitlines()]
    donor = {key: rows[1][key] for key in rows[1] if key.endswith("_b")}
    write_lines(run / "pair_list_random-semantic.jsonl", [rows[0] | donor, *rows[1:]])
    records = [json.loads(line) for line in (run / "patching_records_random-semantic.jsonl").read_text().splitlines()]
    of_donor = {key: rows[1][key] for key in ("clip_b", "semantic_label_b", "prosody_label_b")}
    of_donor["logits_donor"] = next(one for one in records if one["pair_id"] == rows[1]["pair_id"])["logits_donor"]
    first = [line | (of_donor if line["pair_id"] == rows[0]["pair_id"] else {}) for line in records]
    write_lines(run / "patching_records_random-semantic.jsonl", first)
    results = Results(run)
    table = results.contrast(results.experiment("random-semantic"))
    assert Counter(table["rate"]) == {"flip_to_target_rate": 4, "flip_from_base_rate": 4}
    assert table["rate"].tolist()[:4] == ["flip_to_target_rate"] * 4
    charts = charts_of(results, "random-semantic")
    drawn = [row for rows in charts["controls_semantic"].to_dict()["datasets"].values() for row in rows]
    changed = {row["panel"].partition(",")[0] for row in drawn if row["series"] == "control: answer changes"}
    flipped = {row["panel"].partition(",")[0] for row in drawn if row["series"] == "control: answer is the target"}
    assert changed == {"random", "same-label"} and flipped == {"random"}


def test_a_control_with_the_donors_of_the_main_experiment_has_one_rate(run):
    results = Results(run)
    assert set(results.contrast(results.experiment("random-semantic"))["rate"]) == {"flip_to_target_rate"}
    assert set(results.contrast(results.experiment("same-label-semantic"))["rate"]) == {"flip_from_base_rate"}


def test_prosody_pairs_are_all_compared(run):
    results = Results(run)
    main = results.main("prosody")
    assert main.side.records is main.records and main.congruence_note == ""
    assert isinstance(results.cached(contrast_of), Contrast)
