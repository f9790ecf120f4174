"""The answer of a run in two sentences: on overriding, and on need."""

import json
import re

import pandas as pd
import pytest

from tests.analysis.made_run import Page, change, make_run, write_lines
from tests.commands import call
from voicepatch.analysis import words_and_voice
from voicepatch.analysis.contrasts import ALL, ELIGIBLE
from voicepatch.analysis.need import ANY, VOICE, WORDS
from voicepatch.analysis.results import Results
from voicepatch.report.answer import answer
from voicepatch.report.summary import summarise

STATISTICS = "statistics_prosody_vs_semantic.json"


def test_the_answer_is_the_reports_first_sentence_and_in_the_figures(run_of_two_kinds, monkeypatch):
    from voicepatch.figures.charts import charts_of
    from voicepatch.report import write_report

    monkeypatch.setattr("voicepatch.report.sounds_of", lambda *_: ({}, ""))
    monkeypatch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
    results = Results(run_of_two_kinds)
    summarise(results, "semantic")
    (sentence,) = words_and_voice.headline(results)
    whole = json.loads((run_of_two_kinds / STATISTICS).read_text())["contrast"][ALL]
    pairs = pd.concat(results.main(kind).pairs for kind in ("prosody", "semantic"))
    numbers = re.match(
        r"B's words stop overriding A's answer (\S+) layers \(95 % interval (\S+) to (\S+), p . (\S+)\) earlier than "
        rf"B's voice does, in these {len({*pairs['text_id_a'], *pairs['text_id_b']})} texts",
        sentence,
    ).groups()
    expected = [whole[key] for key in ("difference", "low", "high")]
    assert [float(number) for number in numbers[:3]] == pytest.approx(expected, abs=0.05)
    assert float(numbers[3]) == pytest.approx(whole["p"], abs=0.005)
    summarise(results, "prosody")
    areas = [
        json.loads((run_of_two_kinds / f"statistics_{kind}.json").read_text())["area"]
        for kind in ("prosody", "semantic")
    ]
    assert areas[0]["area"] - areas[1]["area"] == pytest.approx(whole["difference"])
    assert all(of["low"] < of["area"] < of["high"] and of["reason"] is None for of in areas)
    assert len({len(number.partition(".")[2]) for number in numbers[:3]}) == 1
    page = Page(write_report(results))
    meaning, asked = words_and_voice.what_p_means(results), "Until which decoder layer of toy can another voice"
    assert page.text.index(sentence) < page.text.index(meaning) < page.text.index(asked)
    assert "Difference from semantic, by layer" in page.text
    charts = charts_of(results, "semantic")
    for stem in ("prosody_and_semantic", "contrast_prosody_vs_semantic"):
        assert sentence in "".join(charts[stem].to_dict()["usermeta"]["notes"]), stem
    table = pd.read_csv(run_of_two_kinds / "contrast_prosody_vs_semantic.csv")
    assert table.groupby("pairs")["layer"].apply(list).to_dict() == {ALL: list(range(8)), ELIGIBLE: list(range(8))}


OF_TWO = pd.DataFrame({"text_id_a": ["1", "2"], "text_id_b": ["2", "1"], "speaker_a": "f", "speaker_b": ["f", "m"]})
IN_TWO = "in these 2 texts and 2 speakers"


def difference(value, low, high, p, reason=None):
    return {"difference": value, "low": low, "high": high, "p": p, "reason": reason}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            (0.5, 0.1, 0.9, 0.017),
            "B's words stop overriding A's answer 0.50 layers (95 % interval 0.10 to 0.90, p = 0.02) earlier than B's "
            f"voice does, {IN_TWO}, by the areas under the two curves.",
        ),
        (
            (-0.52, -0.9, -0.1, 0.0171),
            "B's voice stops overriding A's answer 0.52 layers (95 % interval 0.10 to 0.90, p = 0.02) earlier than "
            f"B's words do, {IN_TWO}, by the areas under the two curves.",
        ),
        (
            (-2.4, -3.4, 1.2, 0.3),
            f"The data do not decide whether B's voice or B's words override A's answer for longer, {IN_TWO}: the "
            "areas under the two curves differ by −2.4 layers (voice − words, 95 % interval −3.4 to 1.2, p = 0.30).",
        ),
        (
            (0.85, None, None, None, "an interval needs 6 texts, and there are 2 in the first curve"),
            f"The data do not show which of B's words and B's voice overrides A's answer for longer, {IN_TWO}. An "
            "interval needs 6 texts, and there are 2 in the prosody curve.",
        ),
        (
            (None, None, None, None, "the second curve starts no higher than its floor"),
            f"The data do not show which of B's words and B's voice overrides A's answer for longer, {IN_TWO}. The "
            "semantic curve starts no higher than its floor.",
        ),
    ],
)
def test_the_sentence_on_overriding_counts_in_its_own_direction(found, said):
    one = difference(*found)
    assert words_and_voice.sentence({ALL: one, ELIGIBLE: one}, OF_TWO) == said


def test_eligible_pairs_are_named_where_their_difference_is_another():
    one, other = difference(0.5, 0.1, 0.9, 0.01), difference(-0.3, -0.9, 0.3, 0.2)
    said = words_and_voice.sentence({ALL: one, ELIGIBLE: other}, OF_TWO)
    assert said.endswith("Among the eligible pairs the difference is −0.30 (95 % interval −0.90 to 0.30, p = 0.20).")


def middle(layer, low, high, reason=None):
    return {"layer": layer, "low": low, "high": high, "reason": reason, "n_clips": 9}


MIDDLES = {VOICE: middle(2.0, 1.5, 2.5), WORDS: middle(4.4, 3.0, 5.8)}


@pytest.mark.parametrize(
    ("statistics", "said"),
    [
        (
            MIDDLES | {"difference": difference(-2.4, -3.4, -1.1, 0.0004)},
            "Answers that follow A's voice stop needing A's span 2.4 layers (95 % interval 1.1 to 3.4, p < 0.001) "
            f"earlier than answers that follow A's words do, {IN_TWO}, by the areas under the two curves.",
        ),
        (
            MIDDLES | {"difference": difference(1.0, -1.0, 3.0, 0.3)},
            "The data do not decide whether answers that follow A's voice or answers that follow A's words need A's "
            f"span for longer, {IN_TWO}: the areas under the two curves differ by 1.0 layers (voice − words, 95 % "
            "interval −1.0 to 3.0, p = 0.30).",
        ),
        (
            {VOICE: MIDDLES[VOICE], "difference": None},
            f"Answers that follow A's voice need A's span until layer 2.00 (95 % interval 1.50 to 2.50), {IN_TWO}.",
        ),
        (
            {
                VOICE: MIDDLES[VOICE],
                WORDS: middle(None, None, None, "the rate does not fall below 0.5"),
                "difference": difference(None, None, None, None, "the second curve starts no higher than its floor"),
            },
            f"Answers that follow A's voice need A's span until layer 2.00 (95 % interval 1.50 to 2.50), {IN_TWO}. "
            f"The data do not show until which layer answers that follow A's words need A's span, {IN_TWO}. The rate "
            "does not fall below 0.5.",
        ),
        (
            {
                VOICE: middle(None, None, None, "few texts"),
                WORDS: middle(1.5, None, None, "few texts"),
                "difference": None,
            },
            "The data do not show until which layer answers that follow A's voice and answers that follow A's words "
            f"need A's span, {IN_TWO}. Few texts.",
        ),
        (
            MIDDLES | {"difference": difference(1.4, None, None, None, "too few texts in the second curve")},
            "The data do not show which answers need A's span for longer, those that follow A's voice or those that "
            f"follow A's words, {IN_TWO}. Too few texts in the answers that follow the words.",
        ),
        (
            {ANY: MIDDLES[VOICE], "difference": None},
            f"Answers need A's span until layer 2.00 (95 % interval 1.50 to 2.50), {IN_TWO}.",
        ),
        (
            {"difference": None},
            "The data do not show until which layer A's span is needed. No clip's answer is the label of its voice or "
            "words.",
        ),
    ],
)
def test_the_sentence_on_need(statistics, said):
    assert words_and_voice.need_sentence(statistics, OF_TWO) == said


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (OF_TWO.assign(speaker_a=None, speaker_b=""), "in these 2 texts"),
        (OF_TWO.drop(columns=["speaker_a", "speaker_b"]), "in these 2 texts"),
        (OF_TWO.assign(speaker_b="f"), "in these 2 texts and 1 speaker"),
        (OF_TWO.assign(text_id_a="1", text_id_b="1"), "in this 1 text and 2 speakers"),
    ],
)
def test_texts_and_speakers_are_those_of_the_pairs(pairs, said):
    assert words_and_voice.in_these(pairs) == said


def test_a_run_with_one_kind_says_until_which_layer_it_overrides(run_of_two_kinds):
    change(run_of_two_kinds, "patching_config.json", lambda c: c["experiments"]["semantic"].update(finished=False))
    (line,) = words_and_voice.headline(Results(run_of_two_kinds))
    assert re.match(r"B's voice overrides A's answer until layer \S+ \(95 % interval \S+ to \S+\), in these", line)


def test_no_layer_until_which_it_overrides_has_its_reason():
    found = {"layer": None, "low": None, "high": None, "reason": "the rate does not fall below 0.4"}
    line = words_and_voice.of_kind("semantic", found, OF_TWO)
    assert line == (
        f"The data do not show until which layer B's words override A's answer, {IN_TWO}. The rate does not fall below "
        "0.4."
    )


def test_a_layer_without_an_interval_is_no_answer():
    found = {"layer": 1.5, "low": None, "high": None, "reason": "an interval needs 6 texts, and there are 2"}
    line = words_and_voice.of_kind("prosody", found, OF_TWO)
    assert line.endswith(f"{IN_TWO}. An interval needs 6 texts, and there are 2.")


def test_other_positions_than_the_span_are_named(run_of_two_kinds):
    change(
        run_of_two_kinds, "patching_config.json", lambda c: c["experiments"]["semantic"]["options"].update(at="last")
    )
    assert "B's states were written at the last position, not over the span." in words_and_voice.headline(
        Results(run_of_two_kinds)
    )


def test_the_terminal_has_the_answer(run_of_two_kinds, monkeypatch):
    monkeypatch.setattr("voicepatch.report.sounds_of", lambda *_: ({}, ""))
    monkeypatch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
    lines = call("report", run_of_two_kinds).splitlines()
    at = lines.index(words_and_voice.headline(Results(run_of_two_kinds))[0])
    assert lines[at + 1].startswith("report: ")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"align": "resample_linear"}, "semantic pairs ran with align resample_linear, not truncate_to_min"),
        ({"dtype": "bfloat16"}, "semantic pairs ran with dtype bfloat16, not float32"),
        ({"patch_alpha": 0.5}, "semantic pairs ran with alpha 0.5, not 1"),
    ],
)
def test_other_settings_are_not_contrasted_and_the_report_gives_the_reason(
    run_of_two_kinds, settings, said, monkeypatch
):
    monkeypatch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
    (run_of_two_kinds / "contrast_prosody_vs_semantic.csv").write_text("of another time")
    change(run_of_two_kinds, "patching_config.json", lambda c: c["experiments"]["semantic"].update(settings))
    records = run_of_two_kinds / "patching_records_semantic.jsonl"
    dose = {key: value for key, value in settings.items() if key == "patch_alpha"}
    write_lines(records, [json.loads(line) | dose for line in records.read_text().splitlines()])
    results = Results(run_of_two_kinds)
    summarise(results, "semantic")
    voice, words, reason = words_and_voice.headline(results)
    assert voice.startswith("B's voice overrides") and words.startswith("B's words override")
    assert reason.startswith(f"Words and voice are not contrasted. {said[0].upper()}{said[1:]}")
    assert json.loads((run_of_two_kinds / STATISTICS).read_text())["contrast"] is None
    assert not (run_of_two_kinds / "contrast_prosody_vs_semantic.csv").exists()


def test_layers_that_differ_are_no_contrast_but_a_reason(run_of_two_kinds):
    path = run_of_two_kinds / "patching_records_semantic.jsonl"
    rows = [row for line in path.read_text().splitlines() if (row := json.loads(line))["layer"] in (0, 3)]
    write_lines(path, rows)
    layers = {"layers_to_patch": [0, 3], "patch_all_layers": False}
    change(run_of_two_kinds, "patching_config.json", lambda c: c["experiments"]["semantic"].update(layers))
    said = "Semantic pairs ran with layers 0,3, not 0-7, as prosody pairs did"
    assert said in words_and_voice.headline(Results(run_of_two_kinds))[-1]


@pytest.mark.parametrize("name", ["instruction-prosody", "noise-prosody", "random-prosody"])
def test_a_run_without_a_main_experiment_has_what_the_experiment_found(tmp_path, name):
    results = Results(make_run(tmp_path / "run", (name,), n_pairs=12))
    (line,) = answer(results)
    assert results.experiment(name).what.rstrip(".") in line and "A's answer changed in " in line
    first = "The model, unpatched, answers the two questions differently in" if name.startswith("instruction") else ""
    assert line.startswith(first)
