"""One experiment from its pairs to its records, and several in one command."""

from dataclasses import replace

from interventions import load_intervention
from pairs import build_pairs, clips
from runs import experiment
from runs.directory import RunDir
from runs.experiment import refuse_early, run_experiment
from runs.settings import Settings


def test_the_checks_on_clips_are_made_once_for_all_experiments_of_a_command(demo, demo_data, tmp_path, monkeypatch):
    made, run_checks = [], experiment.run_checks
    monkeypatch.setattr(experiment, "run_checks", lambda *args: made.append(args[4]) or run_checks(*args))
    sample, run, passed = build_pairs(demo_data.clips, "prosody", 2), RunDir(tmp_path), set()
    for name, layers in (("patch", (0,)), ("suffix", (0,)), ("suffix", (1, 2))):
        settings = Settings("prosody", max_pairs=2, layers=layers, overwrite=True)
        run_experiment(demo, demo_data, run, load_intervention(name), sample, settings, passed=passed)
    assert list(map(list, made)) == [[0], [1, 2]]


def test_the_data_are_hashed_once_for_all_experiments_of_a_command(demo, demo_data, tmp_path, monkeypatch):
    hashed, file_hash = [], clips.file_hash
    monkeypatch.setattr(clips, "file_hash", lambda path: hashed.append(path) or file_hash(path))
    data, run = replace(demo_data), RunDir(tmp_path)  # one of which no hash is known
    sample, settings = build_pairs(data.clips, "prosody", 2), Settings("prosody", max_pairs=2, layers=(0,))
    for name in ("patch", "suffix"):
        refuse_early(run, data, load_intervention(name), settings, {})
        run_experiment(demo, data, run, load_intervention(name), sample, settings)
    assert sorted(hashed) == sorted(clip.path for clip in data.clips)
