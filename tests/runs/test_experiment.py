"""One experiment from its pairs to its records, and several in one command."""

from interventions import load_intervention
from pairs import build_pairs
from runs import experiment
from runs.directory import RunDir
from runs.experiment import run_experiment
from runs.settings import Settings


def test_the_checks_on_clips_are_made_once_for_all_experiments_of_a_command(demo, demo_data, tmp_path, monkeypatch):
    made, run_checks = [], experiment.run_checks
    monkeypatch.setattr(experiment, "run_checks", lambda *args: made.append(args[4]) or run_checks(*args))
    sample, run, passed = build_pairs(demo_data.clips, "prosody", 2), RunDir(tmp_path), set()
    for name, layers in (("patch", (0,)), ("suffix", (0,)), ("suffix", (1, 2))):
        settings = Settings("prosody", max_pairs=2, layers=layers, overwrite=True)
        run_experiment(demo, demo_data, run, load_intervention(name), sample, settings, passed=passed)
    assert list(map(list, made)) == [[0], [1, 2]]
