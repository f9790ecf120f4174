"""A run of five pairs, a copy to be damaged, which each test restores, and the names of what is drawn."""

import shutil

import pytest

from tests.analysis.made_run import change, engine_found, lose, make_run, planted_found, sounds_found, write_json
from tests.robust.damaged_run.damage import FILES, rewritten
from voicepatch.types.check import Check, as_stored


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """A run of five pairs at two layers, two of which have failed."""
    run = make_run(tmp_path_factory.mktemp("runs") / "run", n_pairs=5, n_layers=2)
    write_json(run / "sanity_check_engine.json", {"prosody": engine_found()})
    write_json(run / "sanity_check_sounds.json", {"prosody": sounds_found([("bad", "é")], silent=["quiet"])})
    write_json(run / "sanity_check_planted.json", planted_found())
    write_json(run / "sanity_check_natural.json", as_stored([Check("Natural states", True, "5% lie outside")]))
    change(run, "sanity_check_engine.json", lambda found: found["prosody"].update(differing_predictions=[DIFFERING]))
    lose(run, pairs=(1, 3))
    change(run, "patching_config.json", lambda c: c["experiments"]["prosody"].update(n_pairs=5, n_failed=2))
    change(run, "patching_config.json", lambda c: c["model"].update(name="modèle"))
    return run


DIFFERING = {"pair_id": "p", "row": 2, "stepwise_margin": 4e-4}


@pytest.fixture(scope="module")
def run(intact, tmp_path_factory):
    """The run to be damaged; whoever does restores it."""
    return shutil.copytree(intact, tmp_path_factory.mktemp("damaged") / "run")


@pytest.fixture
def drawn(monkeypatch):
    """Names of the experiments that were summarised, and "report"; nothing is drawn."""
    names = []
    monkeypatch.setattr("voicepatch.commandline.showing.summary", lambda results, name: names.append(name))
    monkeypatch.setattr("voicepatch.commandline.showing.report", lambda *_: names.append("report"))
    return names


@pytest.fixture(autouse=True)
def restored(run, intact):
    yield
    for file in FILES:
        rewritten(run, intact, file, (intact / file).read_bytes())
