"""Runs on which something else is tried than what they compute."""

import pytest

from tests.robust.victim import COMMAND, Victims


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
