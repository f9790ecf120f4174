"""A damaged experiment beside others, an unfinished one, and tables that were written before."""

import json

import pytest
from click.testing import CliRunner

import cli
from tests.analysis.made_run import Page, change, make_run
from tests.robust.damaged_run.damage import report, rewritten, rows_of


@pytest.fixture
def two(tmp_path):
    run = make_run(tmp_path / "two", ("prosody", "semantic", "random-prosody"), n_pairs=4, n_layers=2)
    records = run / "patching_records_prosody.jsonl"
    lines = records.read_text(encoding="utf-8").splitlines(keepends=True)
    records.write_text("".join(lines[:3] + lines[2:]), encoding="utf-8", newline="\n")  # a line twice
    return run


def test_the_other_experiments_are_reported_and_the_status_is_1(two, monkeypatch):
    """One damaged experiment does not keep the others from their report."""
    names = []
    monkeypatch.setattr("voicepatch.commandline.showing.summary", lambda results, name: names.append(name))
    status, errors, _ = report(two)
    assert status == 1 and names == ["semantic", "random-prosody"]
    assert len(errors) == 1 and "line 4: is of pair" in errors[0]
    page = Page(two / "report.html")
    assert "prosody cannot be shown" in page.text and "is expected" in page.text
    assert not any("_prosody" in stem and "random" not in stem for stem in page.data["figures-data"]["specs"])


def test_a_comparison_of_a_run_that_does_not_hold_together_is_an_error(two, tmp_path):
    result = CliRunner().invoke(cli.cli, ["compare", str(two), "--out", str(tmp_path / "compared")])
    assert result.exit_code == 1 and "line 4" in result.output.splitlines()[-1]
    assert not (tmp_path / "compared").exists()


def test_a_pair_list_in_another_order_than_the_records_is_an_error(two, drawn):
    file = "pair_list_random-prosody.jsonl"
    rows = rows_of(two, file)
    rows[0], rows[1] = rows[1], rows[0]
    (two / file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    _, errors, _ = report(two)
    assert len(errors) == 2 and "patching_records_random-prosody.jsonl: line 1: is of pair" in errors[1]


def test_tables_that_were_written_before_are_made_again_whatever_they_hold(tmp_path, monkeypatch):
    monkeypatch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
    run = make_run(tmp_path / "run", ("prosody", "random-prosody"), n_pairs=4, n_layers=2)
    assert report(run)[0] == 0
    written = [path for path in run.iterdir() if path.suffix == ".csv" or path.name.startswith("statistics")]
    before = {path: path.read_bytes() for path in written}
    assert len(before) == 6
    for path in written:
        path.write_bytes(b"\0\xff, no table\r\n")
    assert report(run)[0] == 0
    assert {path: path.read_bytes() for path in written} == before


def test_an_unfinished_experiment_is_reported_with_the_number_of_its_pairs(run, intact, drawn):
    change(run, "patching_config.json", lambda config: config["experiments"]["prosody"].update(finished=False))
    lines = (intact / "patching_records_prosody.jsonl").read_bytes().splitlines(keepends=True)
    rewritten(run, intact, "patching_records_prosody.jsonl", b"".join(lines[:3]) + lines[3][:40])
    status, errors, output = report(run)
    assert status == 0 and not errors and "prosody is not finished: 1 of 5 pairs are in" in output
