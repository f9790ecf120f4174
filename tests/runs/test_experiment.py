"""One experiment from its pairs to its records, and several in one command."""

from dataclasses import replace

from interventions import load_intervention
from pairs import build_pairs
from voicepatch.runs import executor
from voicepatch.runs.executor import LocalExecutor
from voicepatch.runs.experiment import refuse_other_settings, run_experiment
from voicepatch.store.directory import RunDir
from voicepatch.types import dataset as dataset_module
from voicepatch.types.settings import Settings


def test_the_checks_on_clips_are_made_once_for_all_experiments_of_a_command(small, demo_data, tmp_path, monkeypatch):
    made, run_checks = [], executor.run_checks
    monkeypatch.setattr(executor, "run_checks", lambda *args: made.append(args[4]) or run_checks(*args))
    sample, run, here = build_pairs(demo_data.clips, "prosody", 2), RunDir(tmp_path), LocalExecutor(small)
    for name, layers in (("patch", (0,)), ("suffix", (0,)), ("suffix", (1, 2))):
        settings = Settings("prosody", max_pairs=2, layers=layers, overwrite=True)
        run_experiment(here, demo_data, run, load_intervention(name), sample, settings)
    assert list(map(list, made)) == [[0], [1, 2]]


def test_the_data_are_hashed_once_for_all_experiments_of_a_command(small, demo_data, tmp_path, monkeypatch):
    hashed, file_hash = [], dataset_module.file_hash
    monkeypatch.setattr(dataset_module, "file_hash", lambda path: hashed.append(path) or file_hash(path))
    data, run = replace(demo_data), RunDir(tmp_path)  # one of which no hash is known
    sample, settings = build_pairs(data.clips, "prosody", 2), Settings("prosody", max_pairs=2, layers=(0,))
    for name in ("patch", "suffix"):
        run.check({"data": dataset_module.dataset_identity(data)})
        refuse_other_settings(run, load_intervention(name), settings)
        run_experiment(LocalExecutor(small), data, run, load_intervention(name), sample, settings)
    assert sorted(hashed) == sorted(clip.path for clip in data.clips)
