"""Where the machine or a limit lacks something, one line says what, for what, and what needs less."""

import errno
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cli import cli
from tests.analysis.made_run import make_run
from voicepatch.paths import ROOT

resource = pytest.importorskip("resource")


def fails(*words, status=1):
    """The one line of a command that ends with `status`."""
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == status, result.output + repr(result.exception)
    assert "a bug in the program" not in result.output and "Traceback" not in result.output
    return result.output.strip().splitlines()[-1]


def limited(*words, **limits):
    """The program itself, in a process with limits."""

    def limit():
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, name), (value, value))

    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, preexec_fn=limit, capture_output=True, text=True)


# --- memory and threads, as libraries say that they lack them


def of_torch():
    return torch.empty(2**60, dtype=torch.uint8)


def of_numpy():
    return np.empty((2**20, 3 * 2**20))


def of_python():
    return bytearray(2**62)


def of_the_system():
    return mmap.mmap(-1, 2**62)


@pytest.mark.parametrize(
    ("allocate", "needed"),
    [
        (of_torch, ", 1,099,511,627,776 MiB more were needed"),
        (of_numpy, ", 24.0 TiB more were needed"),
        (of_python, ""),
        (of_the_system, ""),
    ],
)
def test_a_lack_of_memory_says_how_much_and_what_needs_less(monkeypatch, tmp_path, allocate, needed):
    monkeypatch.setattr("voicepatch.commandline.running.load_data", lambda options: allocate())
    line = fails("patch", "--no-need", "--kind", "prosody", "--out", tmp_path / "run")
    assert line.startswith(f"error: out of memory{needed}; --store-mb 0, --max-rows 1")
    assert "ulimit -v" in line


def test_a_lack_of_threads_files_and_a_home_is_one_line(monkeypatch, tmp_path):
    for error, words in [
        (RuntimeError("can't start new thread"), ("no more threads: ", "OMP_NUM_THREADS=1")),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "x"), ("too many open files", "ulimit -n 1024")),
        (RuntimeError("Could not determine home directory."), ("no home directory is known", "set HOME")),
    ]:

        def raising(options, error=error):
            raise error

        monkeypatch.setattr("voicepatch.commandline.running.load_data", raising)
        line = fails("patch", "--no-need", "--kind", "prosody", "--out", tmp_path / "run")
        assert all(word in line for word in words), line


def test_rows_that_do_not_fit_python_s_memory_are_done_in_parts(demo, demo_data, monkeypatch):
    from interventions import load_intervention
    from pairs import build_pairs
    from voicepatch.runs.pair_loop import run_pairs

    pairs = build_pairs(demo_data.clips, "prosody", max_pairs=1).pairs
    patch, said, layers = load_intervention("patch"), [], range(demo.engine.n_layers)
    (whole,) = run_pairs(demo, patch, pairs, layers=layers)
    readouts, fails = type(demo.engine).readouts, [MemoryError()]

    def short(*args):
        if fails:
            raise fails.pop()
        return readouts(*args)

    monkeypatch.setattr(type(demo.engine), "readouts", short)
    monkeypatch.setattr(demo.engine, "max_rows", None)
    (parts,) = run_pairs(demo, patch, pairs, layers=layers, log=said.append)
    assert [row["pred_patch"] for row in parts] == [row["pred_patch"] for row in whole]
    assert any("out of memory: at most" in line for line in said)


# --- limits on the process itself


def test_too_few_open_files_are_refused_before_anything_runs():
    ended = limited("cli.py", "list", RLIMIT_NOFILE=16)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "error: only 16 files may be open at once, and 64 are needed; `ulimit -n 1024` allows more\n"


def test_without_docstrings_it_is_refused_in_a_line():
    ended = limited("-OO", "cli.py", "--help")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert (
        ended.stderr == "error: python -OO leaves out docstrings, which transformers and the help need; use python -O\n"
    )
    assert limited("-O", "cli.py", "--help").returncode == 0


def test_under_a_limit_of_addresses_a_run_has_its_report_and_no_drawn_figures(tmp_path):
    """V8 would end the process with signal 5 and a dump of its stack."""
    make_run(tmp_path / "run")
    ended = limited("cli.py", "report", tmp_path / "run", RLIMIT_AS=16 * 2**30)
    assert ended.returncode == 0, ended.stderr
    assert "figures are not written as PNG and SVG" in ended.stderr and "ulimit -v" in ended.stderr
    assert "vegaEmbed" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "run" / "patching_metrics_prosody.csv").exists()
    assert not list(tmp_path.glob("run/*.png")) and not list(tmp_path.glob("run/*.svg"))


# --- an output that takes nothing


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("words", [("--help",), ("patch", "--help"), ("list",), ("corpora",)])
def test_an_output_that_is_full_is_one_line(words):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "cli.py", *words]
        ended = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "cannot be written (No space left on device)" in line


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder in which nobody may write")
def test_bench_says_before_it_measures_that_it_cannot_write(monkeypatch, tmp_path):
    monkeypatch.setattr("voicepatch.engine.bench.run_bench", lambda *_: 1 / 0)
    monkeypatch.setattr("voicepatch.engine.bench_case.make_case", lambda **_: 1 / 0)
    assert "/proc/figures.json" in fails("bench", "--json", "/proc/figures.json")
    monkeypatch.setattr("voicepatch.engine.bench_case.make_case", lambda **_: None)
    monkeypatch.setattr("voicepatch.engine.bench.run_bench", lambda *_: {})
    monkeypatch.setattr("voicepatch.engine.bench.bench_table", lambda _: "")
    assert CliRunner().invoke(cli, ["bench", "--json", str(tmp_path / "figures.json")]).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
