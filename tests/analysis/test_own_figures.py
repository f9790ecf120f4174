"""An experiment's own module makes figures, tables and sentences, also that of a plugin."""

import pandas as pd
import pytest

from tests.analysis.made_run import Page, change, light, make_run, write_report
from voicepatch.analysis.results import Results
from voicepatch.errors import UserError
from voicepatch.figures.charts import charts_of
from voicepatch.registry.catalogue import add_plugin, reset_plugins
from voicepatch.report.summary import summarise

EXPERIMENT = """
from interventions import intervention

@intervention(figures="bars")
def mine(lm, pair, layer):
    "Mine."
"""
FIGURES = """
import altair as alt
import pandas as pd
from voicepatch.figures.figure_style import figure
from voicepatch.types.check import Check

def charts(results, experiment):
    bars = alt.Chart(pd.DataFrame({"n": [len(experiment.pairs)]})).mark_bar().encode(x="n:Q")
    return {f"bars_{experiment.name}": figure(alt.layer(bars), "Bars", [], "Bars of pairs")}

def tables(results, experiment):
    return {f"bars_{experiment.name}": pd.DataFrame({"n": [len(experiment.pairs)]})}

def sentences(results, experiment):
    return ["A sentence of mine."]

def simplifications(results, experiment):
    return ["A simplification of mine."]

def limits():
    return ["A limit of mine."]

def checks(results, experiment):
    return [Check("A check of mine", False, "it failed", {})]
"""
NAME = "mine-prosody"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
    reset_plugins()
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    (tmp_path / "bars.py").write_text(FIGURES)
    run = make_run(tmp_path / "run", (NAME,))
    change(run, "patching_config.json", lambda config: config["experiments"][NAME].update(figures="bars"))
    yield run
    reset_plugins()


def test_a_plugins_module_adds_figures_tables_sentences_and_checks(run, tmp_path):
    add_plugin(tmp_path / "mine.py")
    results = Results(run)
    summarise(results, NAME)
    assert pd.read_csv(run / f"bars_{NAME}.csv")["n"].tolist() == [6]
    assert {f"flip_rate_curve_{NAME}", f"bars_{NAME}"} <= set(charts_of(results, NAME))
    page = Page(write_report(run))
    assert f'id="figure-bars_{NAME}"' in page.source and "Bars of pairs" in page.text
    for text in ("A sentence of mine.", "A simplification of mine.", "A limit of mine.", f"bars_{NAME}"):
        assert text in page.text, text
    assert light(page, "A check of mine") == "failed"


def test_without_the_plugin_the_common_figures_are_drawn_and_the_report_says_what_is_missing(run):
    assert f"flip_rate_curve_{NAME}" in charts_of(Results(run), NAME)
    page = Page(write_report(run))
    assert light(page, "The figures of the experiment alone are there") == "note"
    assert "because the experiment mine is not known here; name its file with --plugin" in page.text


def test_a_mistake_in_the_module_is_one_line_with_its_place(run, tmp_path):
    add_plugin(tmp_path / "mine.py")
    (tmp_path / "bars.py").write_text("def charts(results, experiment):\n    return experiment.nothing\n")
    with pytest.raises(UserError, match=r"bars.py:2: charts failed \(AttributeError: .*nothing"):
        charts_of(Results(run), NAME)
