"""Parts of a run, and other experiments than the main ones, are compared as runs are."""

import json

import pandas as pd
import pytest

from tests.analysis.made_run import change, make_run
from voicepatch.analysis.breakdown import breakdown
from voicepatch.analysis.results import Results
from voicepatch.errors import UserError
from voicepatch.figures import figure_style
from voicepatch.report.compare import as_text, compare, differing
from voicepatch.report.paper_table import paper_table

EXPERIMENTS = ("prosody", "random-prosody")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", EXPERIMENTS)


@pytest.fixture
def drawn(monkeypatch):
    charts = {}
    monkeypatch.setattr(figure_style, "save", lambda chart, path: charts.update({path.name: chart.to_dict()}) or [])
    return charts


def test_each_value_of_a_column_is_a_curve(run, tmp_path, drawn):
    column = "a.prosody_label"
    table, _ = compare([run], tmp_path / "out", by=column)
    of_values = breakdown(Results(run), "prosody", column)
    assert table["curve"].tolist() == of_values[column].unique().tolist()
    assert table["n_pairs"].tolist() == of_values.groupby(column, sort=False)["n_pairs"].max().tolist()
    assert table["n_pairs"].sum() == Results(run).experiment("prosody").metrics["n_pairs"].max()
    first = of_values[of_values["layer"] == of_values["layer"].min()]
    assert table["flip_to_target_rate_first_layer"].tolist() == first["flip_to_target_rate"].tolist()
    data = next(iter(drawn["compare_prosody"]["datasets"].values()))
    assert {row["run"] for row in data} == {*table["curve"]}
    n = len(table)
    statistics = json.loads((tmp_path / "out" / "contrasts.json").read_text())
    assert len(statistics) == n * (n - 1) / 2


def test_values_of_several_runs_have_the_runs_in_their_names(run, tmp_path, drawn):
    other = make_run(tmp_path / "other", EXPERIMENTS)
    table, _ = compare([run, other], tmp_path / "out", by="text_id")
    assert all(curve.startswith(f"{name}, ") for curve, name in zip(table["curve"], table["run"], strict=True))
    assert set(table["run"]) == {"run", "other"}


def test_an_experiment_that_is_not_the_main_one_is_compared(run, tmp_path, drawn):
    other = make_run(tmp_path / "other", EXPERIMENTS)
    table, _ = compare([run, other], tmp_path / "out", experiment="random-prosody")
    assert table["experiment"].tolist() == ["random-prosody"] * 2 and list(drawn) == ["compare_random-prosody"]
    metrics = Results(run).experiment("random-prosody").metrics
    assert table["flip_to_target_rate_first_layer"].iloc[0] == metrics["flip_to_target_rate"].iloc[0]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, "is one run; name another one, or give --by COLUMN"),
        ({"by": "text_typ"}, "did you mean text_type"),
        ({"experiment": "prosodie"}, "did you mean prosody"),
        ({"experiment": "heads"}, "has no experiment heads; there is prosody, random-prosody"),
    ],
)
def test_what_cannot_be_compared_is_one_line(run, tmp_path, how, words):
    with pytest.raises(UserError, match=words):
        compare([run], tmp_path / "out", **how)


def test_the_terminal_shows_what_differs(run, tmp_path, drawn):
    other = make_run(tmp_path / "other", EXPERIMENTS)
    config = json.loads((other / "patching_config.json").read_text())
    config["experiments"]["prosody"]["pair_sampling_seed"] = 7
    (other / "patching_config.json").write_text(json.dumps(config))
    table, _ = compare([run, other], tmp_path / "out")
    same, header, *rows = as_text(table).splitlines()
    assert "n layers 4" in same and "seed" not in same
    assert header.split()[:3] == ["curve", "pairs", "seed"] and "hand over layer" in header
    assert [row.split()[0] for row in rows] == ["run", "other"] and " to " in rows[0]


def test_selections_that_differ_stand_in_the_table_on_the_terminal_and_under_the_figure(run, tmp_path, drawn):
    other = make_run(tmp_path / "other", EXPERIMENTS)
    of_prosody = {"only": "answered", "where": ["text_type=implicit"]}
    change(other, "patching_config.json", lambda config: config["experiments"]["prosody"].update(of_prosody))
    table, _ = compare([run, other], tmp_path / "out")
    written = pd.read_csv(tmp_path / "out" / "hand_over.csv")
    assert written["only"].tolist() == ["all", "answered"] and written["where"].tolist()[1] == "text_type=implicit"
    line = "the selections differ: run: all pairs; other: --only answered --where text_type=implicit"
    assert line in differing(table) and line in drawn["compare_prosody"]["usermeta"]["notes"]
    assert {"only", "where"} <= {*as_text(table).splitlines()[1].split()}
    shown = paper_table(written, "").headings
    assert {"Only", "Where"} <= {*shown}


def test_a_selection_that_all_curves_share_stands_under_the_figure(run, tmp_path, drawn):
    other = make_run(tmp_path / "other", EXPERIMENTS)
    change(other, "patching_config.json", lambda config: config["experiments"]["prosody"].update(only="answered"))
    table, _ = compare([other], tmp_path / "out", by="text_type")
    assert "all curves: --only answered" in drawn["compare_prosody"]["usermeta"]["notes"] and not differing(table)


def test_what_an_earlier_comparison_wrote_is_removed(run, tmp_path, drawn):
    compare([run], tmp_path / "out", by="a.prosody_label")
    before = {path.name for path in (tmp_path / "out").glob("contrast_*.csv")}
    compare([run], tmp_path / "out", by="text_type")
    after = {path.name for path in (tmp_path / "out").glob("contrast_*.csv")}
    assert before and not before & after


def test_the_layer_at_which_rates_differ_most_is_named(run, tmp_path, drawn):
    table, _ = compare([run], tmp_path / "out", by="text_type")
    lines = [line for line in table.attrs["contrasts"] if "differ most" in line]
    assert lines and all(line.endswith(".csv") and "percentage points" in line for line in lines)
