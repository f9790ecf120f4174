"""Runs on which something else is tried than what they compute."""

import pytest


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cli._summarise", lambda *_: None)
        patch.setattr("cli._report", lambda *_: None)
        yield


@pytest.fixture
def blank_figures(monkeypatch):
    """Figures are written as always, with nothing drawn in them."""

    def save(chart, file, format, **_):
        file.write(b"PNG" if format == "png" else '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>')

    monkeypatch.setattr("altair.TopLevelMixin.save", save)
