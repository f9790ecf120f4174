"""The methods text fits into a paper, whatever a run holds, and is true of each kind of experiment."""

import json
import re

import pytest

from interventions import catalogue
from tests.analysis.made_run import change, make_run, write_lines
from voicepatch.analysis.results import Results
from voicepatch.analysis.words_and_voice import NOT_SHOWN, headline
from voicepatch.report.experiments import Run
from voicepatch.report.methods import MOST_WORDS, PAST, in_past, methods

MAINS = ("prosody", "semantic")
EVERY = [f"{name}-{kind}" for name in catalogue() if name not in ("patch", "need") for kind in MAINS]


WINDOW = {"k": 9, "band": "from", "source": "span", "readers": "after"}


def with_windows(run):
    """A made run whose knock-outs have the options that a real run stores."""

    def set_options(config):
        for name, settings in config["experiments"].items():
            settings["options"] = WINDOW if name.startswith("knockout") else settings["options"]

    change(run, "patching_config.json", set_options)
    return run


def text_of(run):
    results = Results(run)  # the text needs no figures
    experiments = sorted(results.valid, key=lambda one: not one.is_main)
    return methods(Run(results, experiments, figures={}, tables={}, answer=[], unpatched=[], natural=[], datasets={}))


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
    found = headline(Results(large))
    assert NOT_SHOWN not in text  # no result, so no part of a paper
    for expected in (
        *(in_past(line.partition(", in these")[0]) for line in found if NOT_SHOWN not in line),
        *("toy (4 decoder layers)", "synthetic-clips (150 clips)", "12 prosody pairs", "12 semantic pairs", "seed 42"),
        *("all 4 layers", "nnsight 0.8.1", "attribution (estimates)"),
    ):
        assert expected in text, expected


def test_it_says_what_the_knock_out_did_and_names_the_texts_once(tmp_path):
    run = make_run(tmp_path / "run", ("prosody", "need-prosody", "random-prosody", "heads-prosody"), n_pairs=12)
    text = text_of(run)
    assert "the positions after the audio span could not attend to it" in text and text.count(" in these ") <= 1


def test_it_says_how_the_differences_of_the_headline_were_tested(run_of_two_kinds):
    text = text_of(run_of_two_kinds)
    assert "leaving out each text with all its pairs" in text and "p = " in text and len(text.split()) <= MOST_WORDS


def test_it_is_in_the_past_tense(large):
    words = re.sub("“.*?”", "", text_of(large)).split()  # without the question
    assert not {*PAST} & {*words}
    assert in_past("B's voice overrides it, as need-prosody does.") == "B's voice overrode it, as need-prosody did."


def test_it_uses_no_names_of_columns(large):
    assert not re.search(r"\w_\w", text_of(large))


def test_few_experiments_are_described_in_their_own_words_with_their_outcomes(tmp_path):
    text = text_of(make_run(tmp_path / "run", ("prosody", "random-prosody"), n_pairs=12))
    assert "As a control, a random clip was the donor: another text" in text and "eligible pairs" in text
    assert "B's voice overrode A's answer until layer" in text and "fell below the middle" in text


@pytest.mark.parametrize("name", ["knockout", "noise"])
def test_an_experiment_that_patches_no_donor_is_not_called_patching(tmp_path, name):
    text = text_of(with_windows(make_run(tmp_path / "run", (f"{name}-prosody",), n_pairs=6)))
    assert text.startswith("We studied toy") and "patching" not in text and "donor B" not in text
    assert f"{name}-prosody" not in text and "nnsight 0.8.1" in text
    assert "The clips, each called A, were those of prosody pairs (same words, another voice), drawn at random" in text


def test_without_a_main_experiment_each_experiment_is_described_with_its_outcome(tmp_path):
    run = make_run(tmp_path / "run", ("knockout-prosody", "knockout-semantic"), n_pairs=6)
    text = text_of(with_windows(run))
    assert text.count("could not attend to it at 9 consecutive layers") == 1  # for both kinds
    assert "In prosody pairs, A's answer changed in" in text and "In semantic pairs, A's answer changed in" in text
    assert "Warning" not in text and "Further experiments" not in text and len(text.split()) <= MOST_WORDS


def test_an_instruction_alone_has_its_finding_in_the_past(tmp_path):
    text = text_of(make_run(tmp_path / "run", ("instruction-prosody",), n_pairs=6))
    assert "answered the two questions differently in" in text and "Warning" not in text


@pytest.mark.parametrize("others", [(), ("random-prosody", "heads-prosody", "noise-prosody", "knockout-prosody")])
def test_the_knock_out_of_the_headline_and_the_number_of_pairs_tried_stay_where_there_is_little_room(tmp_path, others):
    run = make_run(tmp_path / "run", ("prosody", "semantic", "need-prosody", "need-semantic", *others), n_pairs=12)
    change(run, "patching_config.json", lambda config: config["experiments"]["prosody"].update(only="answered"))
    counts = {"tried": 36, "passed": 12, "a_did_not": 8, "b_did_not": 8, "neither_did": 8, "no_answer": 0}
    change(run, "pair_construction_report.json", lambda report: report["prosody"].update(answered=counts))
    text = text_of(run)
    assert "To measure need, the positions after the audio span could not attend to it from the layer on" in text
    assert "of 36 tried" in text and "12 of prosody pairs and 12 of semantic pairs" in text
    assert len(text.split()) <= MOST_WORDS
