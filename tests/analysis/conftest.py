"""A made run with both kinds of pairs, and a copy of it for each test that changes it."""

import shutil

import pytest

from tests.analysis.made_kinds import make_both_kinds


@pytest.fixture(scope="session")
def two_kinds(tmp_path_factory):
    return make_both_kinds(tmp_path_factory.mktemp("both") / "run", later=2.0)


@pytest.fixture
def run_of_two_kinds(two_kinds, tmp_path):
    return shutil.copytree(two_kinds, tmp_path / "run")
