"""Which figures an experiment gets, and what is in their tables."""

import json
import shutil

import pandas as pd
import pytest

from tests.analysis.test_metrics import FIXED_COLUMNS, logits, record
from tests.recorded import recorded
from tests.store.made import IDENTITY, SETTINGS
from voicepatch.analysis.results import Results, left_out
from voicepatch.errors import UserError
from voicepatch.figures import curves, figure_style, maps
from voicepatch.figures.charts import charts_of
from voicepatch.report import write_report
from voicepatch.report.compare import compare, differing
from voicepatch.report.experiments import read_run
from voicepatch.report.reproduce import commands
from voicepatch.report.summary import as_text, summarise
from voicepatch.text import _NOT_IN_XML as NOT_IN_XML
from voicepatch.types.task import default_task

LABELS = default_task().labels

LAYERS = (0, 1, 2)


def make_run(folder, flips_until=1, control=False):
    """Ten prosody pairs on ten texts; each flips at the layers up to `flips_until`, but for pair 9, not eligible."""
    folder.mkdir()
    experiments = {"prosody": "patch"} | ({"random-prosody": "random"} if control else {})
    config = {
        "model": IDENTITY["model"] | {"n_layers": 3},
        "data": {"name": "d", "source": "nowhere", "sha256": "1", "n_clips": 20, "warnings": []},
        "task": IDENTITY["task"],
        "prompt": IDENTITY["prompt"],
        "labels": IDENTITY["labels"],
        "experiments": {
            name: SETTINGS
            | {
                "intervention": intervention,
                **recorded(intervention),
                "kind": "prosody",
                "patch_alpha": 1.0,
                "options": {},
                "align": "truncate_to_min",
                "max_pairs_prosody": 10,
                "pair_sampling_seed": 1,
                "same_speaker": True,
                "both_directions": False,
                "layers_to_patch": list(LAYERS),
                "patch_all_layers": True,
                "swept": [],
                "engine": "tail",
                "device": "cpu",
                "dtype": "float32",
                "finished": True,
            }
            for name, intervention in experiments.items()
        },
    }
    (folder / "patching_config.json").write_text(json.dumps(config))
    for name, intervention in experiments.items():
        pairs, records = [], []
        for i in range(10):
            a, b = LABELS[i % 5], LABELS[(i + 1) % 5]
            shared = {"pair_id": f"{name}{i}", "clip_a": f"t{i}_{a}", "clip_b": f"t{i}_{b}"}
            labels = {f"{key}_{side}": value for side, value in (("a", a), ("b", b)) for key in ("prosody_label",)}
            pairs.append(shared | labels | {"kind": "prosody", "target": b, "text_id_a": f"t{i}", "text_id_b": f"t{i}"})
            pairs[-1] |= {"semantic_label_a": a, "semantic_label_b": a}
            pairs[-1] |= {f"{key}_{side}": None for key in ("speaker", "text_type") for side in "ab"}
            for layer in LAYERS:
                base = logits(**{b if i == 9 else a: 4.0})
                flips = intervention == "patch" and layer <= flips_until
                row = record(layer, b, base, logits(**{b: 4.0}) if flips else base, logits(**{b: 4.0}))
                row |= {"len_a": 10 + i, "len_b": 12, "n_patched": 10, "label_mass_base": 0.9}
                row |= {"semantic_label_b": a, "prosody_label_b": b}
                records.append(shared | row)
        for kind, rows in (("pair_list", pairs), ("patching_records", records)):
            (folder / f"{kind}_{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in experiments:
        summarise(Results(folder), name)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", control=True)


@pytest.fixture
def copied(run, tmp_path, monkeypatch):
    """The run again, to be changed; no picture of it is drawn."""
    monkeypatch.setattr(figure_style, "save", lambda chart, path: [])
    return shutil.copytree(run, tmp_path / "run")


def figures_of(run, name="prosody"):
    return charts_of(Results(run), name)


def rows_of(chart):
    return pd.DataFrame([row for rows in chart.to_dict()["datasets"].values() for row in rows])


def test_a_main_experiment_gets_every_figure_as_png_and_svg(run):
    folder = run
    stems = set(figures_of(folder))
    kinds = ("flip_rate_curve", "delta_logit_curve", "recovery_curve", "pair_heat_map", "label_matrix")
    assert stems == {*(f"{kind}_prosody" for kind in (*kinds, "unpatched_confusion")), "controls_prosody"}
    for stem in stems:
        assert (folder / f"{stem}.png").exists() and (folder / f"{stem}.svg").exists()


def test_intervals_stand_in_the_metrics_and_hold_the_rates(run):
    metrics = pd.read_csv(run / "patching_metrics_prosody.csv")
    assert metrics["flip_to_target_rate"].tolist() == [1.0, 1.0, 0.1]
    for column in ("flip_to_target_rate", "flip_from_base_rate", "delta_logit_target_mean"):
        assert (metrics[f"{column}_low"] <= metrics[column]).all() and (
            metrics[column] <= metrics[f"{column}_high"]
        ).all()


def test_the_heat_map_has_a_row_a_pair_with_the_ineligible_at_the_foot(run):
    rows = rows_of(figures_of(run)["pair_heat_map_prosody"])
    assert len(rows) == 10 * len(LAYERS)
    assert set(rows.query("row == 9")["state"]) == {"not eligible: A unpatched gives the target"}
    assert set(rows.query("row < 9 and layer <= 1")["state"]) == {"flip to target"}
    assert set(rows.query("row < 9 and layer == 2")["state"]) == {"no flip: A's own answer"}


def heat_map(run):
    """The rows that the heat map of `run` shows, each with its pair, and its subtitle."""
    chart = figures_of(run)["pair_heat_map_prosody"]
    pairs = rows_of(chart).groupby("row")["pair"].first()
    return pairs, " ".join(chart.to_dict()["usermeta"]["notes"])


@pytest.mark.parametrize(("most", "kept"), [(4, [0, 3, 6, 9]), (2, [0, 9]), (7, [0, 2, 3, 4, 6, 8, 9])])
def test_of_many_pairs_the_heat_map_keeps_some_evenly_with_the_first_and_the_last(run, monkeypatch, most, kept):
    every, _ = heat_map(run)
    monkeypatch.setattr(maps, "MOST_PAIRS", most)
    shown, subtitle = heat_map(run)
    assert shown.index.tolist() == kept and shown.to_dict() == every[kept].to_dict()
    assert f"{most} of 10 pairs, evenly spaced" in subtitle


@pytest.mark.parametrize("most", [10, 150])
def test_a_heat_map_with_room_for_every_pair_leaves_none_out_and_says_nothing_of_it(run, monkeypatch, most):
    monkeypatch.setattr(maps, "MOST_PAIRS", most)
    shown, subtitle = heat_map(run)
    assert shown.index.tolist() == list(range(10)) and "evenly" not in subtitle


def test_a_thinned_heat_map_keeps_every_layer_of_the_pairs_that_it_shows(run, monkeypatch):
    monkeypatch.setattr(maps, "MOST_PAIRS", 4)
    rows = rows_of(figures_of(run)["pair_heat_map_prosody"])
    assert rows.groupby("row")["layer"].apply(list).tolist() == [list(LAYERS)] * 4


def test_the_metrics_count_near_ties_by_the_margin_of_the_run(copied):
    folder = copied
    config = json.loads((folder / "patching_config.json").read_text())
    counts = pd.read_csv(folder / "patching_metrics_prosody.csv")["near_tie_count"]
    assert counts.tolist() == [0, 0, 0]
    config["experiments"]["prosody"]["near_tie_margin"] = 4.5  # every answer leads by 4
    (folder / "patching_config.json").write_text(json.dumps(config))
    summarise(Results(folder), "prosody")
    assert pd.read_csv(folder / "patching_metrics_prosody.csv")["near_tie_count"].tolist() == [10, 10, 10]


def results_heading(results):
    return " ".join(charts_of(results, "prosody")["flip_rate_curve_prosody"].to_dict()["usermeta"]["notes"])


@pytest.mark.parametrize("without", ["some", "all"])
def test_pairs_that_gave_no_record_are_in_no_rate_and_stop_no_summary(copied, without):
    records = copied / "patching_records_prosody.jsonl"
    lines = [line for line in records.read_text().splitlines(keepends=True) if '"prosody3"' not in line]
    records.write_text("".join(lines)) if without == "some" else records.unlink()
    lost = ["prosody3"] if without == "some" else [f"prosody{i}" for i in range(10)]
    failed = [json.dumps({"pair_id": pair, "reason": "not finite", "skipped": False}) + "\n" for pair in lost]
    (copied / "failed_pairs_prosody.jsonl").write_text("".join(failed))
    results = Results(copied)
    summarise(results, "random-prosody")
    if without == "some":
        assert summarise(results, "prosody")[0]["n_pairs"].tolist() == [9, 9, 9]
        heading = results_heading(results)
        assert "n = 9 pairs of 10 (1 gave no record)" in heading
        contrast = pd.read_csv(copied / "contrast_prosody_vs_random-prosody.csv")
        assert contrast["n_pairs"].tolist() == [9, 9, 9]


def test_the_label_matrix_counts_pairs_from_label_to_label(run):
    rows = rows_of(figures_of(run)["label_matrix_prosody"])
    cell = rows.query("layer == 0 and label_a == 'happy' and target == 'sad'").iloc[0]
    assert (cell["n"], cell["flip_to_target_rate"]) == (2, 1.0)


def test_the_confusion_counts_each_clip_once(run):
    rows = rows_of(figures_of(run)["unpatched_confusion_prosody"])
    assert rows.groupby("factor")["n"].sum().tolist() == [20, 20]


def sweep(folder, values, swept, intervention="random", doc="A docstring of its own.", site="mlp.output", **settings):
    """The run in `folder` with random-prosody repeated for each of the `values`, as a sweep of `intervention`."""
    config = json.loads((folder / "patching_config.json").read_text())
    experiment = config["experiments"]["random-prosody"]
    experiment |= {
        "intervention": intervention,
        **recorded(intervention, describes=doc),
        "doc": doc,
        "swept": swept,
    } | settings
    for name in swept or ():
        chosen = list(dict.fromkeys(value[name] for value in values))
        experiment |= {"patch_alpha": chosen} if name == "patch_alpha" else {}
        experiment["options"] |= {} if name == "patch_alpha" else {name: chosen}
    (folder / "patching_config.json").write_text(json.dumps(config))
    path = folder / "patching_records_random-prosody.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row | {"site": site} | value for value in values for row in rows]
    rows.sort(key=lambda row: row["pair_id"])  # stable: a pair's rows together
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return config


TWO = [{"patch_alpha": alpha, "k": k} for alpha in (0.5, 1.0) for k in (1, 3)]


@pytest.mark.parametrize(
    ("values", "swept", "lines"),
    [
        ([{"head": head} for head in range(3)], ["head"], {"head 0", "head 1", "head 2"}),
        (TWO, ["patch_alpha", "k"], {"alpha 0.5, k 1", "alpha 0.5, k 3", "alpha 1, k 1", "alpha 1, k 3"}),
        ([{"head": head} for head in range(7)], ["head"], None),
        ([{"patch_alpha": alpha} for alpha in (0.5, 1.0)], ["patch_alpha"], {"alpha 0.5", "alpha 1"}),
    ],
)
def test_a_sweep_has_a_metrics_line_a_cell_and_a_line_or_a_map_row_a_value(copied, values, swept, lines):
    contrast = copied / "contrast_prosody_vs_random-prosody.csv"
    contrast.unlink()
    sweep(copied, values, swept, control=True)
    shown_table = as_text(summarise(Results(copied), "random-prosody")[0])
    metrics = pd.read_csv(copied / "patching_metrics_random-prosody.csv")
    assert list(metrics)[:6] == FIXED_COLUMNS and (metrics["n_pairs"] == 10).all()
    expected = {(layer, *value.values()) for value in values for layer in LAYERS}
    assert set(metrics[["layer", *swept]].itertuples(index=False, name=None)) == expected and len(metrics) == len(
        expected
    )
    assert metrics["flip_to_target_rate_low"].notna().all() and (metrics["site"] == "mlp.output").all()
    assert all(column in shown_table.splitlines()[0] for column in swept)

    figures = figures_of(copied, "random-prosody")
    one_curve = swept == ["patch_alpha"]
    assert contrast.exists() == one_curve  # a contrast is of one curve
    assert ("dose_response_random-prosody" in figures) == ("controls_prosody" in figures) == one_curve
    flips = figures["flip_rate_curve_random-prosody"].to_dict()
    assert flips["usermeta"]["title"] == "Prosody pairs, random: A docstring of its own."
    drawn = rows_of(figures["flip_rate_curve_random-prosody"])
    if lines:
        assert set(drawn["series"]) == lines
    else:  # of eligible pairs alone, so that A's own rate is no part of the colours
        assert set(drawn.columns) & set(curves.FLIP_STYLES) == {curves.TO_TARGET_ELIGIBLE}
        assert len(rows_of(figures["delta_logit_curve_random-prosody"])) == len(expected)


@pytest.mark.parametrize("column", ["patch_alpha", "scale"])
def test_values_that_differ_beyond_six_digits_are_told_apart_everywhere(copied, column):
    close = [0.1, 0.10000001]
    sweep(copied, [{column: value} for value in close], [column])
    results = Results(copied)
    table = as_text(summarise(results, "random-prosody")[0])
    metrics = pd.read_csv(copied / "patching_metrics_random-prosody.csv")
    assert list(metrics[column]) == close * len(LAYERS) and (metrics["n_pairs"] == 10).all()
    assert sum(" 0.10000001 " in line for line in table.splitlines()) == len(LAYERS)
    name = {"patch_alpha": "alpha"}.get(column, column)
    flips = rows_of(figures_of(copied, "random-prosody")["flip_rate_curve_random-prosody"])
    assert {f"{name} 0.1", f"{name} 0.10000001"} <= set(flips["series"])
    page = write_report(results).read_text()
    assert f"{name} 0.10000001" in page and page.count(">0.10000001<") >= len(LAYERS)
    (repeat,) = (line for line in commands(read_run(results)) if "random" in line)
    assert f"--{name} 0.1,0.10000001" in repeat


UNFIT = "=1+1\x00\x1b\x7f\ufffe"


def test_a_text_that_no_svg_holds_is_drawn_with_pictures_of_its_characters(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    sweep(copied, [{"mode": "a\x01"}, {"mode": "a\x02"}], ["mode"], site=UNFIT)
    table = as_text(summarise(Results(copied), "random-prosody")[0])
    svg = (copied / "flip_rate_curve_random-prosody.svg").read_text()
    assert "mode a␁" in svg and "mode a␂" in svg and "=1+1␀␛" in svg
    metrics = pd.read_csv(copied / "patching_metrics_random-prosody.csv")
    assert set(metrics["site"]) == {"'=1+1␀␛\x7f\ufffd"} and set(metrics["mode"]) == {"a␁", "a␂"}
    page = write_report(Results(copied)).read_text()
    assert not NOT_IN_XML.search(svg + table + page) and "=1+1␀␛" in page


def test_a_run_folder_or_site_that_a_spreadsheet_would_compute_has_an_apostrophe(run, tmp_path):
    shutil.copytree(run, tmp_path / "=1+1")
    shutil.copytree(run, tmp_path / "plain")
    compare([tmp_path / "=1+1", tmp_path / "plain"], tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "hand_over.csv")
    assert list(table["run"]) == ["'=1+1", "plain"] and list(table["alpha"]) == [1.0, 1.0]


def test_what_was_read_of_a_finished_experiment_is_kept_for_the_next_one_of_a_command(copied):
    before = Results(copied)
    main, control = (before.experiment(name) for name in ("prosody", "random-prosody"))
    after = Results(copied, before, "random-prosody")
    assert after.experiment("prosody") is main and after.experiment("random-prosody") is not control


def test_hand_over_and_contrast_are_written(run):
    found = json.loads((run / "statistics_prosody.json").read_text())["hand_over"]
    assert found["low"] <= found["layer"] <= found["high"] and 1 < found["layer"] < 2
    contrast = pd.read_csv(run / "contrast_prosody_vs_random-prosody.csv")
    assert contrast["layer"].tolist() == list(LAYERS)
    assert contrast["difference"].tolist() == pytest.approx([0.9, 0.9, 0.0])
    assert contrast["p_max"].iloc[0] < 0.05 < contrast["p_max"].iloc[2]


def test_runs_are_compared_on_relative_depth(run, tmp_path):
    other = make_run(tmp_path / "other", flips_until=0)
    table, figures = compare([run, other], tmp_path / "out")
    assert table["run"].tolist() == ["run", "other"]
    assert table["hand_over_layer"].iloc[1] < table["hand_over_layer"].iloc[0]
    assert table["relative_depth"].tolist() == pytest.approx((table["hand_over_layer"] / 2).tolist())
    assert [figure.name for figure in figures] == ["compare_prosody.png"]
    assert (tmp_path / "out" / "hand_over.csv").exists()


def test_what_is_no_finished_run_cannot_be_compared(tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        compare([tmp_path], tmp_path / "out")


def test_an_unfinished_main_experiment_is_not_compared(copied, tmp_path):
    change(copied, finished=False)
    with pytest.raises(UserError, match="no finished main experiment"):
        compare([copied], tmp_path / "out")


def test_a_run_is_compared_once(run, tmp_path):
    with pytest.raises(UserError, match="is named twice") as caught:
        compare([run, run / ".." / run.name], tmp_path / "out")
    assert caught.value.status == 2 and not (tmp_path / "out").exists()


def test_doses_and_layer_subsets_stand_beside_the_hand_over_layers_that_are_compared(
    run, copied, tmp_path, monkeypatch
):
    """It was once otherwise: three hand-over layers of one model, at other doses and layers, without a word."""
    drawn = {}
    monkeypatch.setattr(figure_style, "save", lambda chart, path: drawn.update({path.name: chart.to_dict()}) or [])
    change(copied, patch_alpha=0.5, layers_to_patch=[0, 1])
    rewrite(copied, lambda row: row | {"patch_alpha": 0.5} if row["layer"] < 2 else None)
    other = copied.rename(tmp_path / "part")
    table, _ = compare([run, other], tmp_path / "out")
    assert table["alpha"].tolist() == [1, 0.5] and table["layers"].tolist() == ["all", "0-1"]
    said = " ".join(drawn["compare_prosody"]["usermeta"]["notes"])
    assert (
        "run: n = 10 pairs, alpha 1, all 3 layers" in said and "part: n = 10 pairs, alpha 0.5, layers 0-1 of 3" in said
    )
    assert "the doses differ" in said and "not all layers were patched" in said
    assert "the models differ" not in said and "the prompts differ" not in said and "the spans differ" not in said


def test_what_differs_between_models_and_data_is_named_beside_their_curves(run, copied, tmp_path):
    config = json.loads((copied / "patching_config.json").read_text(encoding="utf-8"))
    config["model"] |= {"name": "other", "sha256": "2" * 64, "family": "Voxtral", "frames_per_second": 12.5}
    config["data"] |= {"name": "RAVDESS", "sha256": "3" * 64}
    config["prompt"] |= {"system": None, "text": "[INST] …"}
    (copied / "patching_config.json").write_text(json.dumps(config), encoding="utf-8")
    other = copied.rename(tmp_path / "second")
    table, _ = compare([run, other], tmp_path / "out")
    assert table["frames_per_second"].iloc[1] == 12.5 and (table["median_span"] > 0).all()
    said = " ".join(differing(table))
    assert "the models differ: run" in said and "second other (Voxtral)" in said
    assert "the data differ: run" in said and "second RAVDESS" in said and "the prompts differ" in said


# --- controls that were run in another way

OTHERWISE = {
    "dose": ({"patch_alpha": 0.5}, "alpha 0.5, not 1"),
    "dtype": ({"dtype": "bfloat16"}, "dtype bfloat16, not float32"),
    "seed": ({"pair_sampling_seed": 2}, "seed 2, not 1"),
    "pairs": ({"max_pairs_prosody": 9}, "max_pairs 9, not 10"),
    "layers": ({"layers_to_patch": [0, 1]}, "layers 0-1, not 0-2"),
    "alignment": ({"align": "resample_linear"}, "align resample_linear, not truncate_to_min"),
    "swept": ({"options": {"k": [1]}, "swept": ["k"]}, "it swept k"),
}


@pytest.mark.parametrize("what", OTHERWISE)
def test_a_control_that_ran_in_another_way_is_named_with_what_differs(copied, what):
    settings, why = OTHERWISE[what]
    run_otherwise(copied, what, settings)
    assert left_out(Results(copied)) == [f"random-prosody is in no figure or contrast with prosody: {why}"]
    assert Results(copied).controls("prosody")[0] == []


@pytest.mark.parametrize(
    "order", [("prosody", "random-prosody"), ("random-prosody", "prosody")], ids=["after", "before"]
)
def test_a_control_that_ran_in_another_way_is_in_no_contrast_and_no_figure(copied, order):
    change(copied, "random-prosody", order=order)
    run_otherwise(copied, "seed", OTHERWISE["seed"][0])
    results = Results(copied)
    for name in results.names:
        summarise(results, name)
        assert "controls_prosody" not in charts_of(results, name)
    assert not list(copied.glob("contrast_*"))  # the old one is gone, too


def run_otherwise(run, what, settings):
    change(run, "random-prosody", **settings)
    new = {"patch_alpha": settings.get("patch_alpha", 1.0)} | ({"k": 1} if what == "swept" else {})
    layers = settings.get("layers_to_patch", LAYERS)
    rewrite(run, lambda row: row | new if row["layer"] in layers else None, "random-prosody")


def test_a_control_that_ran_before_its_main_experiment_is_contrasted_when_that_has_ran(copied):
    (copied / "contrast_prosody_vs_random-prosody.csv").unlink()
    change(copied, "random-prosody", order=("random-prosody", "prosody"))
    summarise(Results(copied), "prosody")
    assert (copied / "contrast_prosody_vs_random-prosody.csv").exists()


CLIP = {"clip_id": "a", "seconds": 1.0, "n_input_ids": 40, "span_start": 15, "span_end": 30, "n_audio": 15, "ok": True}
CLIP |= {"n_audio_expected": 15, "tokens_before": [], "ids_in_span": [], "tokens_after": []}
SPANS = {"passed": True, "checks": [], "clips": [CLIP], "left_out": [], "held_against": "the tokens beside it"}


def test_an_experiment_that_writes_all_positions_after_the_span_joins_the_hand_over(copied):
    (copied / "sanity_check_audio_span.json").write_text(json.dumps(SPANS))
    rewrite(copied, lambda row: row | {"patched_from": 15})
    rewrite(copied, lambda row: row | {"patched_from": 15 + row["len_a"], "n_patched": 9}, "random-prosody")
    assert Results(copied).hand_over("prosody")["suffix"] is None  # not the last position
    rewrite(copied, lambda row: row | {"n_patched": 10}, "random-prosody")
    assert Results(copied).hand_over("prosody")["suffix"] is not None
    change(copied, "random-prosody", patch_alpha=0.5)
    rewrite(copied, lambda row: row | {"patch_alpha": 0.5}, "random-prosody")
    assert Results(copied).hand_over("prosody")["suffix"] is None  # another dose


def change(run, name="prosody", order=None, **settings):
    path = run / "patching_config.json"
    config = json.loads(path.read_text())
    config["experiments"][name] |= settings
    config["experiments"] = {name: config["experiments"][name] for name in order or config["experiments"]}
    path.write_text(json.dumps(config))
    return config


def rewrite(run, edit, name="prosody"):
    path = run / f"patching_records_{name}.jsonl"
    rows = [edit(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row))
