"""An option cannot have the name of a column of a run's tables, and with any other name it changes none of them."""

import shutil

import pandas as pd
import pytest

from tests.analysis.test_charts import make_run, sweep
from voicepatch.analysis.metrics import BUILT_IN, METRICS, reserved
from voicepatch.analysis.results import Results
from voicepatch.analysis.tables import all_tables
from voicepatch.errors import UserError
from voicepatch.figures import figure_style
from voicepatch.figures.charts import charts_of
from voicepatch.registry.intervention import intervention
from voicepatch.registry.options import FIRST

NAME = "random-prosody"
LINES, MAP = (1, 2, 30), (3, 1, 2, 30, 4, 5, 10)  # values of a sweep that is drawn as lines, or as a map


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(figure_style, "save", lambda chart, path: [])
        return make_run(tmp_path_factory.mktemp("runs") / "run", control=True)


@pytest.fixture
def swept(made, tmp_path):
    """The results of the run with an option of that name swept in one of its experiments."""

    def results(option, values=LINES):
        run = shutil.copytree(made, tmp_path / option, dirs_exist_ok=True)
        sweep(run, [{option: value} for value in values], [option])
        return Results(run)

    return results


def everything_of(results):
    """Metrics, the report's tables and the figures' data of the experiment, as text."""
    one = results.experiment(NAME)
    tables = all_tables(one.records, one.pairs, one.swept)
    figures = [list(chart.to_dict(validate=False)["datasets"].values()) for chart in charts_of(results, NAME).values()]
    return "\n".join([one.metrics.to_csv(), *(title + table.to_csv() for title, table in tables.items()), str(figures)])


def columns_of(table):
    return {str(name) for name in (*table.columns, *table.index.names)}


def names_there(results):
    """The names of all columns of the run's files, of the tables made from them, and of the figures' data."""
    one = results.experiment(NAME)
    tables = [one.records, one.pairs, one.metrics, *all_tables(one.records, one.pairs, one.swept).values()]
    names = set().union(*map(columns_of, [*tables, *map(pd.read_csv, results.run.glob("*.csv"))]))
    for name in results.names:
        for chart in charts_of(results, name).values():
            names |= {key for rows in chart.to_dict(validate=False)["datasets"].values() for row in rows for key in row}
    return {name for name in names if name.isidentifier()} - {"None", "idea"}


def test_every_column_of_records_pairs_and_metrics_is_reserved(swept):
    results = swept("idea")
    experiment = results.experiment(NAME)
    for table in (experiment.records, experiment.pairs, experiment.metrics):
        assert columns_of(table) - {"None", "idea"} <= reserved()
    assert {one.name for one in BUILT_IN} <= reserved()
    assert {*METRICS} <= columns_of(experiment.metrics)


@pytest.mark.parametrize("values", [LINES, MAP], ids=["lines", "map"])
def test_an_option_with_the_name_of_any_other_column_of_any_table_changes_nothing(swept, values):
    results = swept("idea", values)
    expected = everything_of(results)
    candidates = {*names_there(results), "size", "sum"} - reserved()
    assert {"n", "value", "low"} <= candidates
    # A map has a table of its own, with few columns.
    for name in sorted(candidates if values == LINES else {"n", "name", "value"}):
        assert everything_of(swept(name, values)) == expected.replace("idea", name), name


@pytest.mark.parametrize("name", sorted(reserved() - {*FIRST}))
def test_a_reserved_name_is_refused_before_anything_runs(name):
    text = f"def idea(lm, pair, layer, {name}=1): pass"
    space = {}
    exec(text, space)
    with pytest.raises(UserError, match=f"the option {name} of idea has the name of a column"):
        intervention(space["idea"])
