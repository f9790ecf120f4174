"""The commands under “Reproduce” make the same records when they are pasted."""

import shlex

from tests.commands import FEW, NO_FIGURES, call
from voicepatch.analysis.results import Results
from voicepatch.paths import ROOT
from voicepatch.registry.catalogue import reset_plugins
from voicepatch.report.experiments import read_run
from voicepatch.report.reproduce import commands

METRIC = """from voicepatch import metric

@metric
def margin(records):
    return records["delta_logit_target"]
"""


def test_pasted_commands_give_the_same_records(tmp_path, monkeypatch):
    """With a plugin, a task's file, a folder that needs quotes, a dose, positions, layers, and what `confirm` chose."""
    folder = tmp_path / "a folder; of $mine"
    folder.mkdir()
    (folder / "margin.py").write_text(METRIC)
    task = (ROOT / "tasks" / "emotion.yaml").read_text().replace("name: emotion", "name: mine")
    (folder / "mine.yaml").write_text(task.replace("question: What", "question: Say, what"))
    selected = ("--where", "b.prosody_label=happy,sad", "--where", "text_type=implicit,explicit")
    files = ("--plugin", folder / "margin.py", "--task", folder / "mine.yaml")
    shared = ("--out", tmp_path / "run", *files, *FEW, *selected)
    call("patch", "--kind", "prosody", "--no-need", "--seed", "7", "--at", "after", *shared, NO_FIGURES)
    call("patch", "--kind", "semantic", "--alpha", "0.5,1", "--layers", "0,2-3", "--any-speaker", *shared, NO_FIGURES)
    call("control", "--kind", "suffix", *shared, NO_FIGURES)
    call("attribution", "--pairs", "prosody", *shared, "--seed", "7", NO_FIGURES)
    call("confirm", tmp_path / "run", "--top", "2", *shared[2:], NO_FIGURES)
    lines = commands(read_run(Results(tmp_path / "run")))
    assert len(lines) == 5 and "--device" not in " ".join(lines) and not any("MODEL" in line for line in lines)
    assert "--no-need" in lines[0] and "--no-need" not in lines[1] and "--at after" in lines[0]
    assert all(option not in " ".join(lines) for option in ("--align", "--k ", "--max-seconds"))
    monkeypatch.chdir(tmp_path)
    for line in lines:
        program, script, *words = shlex.split(line)
        assert (program, script) == ("python", "cli.py")
        reset_plugins()  # as in a process of its own
        call(*words, NO_FIGURES)
    again = tmp_path / "results" / "again"
    made = sorted(path.name for path in (tmp_path / "run").glob("patching_records_*.jsonl"))
    assert made == sorted(path.name for path in again.glob("patching_records_*.jsonl")) and len(made) == 6
    for name in made:
        assert (tmp_path / "run" / name).read_bytes() == (again / name).read_bytes(), name
