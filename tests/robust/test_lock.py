"""Two processes do not write in one run directory, and one that is gone does not keep it."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import cli
from tests.analysis.made_run import make_run
from voicepatch import files
from voicepatch.analysis.results import Results
from voicepatch.errors import UserError
from voicepatch.store.lock import LOCK, NOTE, only_user

ROOT = Path(__file__).resolve().parents[2]
HOLD = "import sys; from pathlib import Path; from voicepatch.store.lock import only_user\n"
HOLD += "with only_user(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"


@pytest.fixture
def other(tmp_path):
    """Another process that uses `tmp_path / "run"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "in\n"
    yield process
    process.kill()
    process.communicate()


def note_of(folder, **holder):
    folder.mkdir(exist_ok=True)
    (folder / NOTE).write_text(json.dumps({"pid": os.getpid(), "since": "then"} | holder), encoding="utf-8")


def test_the_second_is_refused_and_told_who_is_there(other, tmp_path):
    with pytest.raises(UserError, match=f"in use by process {other.pid} on {platform.node()} since 20"):
        with only_user(tmp_path / "run"):
            pass
    assert (tmp_path / "run" / NOTE).exists()


def test_a_killed_process_keeps_nothing_and_its_half_written_files_go(other, tmp_path):
    half = tmp_path / "run" / f"report.html.{other.pid}.partial"
    half.write_text("<html", encoding="utf-8")
    other.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    other.wait()
    with only_user(tmp_path / "run"):
        assert not half.exists()
        assert json.loads((tmp_path / "run" / NOTE).read_text(encoding="utf-8"))["pid"] == os.getpid()


def test_what_a_report_is_writing_stays_when_a_run_starts(tmp_path, monkeypatch):
    """A report of the folder is half written while a command begins there; it must find its file again."""
    run, write = tmp_path / "run", files.os.fsync

    def begin(number):
        monkeypatch.setattr(files.os, "fsync", write)
        with only_user(run):
            pass
        write(number)

    run.mkdir()
    monkeypatch.setattr(files.os, "fsync", begin)
    assert files.write_whole(run / "report.html", "<html>").read_text(encoding="utf-8") == "<html>"
    assert [path.name for path in run.iterdir()] == ["report.html"]


@pytest.mark.parametrize(("hours", "stays"), [(0, True), (2, False)])
def test_what_another_machine_is_writing_stays_for_an_hour(tmp_path, hours, stays):
    half = tmp_path / "report.html.elsewhere.1.partial"
    half.write_text("<html", encoding="utf-8")
    then = time.time() - hours * 3600
    os.utime(half, (then, then))
    with only_user(tmp_path):
        assert half.exists() == stays


def test_a_report_of_what_is_being_written_says_so(other, tmp_path):
    """The note is there and no experiment: a run starts."""
    with pytest.raises(UserError, match=f"holds no experiment yet; process {other.pid} on .* is writing there"):
        Results(tmp_path / "run")
    other.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    other.wait()
    with pytest.raises(UserError, match="holds no experiment; name a run directory"):
        Results(tmp_path / "run")


def test_a_comparison_removes_what_a_killed_one_left(tmp_path):
    run, out = make_run(tmp_path / "run", n_pairs=4, n_layers=2), tmp_path / "out"
    out.mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    half = out / f"hand_over.csv.{platform.node()}.{gone.pid}.partial"
    half.write_text("run,ki", encoding="utf-8")
    words = ["compare", str(run), "--by", "prosody_label", "--out", str(out)]
    assert CliRunner().invoke(cli, words).exit_code == 0
    assert not half.exists() and (out / "hand_over.csv").exists() and not (out / NOTE).exists()


def test_a_process_id_that_another_program_has_now_keeps_nothing(tmp_path):
    note_of(tmp_path / "run", host=platform.node(), pid=os.getppid())
    with only_user(tmp_path / "run"):
        pass


def test_a_process_on_another_machine_is_not_taken_over_but_may_be_declared_gone(tmp_path):
    note_of(tmp_path / "run", host="elsewhere", pid=4711)
    with pytest.raises(UserError, match="process 4711 on elsewhere since then; where that process is gone, remove"):
        with only_user(tmp_path / "run"):
            pass
    (tmp_path / "run" / NOTE).unlink()
    with only_user(tmp_path / "run"):
        pass


def test_a_damaged_note_keeps_nobody_out(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / NOTE).write_text('{"pid"', encoding="utf-8")
    with only_user(tmp_path / "run"):
        pass


def test_it_leaves_no_trace(tmp_path):
    with only_user(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with only_user(tmp_path / "old"):
        assert {path.name for path in (tmp_path / "old").iterdir()} == {LOCK, NOTE}
    assert list((tmp_path / "old").iterdir()) == []


def test_it_is_given_back_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            with only_user(tmp_path / "run"):
                raise KeyboardInterrupt


@pytest.mark.parametrize(
    "words",
    [
        ("patch", "--no-need", "--kind", "prosody"),
        ("control", "--kind", "self"),
        ("check",),
        ("pairs", "--kind", "prosody"),
    ],
    ids=lambda words: words[0],
)
def test_every_command_that_writes_a_run_is_refused_before_it_loads_anything(other, tmp_path, words):
    result = CliRunner().invoke(cli, [*words, "--model", "no-such-model", "--out", str(tmp_path / "run")])
    assert result.exit_code == 1 and f"in use by process {other.pid}" in result.output.splitlines()[-1]


def test_a_report_is_made_beside_a_run_that_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "voicepatch.commandline.showing.summary", lambda *_: None
    )  # figures are read as they are; none are drawn for this
    run = make_run(tmp_path / "made")
    with only_user(run):
        result = CliRunner().invoke(cli, ["report", str(run)])
    assert result.exit_code == 0 and (run / "report.html").exists()


def test_a_report_that_was_overtaken_by_the_end_of_the_run_is_made_again(tmp_path, monkeypatch):
    run = make_run(tmp_path / "made")
    config = run / "patching_config.json"
    ended = json.loads(config.read_text(encoding="utf-8"))
    going_on = json.loads(config.read_text(encoding="utf-8"))
    going_on["experiments"]["prosody"]["finished"] = False
    config.write_text(json.dumps(going_on), encoding="utf-8")
    seen = []

    def end_meanwhile(*_):
        seen.append(json.loads(config.read_text(encoding="utf-8"))["experiments"]["prosody"]["finished"])
        config.write_text(json.dumps(ended), encoding="utf-8")

    monkeypatch.setattr("voicepatch.commandline.showing.summary", lambda *_: None)
    monkeypatch.setattr("voicepatch.commandline.showing.report", end_meanwhile)
    assert CliRunner().invoke(cli, ["report", str(run)]).exit_code == 0
    assert seen == [False, True]


def test_none_of_it_needs_what_only_posix_has():
    without = "import sys\nfor name in ('fcntl', 'resource', 'pwd', 'termios'): sys.modules[name] = None\n"
    without += "import signal; del signal.SIGHUP\n" if hasattr(signal, "SIGHUP") else ""
    without += "import cli, voicepatch.runs.interrupt as i, voicepatch.store.directory, voicepatch.report\n"
    without += "with i.stoppable(), i.after_this_pair(): pass"
    subprocess.run([sys.executable, "-c", without], cwd=ROOT, check=True)
