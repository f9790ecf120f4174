"""Marked cells of a map: in the table, the figure, the terminal and the report."""

import json
import random
import shutil

import pandas as pd
import pytest

from tests.analysis.made_run import Page
from tests.analysis.test_charts import make_run, sweep
from voicepatch.analysis.results import Results
from voicepatch.figures import figure_style
from voicepatch.figures.cell_map import cell_map
from voicepatch.figures.charts import charts_of
from voicepatch.report import summary, write_report
from voicepatch.report.summary import as_text, summarise

NAME, HEADS = "random-prosody", 8
COLUMNS = ["layer", "head", "effect", "se", "limit_low", "limit_high", "p_max", "q", "marked", "n_pairs", "n_texts"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run whose main experiment raises the target's logit by 3.6 at most: 5 % of it are 0.18."""
    return make_run(tmp_path_factory.mktemp("runs") / "run", control=True)


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    monkeypatch.setattr(figure_style, "save", lambda chart, path: [])
    return shutil.copytree(made, tmp_path / "run")


def add_effects(folder, name, effects, draw):
    """Raise the target's logit in the records by the effect of (layer, head) and by noise of a tenth of it."""
    path = folder / f"patching_records_{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        effect = effects.get((row["layer"], row.get("head")), 0.0)
        logits = row["logits_patch"]
        logits[row["target"]] += effect * draw.uniform(0.9, 1.1) + draw.gauss(0, 0.01) * (effect == 0)
        row["delta_logit_target"] = logits[row["target"]] - row["logits_base"][row["target"]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_map(folder, effects, **settings):
    sweep(folder, [{"head": head} for head in range(HEADS)], ["head"], control=False, **settings)
    add_effects(folder, NAME, effects, random.Random(1))
    return Results(folder)


def edit_pairs(folder, name, change):
    path = folder / f"pair_list_{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | change(number, row)) + "\n" for number, row in enumerate(rows)))


def change_donors(folder, change):
    """Change pairs of NAME, and the donor in their records."""
    edit_pairs(folder, NAME, change)
    path = folder / f"patching_records_{NAME}.jsonl"
    listed = map(json.loads, (folder / f"pair_list_{NAME}.jsonl").read_text().splitlines())
    pairs = {row["pair_id"]: row for row in listed}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row | {key: pairs[row["pair_id"]][key] for key in ("clip_b", "prosody_label_b")} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def dots(chart):
    """The rows of the marks, from the figure's specification."""
    spec = chart.to_dict()
    marks = [layer for layer in spec["layer"] if layer["mark"]["type"] == "point"]
    return [row for layer in marks for row in spec["datasets"][layer["data"]["name"]]]


def test_a_cell_with_an_effect_is_marked_in_table_figure_terminal_and_report(run):
    results = make_map(run, {(1, 3): 0.8, (2, 5): -0.5})
    text = as_text(summarise(results, NAME)[0])
    table = pd.read_csv(run / f"map_cells_{NAME}.csv")
    assert list(table) == [*COLUMNS, "reason"] and len(table) == 3 * HEADS
    assert table["n_pairs"].eq(10).all() and table["n_texts"].eq(10).all() and table["reason"].isna().all()
    marked = table[table["marked"]].set_index(["layer", "head"])
    assert set(marked.index) == {(1, 3), (2, 5)}
    assert marked["effect"].tolist() == pytest.approx([0.8, -0.5], abs=0.05)
    assert (marked["p_max"] < 0.05).all() and (marked["limit_low"] * marked["limit_high"] > 0).all()
    metrics = pd.read_csv(run / f"patching_metrics_{NAME}.csv")
    assert metrics["delta_logit_target_mean"].tolist() == pytest.approx(table["effect"].tolist(), abs=1e-5)

    charts = charts_of(results, NAME)
    chart = charts[f"delta_logit_curve_{NAME}"]
    assert [(row["layer"], row["value"]) for row in dots(chart)] == [(1, 3), (2, 5)]
    assert not dots(charts[f"flip_rate_curve_{NAME}"])  # the test is not of flips
    note = "marked with a dot: 2 of 24 cells, whose mean delta_logit_target has p_max below .05"
    assert note in "".join(chart.to_dict()["usermeta"]["notes"])
    assert note in text and text.splitlines()[-2].split()[:2] == ["1", "3"]
    page = Page(write_report(results)).text
    caption = f"Marked cells, strongest first; {note}"
    assert f"at least 5 % of the whole span's, or else of the map's largest: 2 of 24 in {NAME}." in page  # methods
    assert 0 < page.index(caption) < page.index("All metrics by layer and head")


def test_colours_and_the_smallest_marked_effect_are_those_of_the_whole_spans_effect(run):
    results = make_map(run, {(1, 3): 0.15, (2, 5): 0.25})
    found = cell_map(results, NAME)
    small = found.table.set_index(["layer", "head"]).loc[(1, 3)]
    assert small["p_max"] < 0.01 and not small["marked"]
    assert found.marked[["layer", "head"]].to_numpy().tolist() == [[2, 5]]
    assert found.scale == 3.6 and "5 % of the whole span's effect (3.6)" in found.note
    colour = charts_of(results, NAME)[f"delta_logit_curve_{NAME}"].to_dict()["layer"][0]["encoding"]["color"]
    assert colour["scale"]["domain"] == [-3.6, 3.6]


def test_without_the_main_experiment_the_maps_largest_effect_decides(run):
    make_map(run, {(1, 3): 0.15, (2, 5): 0.25})
    config = json.loads((run / "patching_config.json").read_text())
    del config["experiments"]["prosody"]
    (run / "patching_config.json").write_text(json.dumps(config))
    found = cell_map(Results(run), NAME)
    assert found.marked[["layer", "head"]].to_numpy().tolist() == [[2, 5], [1, 3]]
    assert found.scale == found.table["effect"].max() and "the run has no finished main experiment" in found.note


def test_a_map_of_few_texts_has_effects_and_a_reason_and_no_p(run):
    make_map(run, {(1, 3): 0.8})
    edit_pairs(run, NAME, lambda number, row: {"text_id_a": f"t{number // 2}", "text_id_b": f"t{number // 2}"})
    results = Results(run)
    text = as_text(summarise(results, NAME)[0])
    table = pd.read_csv(run / f"map_cells_{NAME}.csv")
    reason = "a test needs 6 texts, and there are 5"
    assert set(table["reason"]) == {reason} and not table["marked"].any()
    assert (
        table["effect"].notna().all() and table[["se", "limit_low", "limit_high", "p_max", "q"]].isna().to_numpy().all()
    )
    assert text.splitlines()[-1] == f"no cell is marked: the mean delta_logit_target is not tested, because {reason}"
    chart = charts_of(results, NAME)[f"delta_logit_curve_{NAME}"]
    assert not dots(chart) and reason in "".join(chart.to_dict()["usermeta"]["notes"])


def test_the_terminal_has_only_the_strongest_marked_cells_of_a_large_map(run, monkeypatch):
    results = make_map(run, {(layer, 0): 0.5 + layer for layer in range(3)})
    monkeypatch.setattr(summary, "MOST_SHOWN", 8)
    monkeypatch.setattr(summary, "MARKED_SHOWN", 2)
    own, first, more, head, *cells = as_text(summarise(results, NAME)[0]).splitlines()
    assert own.startswith("A's own rate: ")
    assert first.startswith("marked with a dot: 3 of 24 cells") and more == "the strongest 2:"
    assert head.split() == ["layer", "head", "effect", "limit_low", "limit_high", "p_max"]
    assert [line.split()[:2] for line in cells] == [["2", "0"], ["1", "0"]]


def test_the_same_cell_with_random_donors_is_subtracted(run):
    doses = [{"patch_alpha": alpha / 8} for alpha in range(1, 9)]
    sweep(run, doses, ["patch_alpha"])
    config = json.loads((run / "patching_config.json").read_text())
    names = ("prosody", NAME)
    config["experiments"]["prosody"] |= {
        "swept": ["patch_alpha"],
        "patch_alpha": [dose["patch_alpha"] for dose in doses],
        "options": {"at": "span"},
    }
    (run / "patching_config.json").write_text(json.dumps(config))
    records = (run / f"patching_records_{NAME}.jsonl").read_text().replace("mlp.output", "output")
    (run / f"patching_records_{NAME}.jsonl").write_text(records)
    (run / "patching_records_prosody.jsonl").write_text(records.replace(NAME, "prosody"))
    for name, effect in zip(names, (1.5, 0.5), strict=True):
        add_effects(run, name, {(layer, None): effect for layer in range(3)}, random.Random(name))
    same_donors = cell_map(Results(run), "prosody")
    assert (
        same_donors.table["effect"].tolist() == pytest.approx([1.5] * 24, abs=0.15) and "less" not in same_donors.note
    )

    def other(number, row):
        return {
            "clip_b": f"other{number}",
            "text_id_b": f"t{(number + 3) % 10}",
            "prosody_label_b": row["prosody_label_a"],
        }

    change_donors(run, other)
    found = cell_map(Results(run), "prosody")
    assert found.table["effect"].tolist() == pytest.approx([1.0] * 24, abs=0.2)
    assert f"mean delta_logit_target less that of {NAME}" in found.note
    records = (run / f"patching_records_{NAME}.jsonl").read_text().splitlines(keepends=True)
    fewer = "".join(line for line in records if '"patch_alpha": 0.25' not in line)
    config["experiments"][NAME]["patch_alpha"].remove(0.25)
    assert cell_map(Results(run), NAME).table["effect"].tolist() == pytest.approx([0.5] * 24, abs=0.1)
    assert found.table["reason"][0] == "a test of pairs with two texts needs 12 texts, and there are 10"  # with donors'
    (run / f"patching_records_{NAME}.jsonl").write_text(fewer)
    (run / "patching_config.json").write_text(json.dumps(config))
    assert "less" not in cell_map(Results(run), "prosody").note  # it has fewer cells


def test_without_a_donor_the_test_is_of_changed_answers(run):
    make_map(run, {})
    path = run / f"patching_records_{NAME}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if (row["layer"], row["head"]) == (1, 3):
            row["logits_patch"] = dict.fromkeys(row["logits_patch"], 0.0) | {"surprised": 9.0}
        answer = max(row["logits_patch"], key=row["logits_patch"].get)
        row |= {"pred_patch": answer, "flip_from_base": answer != row["pred_base"]}
        row |= {"flip_to_target": answer == row["target"], "logits_donor": row["logits_base"], "len_b": row["len_a"]}
        row["delta_logit_target"] = row["logits_patch"][row["target"]] - row["logits_base"][row["target"]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    change_donors(run, lambda number, row: {"clip_b": row["clip_a"], "prosody_label_b": row["prosody_label_a"]})
    results = Results(run)
    found = cell_map(results, NAME)
    assert found.marked[["layer", "head", "effect"]].to_numpy().tolist() == [
        [1, 3, 0.9]
    ]  # one clip has this answer already
    assert (
        "1 of 24 cells, whose mean flip_from_base has p_max" in found.note and "the map's largest (0.9)" in found.note
    )
    assert [(row["layer"], row["value"]) for row in dots(charts_of(results, NAME)[f"flip_rate_curve_{NAME}"])] == [
        (1, 3)
    ]


def test_a_curve_and_a_few_lines_are_no_map(run):
    assert cell_map(Results(run), "prosody") is None
    sweep(run, [{"k": k} for k in (1, 3, 9)], ["k"])
    assert cell_map(Results(run), NAME) is None
    summarise(Results(run), NAME)
    assert not (run / f"map_cells_{NAME}.csv").exists()
