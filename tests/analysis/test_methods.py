"""The methods text fits into a paper, whatever a run holds, and is true of each kind of experiment."""

import json
import re

import pytest

from interventions import catalogue
from tests.analysis.made_run import change, make_run, write_lines
from voicepatch.analysis.results import Results
from voicepatch.analysis.words_and_voice import headline
from voicepatch.report.experiments import Run
from voicepatch.report.methods import MOST_WORDS, methods

MAINS = ("prosody", "semantic")
EVERY = [f"{name}-{kind}" for name in catalogue() if name not in ("patch", "need") for kind in MAINS]


def text_of(run):
    results = Results(run)  # the text needs no figures
    experiments = sorted(results.valid, key=lambda one: not one.is_main)
    return methods(Run(results, experiments, figures={}, tables={}, answer=[], unpatched=[], datasets={}))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A run with every experiment on both kinds of pairs."""
    run = make_run(tmp_path_factory.mktemp("large") / "run", (*MAINS, *EVERY), n_pairs=12, n_layers=4)
    for path in run.glob("patching_records_attribution-*.jsonl"):
        write_lines(path, [json.loads(line) | {"approximate": True} for line in path.read_text().splitlines()])
    return run


@pytest.mark.parametrize("question", ["Which emotion?", " ".join(["word"] * 300) + "?"])
def test_it_has_at_most_250_words_and_the_headline_of_a_run_with_every_experiment(large, question):
    change(large, "patching_config.json", lambda config: config["prompt"].update(user=question))
    text = text_of(large)
    assert len(text.split()) <= MOST_WORDS == 250 and (question in text) == (len(question) < 50)
    found = headline(Results(large), midpoints=False)
    assert not any(line in text for line in found if " is open: " in line)  # no result, so no part of a paper
    for expected in (
        *(line for line in found if " is open: " not in line),
        *("toy (4 decoder layers)", "synthetic-clips (150 clips)", "12 prosody pairs", "12 semantic pairs", "seed 42"),
        *("all 4 layers", "nnsight 0.8.1", "attribution-prosody (estimates)"),
    ):
        assert expected in text, expected


def test_it_says_how_the_differences_of_the_headline_were_tested(run_of_two_kinds):
    text = text_of(run_of_two_kinds)
    assert "leaving out each text with all its pairs" in text and "p = " in text and len(text.split()) <= MOST_WORDS


def test_it_uses_no_names_of_columns(large):
    assert not re.search(r"\w_\w", text_of(large))


def test_few_experiments_are_described_in_their_own_words_with_their_outcomes(tmp_path):
    text = text_of(make_run(tmp_path / "run", ("prosody", "random-prosody"), n_pairs=12))
    assert "random-prosody: A random clip is the donor: another text" in text and "eligible pairs" in text
    assert "B's voice overrides A's answer until layer" in text and "falls below the middle" in text


@pytest.mark.parametrize("name", ["knockout", "noise"])
def test_an_experiment_that_patches_no_donor_is_not_called_patching(tmp_path, name):
    text = text_of(make_run(tmp_path / "run", (f"{name}-prosody",), n_pairs=6))
    assert text.startswith("We studied toy") and "patching" not in text and "donor B" not in text
    assert f"{name}-prosody: " in text and "nnsight 0.8.1" in text
