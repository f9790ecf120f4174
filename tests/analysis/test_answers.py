"""What unpatched answers follow: shares, chance and intervals of tables made by hand."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from voicepatch.analysis.answers import what_answers_follow
from voicepatch.report.answers import verdict
from voicepatch.types.task import default_task

LABELS = default_task().labels


def clips(*rows, **columns):
    """A clip for each (text_id, words, voice, answer)."""
    table = pd.DataFrame(rows, columns=["text_id", "semantic_label", "prosody_label", "answer"])
    return table.assign(clip_id=[f"c{i:02}" for i in range(len(rows))], **columns)


def cell(table, *names):
    found = table.set_index(["text_type", "congruence", "follows"]).loc[names]
    return found


def test_each_answer_follows_the_voice_the_words_both_or_neither():
    table = what_answers_follow(
        clips(
            ("a", "sad", "happy", "happy"),
            ("b", "sad", "happy", "sad"),
            ("c", "sad", "happy", "sad"),
            ("d", "sad", "happy", "angry"),
            ("e", "sad", "sad", "sad"),
            ("f", "sad", "sad", "happy"),
        ),
        LABELS,
    )
    shares = {tuple(row[:2]): row[2] for row in table[["congruence", "follows", "share"]].itertuples(index=False)}
    assert shares == {
        ("conflict", "voice"): 0.25,
        ("conflict", "words"): 0.5,
        ("conflict", "neither"): 0.25,
        ("congruent", "both"): 0.5,
        ("congruent", "neither"): 0.5,
    }
    assert table["chance"].tolist() == pytest.approx([0.2, 0.2, 0.6, 0.2, 0.8])
    assert table["n_clips"].tolist() == [4, 4, 4, 2, 2] and set(table["text_type"]) == {"all"}


def test_each_type_of_text_has_its_own_shares_and_only_its_own_clips_count():
    rows = [("a", "sad", "happy", "happy"), ("b", "sad", "happy", "sad"), ("c", "sad", "happy", "sad")]
    table = what_answers_follow(clips(*rows, text_type=["implicit", "explicit", "explicit"]), LABELS)
    assert cell(table, "implicit", "conflict", "voice")[["share", "n_clips"]].tolist() == [1, 1]
    assert cell(table, "explicit", "conflict", "words")[["share", "n_clips"]].tolist() == [1, 2]
    assert cell(table, "all", "conflict", "words")["share"] == pytest.approx(2 / 3)


def test_a_task_without_labels_of_the_words_has_the_voice_alone():
    table = what_answers_follow(clips(("a", None, "sad", "sad"), ("b", None, "sad", "happy")), ("happy", "sad"))
    assert table[["congruence", "follows", "share", "chance"]].to_numpy().tolist() == [
        ["", "voice", 0.5, 0.5],
        ["", "neither", 0.5, 0.5],
    ]


def wilson(p, n, t):
    middle, reach = (
        (p + t**2 / (2 * n)) / (1 + t**2 / n),
        t / (1 + t**2 / n) * np.sqrt(p * (1 - p) / n + (t / (2 * n)) ** 2),
    )
    return middle - reach, middle + reach


def test_with_one_clip_a_text_the_interval_is_wilsons():
    rows = [(f"t{i}", "sad", "happy", "happy" if i < 12 else "sad") for i in range(40)]
    found = cell(what_answers_follow(clips(*rows), LABELS), "all", "conflict", "voice")
    assert found[["share_low", "share_high"]].tolist() == pytest.approx(
        wilson(0.3, 40, stats.t(39).ppf(0.975)), abs=0.02
    )


def test_clips_of_one_text_that_have_the_same_answer_count_as_one():
    once = [(f"t{i}", "sad", "happy", "happy" if i < 12 else "sad") for i in range(40)]
    one, four = (
        cell(what_answers_follow(clips(*rows), LABELS), "all", "conflict", "voice") for rows in (once, 4 * once)
    )
    assert four["n_clips"] == 160 and four["n_texts"] == one["n_texts"] == 40
    assert four[["share_low", "share_high"]].tolist() == pytest.approx(
        one[["share_low", "share_high"]].tolist(), abs=0.005
    )


def test_the_verdict_names_what_is_above_chance_with_its_interval_and_what_is_not():
    of_words = [(str(text), "sad", "happy", "sad") for text in range(20)]
    said = verdict(what_answers_follow(clips(*of_words, text_type="explicit"), LABELS))
    assert re.match(
        r"The unpatched model gives the words' label more often than by chance \(20%\)\. This is not shown for the "
        r"voice's label\. Of 20 clips whose words and voice differ: the voice's label in 0\.0% \(.*\), the words' "
        r"label in 100\.0% \(95 % interval 8\d\.\d% to 100\.0%\)\.",
        said,
    )
    assert said.endswith("these labels are above chance: in explicit texts the words' label.")
    one = verdict(what_answers_follow(clips(("a", "sad", "sad", "sad")), LABELS))
    assert one.startswith("The model is not shown to do the task above chance (20%). Of 1 clip whose words and voice")
    assert "the label of both in 100% (no interval)" in one
