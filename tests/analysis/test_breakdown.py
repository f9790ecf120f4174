"""Metrics by a column of the data: their counts add up, and every value of a pair has its name."""

import json
import random
import re
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from msgspec import structs

from pairs import build_pairs, load_dataset, pair_row
from tests.analysis.made_run import DEMO, Page, change, make_run, records_of, write_lines
from tests.commands import call, fails
from voicepatch.analysis.breakdown import (
    MOST_VALUES,
    NO_VALUE,
    breakdown,
    breakdown_file,
    largest_difference,
    metrics_by,
    pair_values,
)
from voicepatch.analysis.results import Results
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.figures.breakdown import panels
from voicepatch.figures.figure_style import spec_of, svg_of
from voicepatch.report import write_report
from voicepatch.report.summary import summarise
from voicepatch.types.task import default_task

TASK = default_task()
COUNTS = ["n_pairs", "eligible_count", "recovery_n", "near_tie_count"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of 40 prosody pairs of the demo."""
    run = tmp_path_factory.mktemp("breakdown") / "run"
    make_run(run, n_pairs=40)
    return run


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


@pytest.mark.parametrize("column", ["text_type", "speaker", "text_id", "prosody_label", "a.prosody_label", "b.clip_id"])
def test_the_counts_add_up_to_those_of_all_pairs(made, column):
    results = Results(made)
    whole, parts = results.experiment("prosody").metrics, results.cached(breakdown, "prosody", column)
    assert list(parts) == [column, *whole.columns]
    pd.testing.assert_frame_equal(parts.groupby("layer")[COUNTS].sum(), whole.set_index("layer")[COUNTS])
    flips = (parts["flip_to_target_rate"] * parts["n_pairs"]).groupby(parts["layer"]).sum()
    assert flips.to_list() == pytest.approx((whole["flip_to_target_rate"] * whole["n_pairs"]).to_list(), abs=1e-3)


def table(a, b, **more):
    return pd.DataFrame({"gender_a": a, "gender_b": b, "prosody_label_a": "sad", "prosody_label_b": "happy", **more})


def test_a_value_is_that_of_both_clips_or_names_both():
    same, other = table(["f", "m"], ["f", "m"]), table(["f", "m", None], ["f", "f", "m"])
    assert list(pair_values(same, "gender", TASK)) == ["f", "m"]
    assert list(pair_values(other, "gender", TASK)) == ["f → f", "m → f", f"{NO_VALUE} → m"]
    assert list(pair_values(other, "a.gender", TASK)) == ["f", "m", NO_VALUE]
    assert list(pair_values(other, "b.gender", TASK)) == ["f", "f", "m"]


def test_a_label_column_has_its_name_in_the_data():
    task = structs.replace(TASK, name="gender", labels=("f", "m"), voice="gender", words=None, spellings={})
    pairs = table([None], [None], data_prosody_label_a="joy", data_prosody_label_b="fear").drop(
        columns=["gender_a", "gender_b"]
    )
    assert list(pair_values(pairs, "gender", task)) == ["sad → happy"]
    assert list(pair_values(pairs, "b.prosody_label", task)) == ["fear"]
    with pytest.raises(UserError, match="no such column"):
        pair_values(pairs, "semantic_label", task)


def test_pairs_of_python_are_broken_down_by_a_further_column():
    clips = [replace(one, columns={"take": one.text_id[-1]}) for one in load_dataset(DEMO).clips]
    pairs = build_pairs(clips, "prosody", 30).pairs
    draws = random.Random(0)
    records = pd.DataFrame([record for pair in pairs for record in records_of(pair_row(pair), 3, draws)])
    found = metrics_by(records, pairs, "take")
    assert list(found["take"].unique()) == sorted({p.a.text_id[-1] for p in pairs})
    assert (found.groupby("layer")["n_pairs"].sum() == 30).all() and "flip_to_target_rate_low" in found


def test_a_run_has_a_breakdown_by_text_type_and_by_what_is_asked_for(run):
    metrics, drawn = summarise(Results(run, by=["speaker"]), "prosody")
    for column in ("text_type", "speaker"):
        written = pd.read_csv(run / f"patching_metrics_prosody_by_{column}.csv")
        assert list(written)[:2] == [column, "layer"]
        assert f"flip_rate_curve_prosody_by_{column}.png" in [path.name for path in drawn]
        assert any(line.startswith(f"by {column}, ") for line in metrics.attrs["notes"])


def test_a_run_keeps_what_it_was_asked_for(run):
    change(run, "patching_config.json", lambda config: config["experiments"]["prosody"].update(by=["speaker"]))
    write_report(Results(run))
    page = Page(run / "report.html")
    for column in ("text_type", "speaker"):
        assert (
            f"flip_rate_curve_prosody_by_{column}" in page.data["figures-data"]["specs"] and f"By {column}" in page.text
        )


def test_report_breaks_a_run_down_without_its_data(run):
    change(run, "patching_config.json", lambda config: config["data"].update(source="/nowhere"))
    output = call("report", run, "--by", "speaker", "--by", "b.prosody_label")
    assert "by speaker, flip_to_target_rate_eligible at layer" in output
    assert {"patching_metrics_prosody_by_speaker.csv", "patching_metrics_prosody_by_b.prosody_label.csv"} <= {
        path.name for path in run.iterdir()
    }


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ("spaeker", "--by 'spaeker': the data have no such column; did you mean speaker?"),
        ("a.xyz", "--by 'a.xyz': the data have no such column; there is clip_id, "),
        ("text", "--by 'text': the data have no such column; did you mean text_id?"),
    ],
)
def test_an_unknown_column_is_refused_with_the_nearest_one(run, column, why):
    assert why in fails("report", run, "--by", column, status=BAD_USAGE)


def test_the_name_of_another_column_of_the_tables_is_refused():
    pairs = pd.DataFrame({f"{name}_{side}": ["x"] for name in ("layer", "n_pairs") for side in "ab"})
    with pytest.raises(UserError, match="--by layer: the tables have another layer; use a.layer or b.layer"):
        pair_values(pairs, "layer", TASK)
    assert list(pair_values(pairs, "a.layer", TASK)) == ["x"]


def test_of_many_values_the_figure_shows_those_with_the_most_pairs(made):
    results = Results(made)
    table = results.cached(breakdown, "prosody", "text_id")
    experiment = results.experiment("prosody")
    assert table["text_id"].nunique() > MOST_VALUES
    spec = panels(table, "text_id", experiment.curve, experiment.rate, "Prosody pairs: patched", []).to_dict()
    (rows,) = spec["datasets"].values()
    assert len({row["panel"] for row in rows}) == MOST_VALUES
    assert f"the 12 values of {table['text_id'].nunique()} with the most pairs" in spec["usermeta"]["notes"]
    shown = {row["panel"].partition(",")[0] for row in rows}
    counts = table.groupby("text_id")["n_pairs"].max()
    assert counts[list(shown)].min() >= counts.drop(list(shown)).max()


def test_each_column_has_a_file_of_its_own():
    assert breakdown_file("prosody", "a.prosody_label") == "prosody_by_a.prosody_label"
    names = [breakdown_file("prosody", column) for column in ("x y", "x-y", "x/y", "Größe", "Grüße", "word " * 50)]
    assert len({*names}) == len(names) and max(map(len, names)) < 100


def test_the_line_on_the_largest_difference_counts_values_with_enough_pairs():
    def table(rates, n_pairs):
        rows = [
            {"value": value, "layer": layer, "rate": rate, "n_pairs": n}
            for (value, of_layers), n in zip(rates.items(), n_pairs, strict=True)
            for layer, rate in enumerate(of_layers)
        ]
        return pd.DataFrame(rows)

    line = largest_difference(table({"a": (0.5, 0.5), "b": (0.5, 0.9), "c": (1.0, 0.5)}, (9, 9, 4)), "value", "rate")
    assert "at layer 1, where it differs most: a 50% (n = 9), b 90% (n = 9), c 50% (n = 4)" in line
    assert largest_difference(table({"a": (0.5,), "b": (0.5,)}, (9, 9)), "value", "rate") == ""
    assert largest_difference(table({"a": (0.5,), "b": (0.9,)}, (9, 4)), "value", "rate") == ""


def test_hostile_values_are_escaped_everywhere(run):
    hostile = "=cmd|' /C calc'!A0", "<script>alert(1)</script>\x07\x00"
    change(run, "patching_config.json", lambda config: config["data"].update(columns=["note\u202e"]))
    file = run / "pair_list_prosody.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    clips = sorted({row["text_id_a"] for row in rows})
    value = {text: hostile[number % 2] for number, text in enumerate(clips)}
    write_lines(file, [row | {f"note\u202e_{side}": value[row["text_id_a"]] for side in "ab"} for row in rows])
    summarise(Results(run, by=["note\u202e"]), "prosody")
    (written,) = run.glob("*_by_note--*.csv")
    text = written.read_text(encoding="utf-8")
    assert "\n'=cmd" in text and "\x07" not in text and "\x00" not in text
    write_report(Results(run, by=["note\u202e"]))
    assert "<script>alert(1)" not in (run / "report.html").read_text(encoding="utf-8")


def test_no_two_columns_share_a_file():
    columns = ["x y", "x-y", "Größe", "Grüße", "X Y", "Site", "site", "a" * 240, "a" * 239 + "b", "text_type"]
    files = [breakdown_file("prosody", column) for column in columns]
    assert len({file.lower() for file in files}) == len(columns)
    assert max(map(len, files)) < 100
    for column in ("x-y", "text_type", "a.prosody_label"):
        assert breakdown_file("prosody", column) == f"prosody_by_{column}"


def test_the_titles_of_the_panels_of_a_row_have_one_height():
    whole = pd.DataFrame({"layer": [0, 1], "n_pairs": 4, "flip_from_base_rate": [0.5, 0.25]})
    parts = [whole.assign(text_type="low"), whole.assign(text_type="to the top", flip_from_base_rate=[1.0, 1.0])]
    chart = panels(pd.concat(parts), "text_type", whole, "flip_from_base_rate", "title", [])
    svg = svg_of(spec_of(chart))
    heights = {
        re.findall(r"translate\(([^)]*)\)", svg[: at.start()])[-2] for at in re.finditer(r">(low|to the top), n", svg)
    }
    assert len({place.split(",")[1] for place in heights}) == 1


def test_a_column_with_one_value_is_named_on_the_terminal_and_in_the_report(run):
    for file in ("pair_list_prosody.jsonl", "patching_records_prosody.jsonl"):
        rows = [json.loads(line) for line in (run / file).read_text().splitlines()]
        write_lines(
            run / file,
            [row | {f"text_type_{side}": "implicit" for side in "ab" if "text_type_a" in row} for row in rows],
        )
    line = "all 40 prosody pairs have text_type implicit"
    assert line not in summarise(Results(run), "prosody")[0].attrs["notes"]  # nobody asked for it
    results = Results(run, by=["text_type"])
    assert line in summarise(results, "prosody")[0].attrs["notes"]
    assert line in Page(write_report(results)).text


def test_a_value_without_an_eligible_pair_has_no_panel_and_is_named(made):
    results = Results(made)
    parts, whole = results.cached(breakdown, "prosody", "text_type"), results.experiment("prosody").curve
    first, *others = parts["text_type"].unique()
    parts.loc[parts["text_type"] == first, ["eligible_count", "flip_to_target_rate_eligible"]] = [0, float("nan")]
    chart = spec_of(panels(parts, "text_type", whole, "flip_to_target_rate_eligible", "title", []))
    names = {row["panel"].partition(",")[0] for rows in chart["datasets"].values() for row in rows if "panel" in row}
    assert names == {*others}
    assert any(
        note.startswith(f"without an eligible pair, so without a panel: {first} (n = ")
        for note in chart["usermeta"]["notes"]
    )


def test_panels_of_clips_count_clips(made):
    parts = Results(made).cached(breakdown, "prosody", "text_type")
    whole = Results(made).experiment("prosody").curve
    text = json.dumps(spec_of(panels(parts, "text_type", whole, "flip_from_base_rate", "title", [], unit="clips")))
    assert "share of clips" in text and "all clips" in text and "pairs" not in text
