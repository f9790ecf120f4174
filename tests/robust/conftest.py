"""Runs on which something else is tried than what they compute."""

import pytest

from tests.robust.victim import COMMAND, Victims
from tests.unpainted import without_figures


@pytest.fixture(scope="session")
def victims():
    with Victims() as victims:
        yield victims


@pytest.fixture(scope="session")
def calm(victims, tmp_path_factory):
    """A run of COMMAND that nothing disturbed, without figures."""
    out = tmp_path_factory.mktemp("calm") / "run"
    assert victims.run(*COMMAND, out=out) == 0
    return out


@pytest.fixture(scope="module")
def few_checks():
    """The checks before a run are made on one clip and one pair."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runs.gates.N_CHECK_CLIPS", 1)
        patch.setattr("runs.checks.N_ENGINE_PAIRS", 1)
        yield


@pytest.fixture(scope="module")
def no_figures():
    """A run ends with its records: no metrics, figures and report follow."""
    with without_figures():
        yield


@pytest.fixture
def blank_figures(monkeypatch):
    """Figures are written as always, with nothing drawn in them."""

    def save(chart, file, **_):
        file.write('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>')

    monkeypatch.setattr("altair.TopLevelMixin.save", save)
