"""`patch` runs the knock-out beside the main experiment, and says where it does not."""

import json

import pandas as pd
import pytest

from tests.analysis.made_run import Page
from tests.commands import FEW, NO_FIGURES, call, rows


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture(scope="module")
def said(out):
    return call("patch", "--kind", "prosody", "--alpha", "0.5,1", "--layers", "0,3", "--out", out, *FEW)


def test_it_runs_with_the_pairs_and_layers_of_the_command_and_without_its_dose(said, out):
    settings = json.loads((out / "patching_config.json").read_text())["experiments"]
    need = settings["need-prosody"]
    assert need["beside_main"] and need["finished"] and need["options"] == {} and need["patch_alpha"] == 1.0
    assert need["layers_to_patch"] == settings["prosody"]["layers_to_patch"] == [0, 3]
    pairs, main = (rows(out / f"pair_list_{name}.jsonl") for name in ("need-prosody", "prosody"))
    of_main = {row[side]: row for row in main for side in ("clip_a", "clip_b")}
    assert len(pairs) == len({row["clip_a"] for row in pairs}) and {row["clip_a"] for row in pairs} <= set(of_main)
    assert all(row["clip_a"] == row["clip_b"] and row["semantic_label_a"] != row["prosody_label_a"] for row in pairs)


def test_it_writes_its_table_its_statistics_and_the_figure_of_both(said, out):
    table = pd.read_csv(out / "need.csv")
    assert set(table["layer"]) == {0, 3} and table["lost_rate"].between(0, 1).all()
    by = pd.read_csv(out / "need_by_text_type.csv")
    assert list(by)[:5] == ["text_type", "follows", "layer", "n_clips", "lost_rate"]
    counts = by[by["layer"] == 0].groupby("follows")["n_clips"].sum()
    assert counts.to_dict() == table[table["layer"] == 0].set_index("follows")["n_clips"].to_dict()
    statistics = json.loads((out / "statistics_need.json").read_text())
    assert {"difference", "definition", "seed"} <= set(statistics)
    assert (out / "override_and_need.png").exists()
    assert "need-prosody, by layer:" in said
    page = Page(out / "report.html")
    sentence = next(line for line in said.splitlines() if "need A's span" in line or "needing A's span" in line)
    assert page.text.index(sentence) < page.text.rindex("Methods text")
    assert page.source.count('id="figure-override_and_need"') == 1


def test_the_same_command_runs_nothing_again(said, out):
    again = call("patch", "--kind", "prosody", "--alpha", "0.5,1", "--layers", "0,3", "--out", out, *FEW, NO_FIGURES)
    assert "forward passes" in said and "forward passes" not in again


def test_it_can_be_left_out(tmp_path):
    call("patch", "--kind", "prosody", "--no-need", "--out", tmp_path, *FEW, NO_FIGURES)
    assert list(json.loads((tmp_path / "patching_config.json").read_text())["experiments"]) == ["prosody"]


def test_the_slow_engine_leaves_it_out_and_says_so(tmp_path):
    command = ("patch", "--kind", "prosody", "--layers", "0", "--engine", "stepwise", "--out", tmp_path, *FEW)
    assert "need: not run, because engine stepwise is slow" in call(*command, NO_FIGURES)
    assert list(json.loads((tmp_path / "patching_config.json").read_text())["experiments"]) == ["prosody"]


def test_one_that_ran_with_other_settings_does_not_stop_the_main_experiment(tmp_path):
    call("need", "--pairs", "prosody", "--layers", "1", "--out", tmp_path, *FEW, NO_FIGURES)
    said = call("patch", "--kind", "prosody", "--out", tmp_path, *FEW, NO_FIGURES, status=2).splitlines()
    assert said[-2].startswith("error: need ended early: ") and "layers_to_patch" in said[-2]
    assert said[-1] == f"python cli.py need --pairs prosody --out {tmp_path} --overwrite runs need again"
    config = json.loads((tmp_path / "patching_config.json").read_text())
    assert config["experiments"]["prosody"]["finished"] and config["experiments"]["need-prosody"]["finished"]


def test_a_control_does_not_run_it(said, out):
    call("control", "--kind", "self", "--out", out, *FEW, NO_FIGURES)
    names = json.loads((out / "patching_config.json").read_text())["experiments"]
    assert list(names) == ["prosody", "need-prosody", "self"]
