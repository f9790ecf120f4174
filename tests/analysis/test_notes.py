"""What a reader of the rates must know stands beside them on the terminal, in figures and in the report."""

import json

import pandas as pd
import pytest

from tests.analysis.made_run import change, make_run, write_lines
from voicepatch.analysis.experiment_results import what_it_does
from voicepatch.analysis.results import Results
from voicepatch.figures.headings import heading, layers_of_band
from voicepatch.report.experiments import read_run
from voicepatch.report.prose import limits
from voicepatch.report.summary import as_text, summarise
from voicepatch.report.table import table_of


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
    return make_run(tmp_path / "run", n_pairs=12)


def shown(run):
    return as_text(summarise(Results(run), "prosody")[0]).splitlines()


def test_the_terminal_has_eligible_pairs_the_hand_over_layer_and_the_rate_of_a_alone(run):
    metrics = Results(run).experiment("prosody").metrics
    head, *lines = shown(run)
    assert {"flip_to_target_rate", "flip_to_target_rate_eligible", "eligible_count"} <= set(head.split())
    assert [line for line in lines if line.startswith("The hand-over layer is ")]
    own = metrics["base_is_target_rate"].mean()
    assert own == 0 and not [line for line in lines if line.startswith("A's own rate")]
    path = run / "patching_records_prosody.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[:4]:  # the first pair has the target before the patch
        logits = {label: 9.0 * (label == row["target"]) for label in row["logits_base"]}
        row |= {"logits_base": logits, "pred_base": row["target"], "eligible": False}
        row |= {"delta_logit_target": row["logits_patch"][row["target"]] - 9}
        row |= {"flip_from_base": row["pred_patch"] != row["target"]}
    write_lines(path, rows)
    assert [line for line in shown(run) if line.startswith("A's own rate: 8.3% of answers are the target before")]


@pytest.mark.parametrize(("mass", "warned"), [(0.49, True), (0.5, False)])
def test_labels_with_less_than_half_of_the_probability_are_warned_of(run, mass, warned):
    path = run / "patching_records_prosody.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, [row | {"label_mass_base": mass} for row in rows])
    found = [line for line in shown(run) if line.startswith("warning: the labels hold 49.0% ")]
    assert bool(found) == warned


def test_figures_name_the_options_that_were_not_swept_but_not_the_positions(run):
    options = {"k": 9, "readers": "question", "at": "span"}
    change(run, "patching_config.json", lambda config: config["experiments"]["prosody"].update(options=options))
    results = Results(run)
    assert "options: k 9, readers question" in heading(results, results.experiment("prosody"))[1]


def test_figures_and_tables_with_limits_name_the_speakers_for_whom_they_hold(run):
    results, note = Results(run), "95 % intervals and tests hold for these 2 speakers"
    assert note in heading(results, results.experiment("prosody"))[1]
    captions = [table.caption for table in read_run(results).tables["prosody"]]
    assert captions[0] == f"All metrics by layer; {note}" and not captions[-1].endswith(note)


@pytest.mark.parametrize(
    ("k", "band", "text"),
    [(1, "from", "layer l"), (9, "to", "9 layers up to layer l"), (2, "around", "2 layers around layer l")],
)
def test_a_band_is_named_by_its_layers(k, band, text):
    assert layers_of_band({"k": k, "band": band}) == text


def test_a_control_that_must_change_nothing_is_no_place_with_an_effect(tmp_path):
    run = make_run(tmp_path / "run", ("prosody", "noise-prosody", "self-prosody"))
    must = {"control": True, "must_change_nothing": True}
    change(run, "patching_config.json", lambda config: config["experiments"]["self-prosody"].update(must))
    text = " ".join(limits(read_run(Results(run))))
    assert "Where noise-prosody changes A's answer" in text and "self-prosody" not in text


def test_a_table_has_a_column_for_an_index_with_a_name_alone():
    frame = pd.DataFrame({"value": [1.0, 2.0]}, index=[3, 5])
    assert table_of("", frame).columns == ["value"]
    assert table_of("", frame.rename_axis("layer")).columns == ["layer", "value"]


@pytest.mark.parametrize(("k", "said"), [(9, "at 9 consecutive layers"), ([1, 2], "at k consecutive layers")])
def test_a_window_has_its_number_where_it_has_one(k, said):
    settings = {"describes": "Positions cannot attend to it at k consecutive layers.", "options": {"k": k}}
    assert said in what_it_does(settings)
