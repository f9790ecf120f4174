"""B's own rate against chance, and what the report says first where it is not above it."""

import random
import shutil

import numpy as np
import pytest

from tests.analysis.made_run import Page, light, make_run, records_of, write_lines, write_report
from tests.commands import rows as read_lines
from voicepatch.analysis.behaviour import Behaviour, behaviour, unpatched_of, warnings
from voicepatch.analysis.results import Results

NAME = "B&#39;s own rate is above chance in prosody pairs"
FLOOR = "The model is not shown to do the task above chance, so a low prosody curve says nothing about the layers"


@pytest.fixture(scope="module")
def able(tmp_path_factory):
    """A run whose donors all answer with their voice."""
    return make_run(tmp_path_factory.mktemp("able") / "run", n_pairs=20)


@pytest.fixture(scope="module")
def unable(able, tmp_path_factory):
    """The same run, but each clip answers with the label of its words, which A and B of a prosody pair share."""
    run = shutil.copytree(able, tmp_path_factory.mktemp("unable") / "run")
    records = []
    for row in read_lines(run / "pair_list_prosody.jsonl"):
        voices = {f"prosody_label_{side}": row[f"semantic_label_{side}"] for side in "ab"}
        made = records_of(row | voices, 4, random.Random(0))
        records += [record | {"prosody_label_b": row["prosody_label_b"]} for record in made]
    write_lines(run / "patching_records_prosody.jsonl", records)
    return run


def test_bs_own_rate_is_that_of_the_pairs_not_of_the_records(unable):
    found = behaviour(Results(unable), "prosody")
    pairs = read_lines(unable / "pair_list_prosody.jsonl")
    assert found.rate == np.mean([pair["target"] == pair["semantic_label_b"] for pair in pairs]) and len(pairs) == 20
    assert found.chance == 1 / 5 and found.low < found.rate < found.high
    assert behaviour(Results(unable), "semantic") is None


def test_a_rate_is_above_chance_where_its_lower_limit_is():
    def is_above(low):
        return Behaviour("prosody", 0.5, low, 0.8, 0.2, 30).is_above_chance

    assert is_above(0.21) and not is_above(0.2) and not is_above(0.1) and not is_above(np.nan)


def test_a_rate_without_an_interval_says_why():
    text = Behaviour("prosody", 1.0, np.nan, np.nan, 0.2, 30).check.text
    assert "there is no interval, since these pairs have one text" in text and FLOOR in text


def test_where_it_is_not_above_chance_this_is_the_first_line_of_the_report(unable):
    assert len(warnings(Results(unable))) == 1
    page = Page(write_report(unable))
    assert light(page, NAME) == "note"
    content = page.source.partition('<main id="content">')[2].partition("</noscript>")[2]
    assert content.lstrip().startswith('<p class="caution">B, unpatched, answers with the target in')
    assert FLOOR in content.partition("</p>")[0]


def test_where_it_is_there_is_no_warning(able):
    assert warnings(Results(able)) == []
    page = Page(write_report(able))
    assert light(page, NAME) == "passed" and FLOOR not in page.text


def test_what_the_clips_of_the_pairs_answer_is_shown_without_the_command_answers(able):
    found = unpatched_of(Results(able))
    conflict = found.table[(found.table["text_type"] == "all") & (found.table["congruence"] == "conflict")]
    assert conflict.set_index("follows")["share"].to_dict() == {"voice": 1, "words": 0, "neither": 0}
    page = Page(write_report(able))
    assert f"What the unpatched answers follow: {found.of}" in page.text and "clips of the prosody pairs" in found.of
    assert "figure-answers" in page.source
