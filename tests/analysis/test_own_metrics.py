"""A metric from outside is measured, averaged and given limits like the built-in ones."""

import numpy as np
import pandas as pd
import pytest

from tests.analysis.made_run import make_run
from tests.commands import call, fails
from voicepatch.analysis.logits import logits_of
from voicepatch.analysis.metrics import BUILT_IN, METRICS, metric, with_metrics
from voicepatch.analysis.results import Results
from voicepatch.errors import UserError
from voicepatch.figures import figure_style
from voicepatch.registry.catalogue import reset_plugins

PLUGIN = """
import numpy as np
from voicepatch import metric
from voicepatch.analysis.logits import logits_of

@metric
def entropy(records):
    p = logits_of(records["logits_patch"]).softmax()
    return -(p * np.log(p)).sum(1)
"""


@metric
def entropy(records):
    p = logits_of(records["logits_patch"]).softmax()
    return pd.Series(-(p * np.log(p)).sum(1), records.index)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(figure_style, "save", lambda chart, path: [])
    return make_run(tmp_path / "run")


def test_its_mean_is_a_column_with_limits_after_the_columns_that_were_there(run):
    plain = Results(run).experiment("prosody").metrics
    table = Results(run, metrics=[entropy]).experiment("prosody").metrics
    assert list(plain)[: len(METRICS)] == list(METRICS)
    assert set(table) - set(plain) == {"entropy_mean", "entropy_mean_low", "entropy_mean_high"}
    pd.testing.assert_frame_equal(table[list(plain)], plain)
    records = Results(run).experiment("prosody").records
    expected = entropy.values(records).groupby(records["layer"]).mean()
    assert table["entropy_mean"].tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert (table["entropy_mean_low"] < table["entropy_mean"]).all()
    assert (table["entropy_mean"] < table["entropy_mean_high"]).all()


def test_of_eligible_pairs_alone_it_is_their_mean(run):
    half = metric(lambda records: records["layer"] + records["eligible"] * 1.0, eligible=True)
    experiment = Results(run, metrics=[half]).experiment("prosody")
    assert (experiment.metrics[half.column] == experiment.metrics["layer"] + 1).all()


def test_a_plugin_gives_it_and_the_report_command_says_when_it_is_gone(run, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN)
    csv = run / "patching_metrics_prosody.csv"
    call("report", run, "--plugin", plugin)
    assert {"entropy_mean", "entropy_mean_low", "entropy_mean_high"} <= set(pd.read_csv(csv))
    reset_plugins()
    assert "patching_metrics_prosody.csv no longer has entropy_mean" in call("report", run)
    assert "no longer" not in call("report", run)


def test_the_records_of_a_notebook_have_its_column(demo, demo_data):
    from interventions import load_intervention
    from pairs import build_pairs
    from voicepatch import run_table

    pairs = build_pairs(demo_data.clips, "prosody", max_pairs=1).pairs
    table = run_table(demo, load_intervention("patch"), pairs, layers=[0, 5], metrics=[entropy])
    p = np.exp(np.array([list(row.values()) for row in table["logits_patch"]]))
    p /= p.sum(1, keepdims=True)
    assert table["entropy"].tolist() == pytest.approx((-(p * np.log(p)).sum(1)).tolist())


def ratio(records):
    return records["delta_logit_target"] / (records["layer"] - 1)


WRONG = {
    "short": (lambda records: np.zeros(3), r"gives values of shape \(3,\) for 24 records"),
    "one number": (lambda records: 1.0, r"gives values of shape \(\) for 24 records"),
    "two columns": (lambda records: np.zeros((24, 2)), r"gives values of shape \(24, 2\) for 24 records"),
    "own index": (lambda records: pd.Series(np.zeros(24), range(5, 29)), "gives an index of its own"),
    "shuffled": (lambda records: records["layer"].sample(frac=1, random_state=1), "gives an index of its own"),
    "text": (lambda records: records["target"], "gives Series, where numbers are needed"),
    "nothing": (lambda records: None, r"is not finite|numbers are needed|shape \(\)"),
    "not finite": (ratio, "is not finite in pair .* at layer 1"),
    "fails": (lambda records: records["no_such_column"], r"fails \(KeyError"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_one_finite_number_a_record_is_one_line_with_file_and_line(run, what):
    function, message = WRONG[what]
    with pytest.raises(UserError, match=rf"{__file__}:\d+: the metric .+ ({message})") as caught:
        Results(run, metrics=[metric(function)]).experiment("prosody")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["recovery", "layer", "near_tie", "flip_to_target_rate", "kl_to_donor_mean"])
def test_a_metric_cannot_have_the_name_of_a_column(run, tmp_path, name):
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN.replace("entropy", name))
    line = fails("report", run, "--plugin", plugin, status=1)
    assert f"mine.py:6: the metric {name} makes a column" in line and "exists already; rename it" in line


def test_two_metrics_cannot_make_one_column(run):
    other = metric(lambda records: records["layer"], column="entropy_mean")
    with pytest.raises(UserError, match="makes a column entropy_mean, which exists already"):
        with_metrics(Results(run).experiment("prosody").records, [entropy, other])


def test_the_built_in_metrics_are_measured_by_the_same_functions(run):
    records = Results(run).experiment("prosody").records
    for one in BUILT_IN:
        assert len(one.values(records)) == len(records), one.name
