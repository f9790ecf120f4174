"""What the report says of the checks, of lost pairs and of the sounds; its figures are left out."""

import json
import shutil
from html import unescape

import numpy as np
import pandas as pd
import pytest
import soundfile

from pairs import build_pairs, load_dataset
from tests.analysis.made_run import (
    ALIKE,
    DEMO,
    ENGINE,
    LABEL_TOKENS,
    LABELS,
    LAST_LAYER,
    LOST,
    NEAR_TIES,
    SOUNDS,
    SPANS,
    Page,
    change,
    engine_found,
    figures,
    light,
    lose,
    make_run,
    records_in,
    sounds_found,
    write_json,
    write_lines,
    write_report,
)
from voicepatch.analysis.results import Results
from voicepatch.audio.decode import read_audio
from voicepatch.report import sounds
from voicepatch.report.control_verdicts import verdict_of
from voicepatch.types.check import Check, as_stored


@pytest.fixture(autouse=True)
def no_charts(monkeypatch):
    monkeypatch.setattr("voicepatch.report.experiments.charts_of", lambda *_: {})


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def test_a_control_that_ran_in_another_way_is_named_in_the_report(tmp_path):
    """It was once otherwise: a control at another dose was drawn and contrasted without a word."""
    run = make_run(tmp_path / "run", ("prosody", "random-prosody"))
    assert light(Page(write_report(run)), ALIKE) == "passed"
    change(run, "patching_config.json", lambda c: c["experiments"]["random-prosody"].update(dtype="bfloat16"))
    page = Page(write_report(run))
    assert light(page, ALIKE) == "note" and "random-prosody" in figures(page, ALIKE)
    assert "dtype bfloat16, not float32" in figures(page, ALIKE)
    assert "Difference from random-prosody" not in page.text and "controls_prosody" not in page.source
    assert (
        "Forward passes: engine sweep, float32 on cpu (prosody); engine sweep, bfloat16 on cpu (random-prosody)."
        in page.text
    )


def test_a_control_says_whether_it_is_as_expected(tmp_path):
    results = Results(make_run(tmp_path / "run", ("prosody", "same-label-prosody", "random-prosody")))
    own, other, main = (results.experiment(name) for name in ("same-label-prosody", "random-prosody", "prosody"))
    own.settings["must_change_nothing"] = True
    own.records["flip_from_base"] = False
    verdict = verdict_of(results, own)
    assert verdict.light == "passed" and verdict.text.startswith("as expected. Expected: hardly any flips")
    own.records.loc[0, "flip_from_base"] = True
    verdict = verdict_of(results, own)
    assert verdict.light == "failed" and verdict.text.startswith("not as expected.")
    assert f"found: 1 of {len(own.records)} patched answers changed." in verdict.text
    assert verdict_of(results, main) is None


@pytest.mark.parametrize(
    ("highest", "difference", "p_max", "verdict"),
    [
        (0.5, 0.5, 0.01, "as expected."),
        (0.5, 0.5, 0.2, "the data do not show it."),
        (0.5, 0.5, np.nan, "the data do not show it."),
        (0.6, 0.4, 0.01, "the data do not show it."),  # lower, but more than half as high
        (1.0, -0.2, 0.2, "the data do not show it."),
        (1.0, -0.2, 0.01, "not as expected."),
    ],
)
def test_the_test_decides_whether_a_control_is_below_the_main_curve(
    tmp_path, monkeypatch, highest, difference, p_max, verdict
):
    results = Results(make_run(tmp_path / "run", ("prosody", "random-prosody")))
    other, main = (results.experiment(name) for name in ("random-prosody", "prosody"))
    other.curve[other.rate], main.compared_curve[other.rate] = highest, 1.0
    row = {"layer": 2, "difference": difference, "p_max": p_max, "reason": "five texts", "rate": other.judged_by}
    monkeypatch.setattr(results, "contrast", lambda _: pd.DataFrame([row]))
    found = verdict_of(results, other)
    assert found.text.startswith(verdict) and f"found: at most {highest:.0%} flips" in found.text
    assert found.light == ("passed" if verdict == "as expected." else "note")


def test_the_planted_check_is_shown_where_it_ran(run):
    name, text = "A planted reading layer is recovered", "planted in layers 3, recovered at 2.50"
    assert name not in Page(write_report(run)).text
    found = as_stored([Check(name, True, text)]) | {"engine": "tail", "n_pairs": 8, "planted": []}
    write_json(run / "sanity_check_planted.json", found)
    page = Page(write_report(run))
    assert light(page, name) == "passed" and text in figures(page, name)


def test_what_a_run_stores_of_its_checks_is_shown_in_the_same_words(run):
    page = Page(write_report(run))
    for name, file, file_light in (
        (SPANS, "sanity_check_audio_span.json", "passed"),
        (LABEL_TOKENS, "tokenization_report.json", "note"),
        ("No position depends on a later one", "sanity_check_model.json", "passed"),
        (LAST_LAYER, "sanity_check_self_patch.json", "passed"),
    ):
        (check,) = [one for one in json.loads((run / file).read_text())["checks"] if one["name"] == name]
        assert light(page, name) == file_light and check["text"] in figures(page, name)
        change(run, file, lambda document: document["checks"][0].update(passed=False, text="not this time"))
        page = Page(write_report(run))
        assert light(page, name) == "failed" and "not this time" in figures(page, name)
        (run / file).unlink()
        page = Page(write_report(run))
        assert light(page, file) == "note" and "this file is missing" in figures(page, file)


def test_a_warning_about_the_data_is_a_note(run):
    assert light(Page(write_report(run)), "Data") == "passed"
    change(run, "patching_config.json", lambda c: c["data"].update(warnings=["sad: 3 clips are missing"]))
    page = Page(write_report(run))
    assert light(page, "Data") == "note" and "sad: 3 clips are missing" in page.text


def test_a_check_of_each_experiment_is_one_light_with_the_text_of_those_that_did_not_pass(tmp_path):
    run = make_run(tmp_path / "run", ("prosody", "random-prosody"))
    assert light(Page(write_report(run)), "sanity_check_engine.json") == "note"
    found = {"prosody": engine_found(), "random-prosody": engine_found()}
    write_json(run / "sanity_check_engine.json", found)
    page = Page(write_report(run))
    assert light(page, ENGINE) == "passed" and "passed in 2 experiments" in figures(page, ENGINE)
    assert page.text.count("0 of 10 answers differ") == 2  # the table, an experiment a row

    found["prosody"] = engine_found(note=True, text="1 of 10 answers differ")
    write_json(run / "sanity_check_engine.json", found)
    page = Page(write_report(run))
    assert light(page, ENGINE) == "note" and figures(page, ENGINE).startswith("prosody: 1 of 10 answers differ")

    found["prosody"] = engine_found(passed=False, text="other logits")
    write_json(run / "sanity_check_engine.json", found)
    page = Page(write_report(run))
    assert light(page, ENGINE) == "failed" and figures(page, ENGINE).startswith("prosody: other logits")


def test_the_command_that_repeats_an_experiment_has_the_settings_that_are_no_defaults(run):
    assert "--on-bad-clip" not in Page(write_report(run)).text
    write_json(run / "sanity_check_sounds.json", {"prosody": sounds_found([("bad", "no sound")], silent=["quiet"])})
    changes = {"on_bad_clip": "skip", "max_seconds": 7200, "same_speaker": False}
    change(run, "patching_config.json", lambda c: c["experiments"]["prosody"].update(changes))
    page = Page(write_report(run))
    assert light(page, SOUNDS) == "failed" and "bad, quiet" in figures(page, SOUNDS)
    for words in ("--any-speaker", "--on-bad-clip skip", "--max-seconds 7200"):
        assert words in page.text


def test_pairs_without_a_record_are_counted_and_listed_with_their_reason(run):
    page = Page(write_report(run))
    assert light(page, LOST) == "passed" and "6 of 6 pairs are measured" in figures(page, LOST)
    assert "Pairs without a record" not in page.text and "gave no record" not in page.text
    lost = lose(run, pairs=(1, 4))
    page = Page(write_report(run))
    assert light(page, LOST) == "note"
    assert "prosody: 4 of 6 pairs are measured, 2 gave no record" in figures(page, LOST)
    listed = page.source[page.source.index('<div id="lost">') : page.source.index("Checks by experiment")]
    assert listed.count("<tr>") == 3
    for number, pair in enumerate(lost):
        assert pair in unescape(listed) and f"reason {number}: not finite" in listed
    assert "4 of 6" in page.text  # at a glance
    assert "Of these, 2 gave no record and are left out." in page.text  # methods
    assert len(page.data["pairs-data"]["experiments"][0]["pairs"]) == 4


def test_of_an_unfinished_experiment_only_known_failures_count_as_lost(run):
    failed = lose(run, pairs=(1, 4, 5))
    rows = [{"pair_id": failed[0], "reason": "not finite", "skipped": False}]
    write_lines(run / "failed_pairs_prosody.jsonl", rows)
    change(run, "patching_config.json", lambda config: config["experiments"]["prosody"].update(finished=False))
    page = Page(write_report(run))
    assert "3 of 6 pairs are measured, 1 gave no record" in figures(page, LOST)
    assert "not finished, the same command continues" in figures(page, LOST)


def test_an_experiment_of_which_every_pair_failed_is_shown_as_such(tmp_path):
    run = make_run(tmp_path / "run", ("prosody", "semantic"))
    lose(run, "semantic", range(6))
    (run / "patching_records_semantic.jsonl").unlink()
    page = Page(write_report(run))
    assert "semantic: 0 of 6 pairs are measured, 6 gave no record" in figures(page, LOST) and "none of 6" in page.text


def test_of_many_lost_pairs_fifty_are_listed_and_the_others_counted(tmp_path):
    run = make_run(tmp_path / "run", n_pairs=70)
    lose(run, pairs=range(61))
    page = Page(write_report(run))
    assert "the first 50, and 11 more" in page.text and "9 of 70 pairs are measured, 61 gave no record" in page.text
    assert page.text.count(": not finite") == 50


def test_near_ties_are_counted_with_what_they_mean(run):
    page = Page(write_report(run))
    assert light(page, NEAR_TIES) == "passed"
    clips = len(records_in(run, "prosody")["clip_a"].unique())
    assert f"0 of {clips} unpatched and 0 of 24 other answers are near-ties" in figures(page, NEAR_TIES)
    assert "less than 0.001 logits apart" in figures(page, NEAR_TIES)

    path = run / "patching_records_prosody.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    clip = rows[0]["clip_a"]
    for row in rows:
        for logits in (
            row[f"logits_{of}"] for of, side in (("base", "a"), ("donor", "b")) if row[f"clip_{side}"] == clip
        ):
            second = next(label for label in LABELS if logits[label] == 0)
            logits[second] = max(logits.values()) - 1e-4
    for row in rows[:2]:  # of one pair
        row["logits_patch"] = dict.fromkeys(LABELS, 3.0)
    for row in rows:
        row["delta_logit_target"] = row["logits_patch"][row["target"]] - row["logits_base"][row["target"]]
    write_lines(path, rows)
    page = Page(write_report(run))
    assert light(page, NEAR_TIES) == "note"
    assert f"1 of {clips} unpatched and 2 of 24 other answers" in figures(page, NEAR_TIES)
    change(run, "patching_config.json", lambda c: c["experiments"]["prosody"].update(near_tie_margin=20))
    assert f"{clips} of {clips} unpatched and 24 of 24 other" in figures(Page(write_report(run)), NEAR_TIES)


@pytest.mark.parametrize("words", ["</script><script>hacked()</script>", "<b>bold</b>\nline\u2028", "x" * 5_000])
def test_what_a_failure_says_stays_short_text(run, words):
    plain = Page(write_report(run))
    pair = lose(run)[0]
    write_lines(run / "failed_pairs_prosody.jsonl", [{"pair_id": pair, "reason": words, "skipped": False}])
    write_json(run / "sanity_check_sounds.json", {"prosody": sounds_found([(words, words)], silent=[words])})
    page = Page(write_report(run))
    assert page.scripts == plain.scripts and set(page.tags) - set(plain.tags) <= {"div"}
    assert "hacked" not in words or page.text.count(words) == 5
    assert "\u2028" not in page.text and "x" * 401 not in page.text


def test_pairs_of_which_a_sliver_was_written_are_counted(run):
    name = "The spans of a pair have similar lengths"
    assert light(Page(write_report(run)), name) == "passed"
    path = run / "patching_records_prosody.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    short = rows[0]["clip_b"]
    for row in rows:
        row |= {f"len_{side}": 1 for side in "ab" if row[f"clip_{side}"] == short}
        row["n_patched"] = min(row["len_a"], row["len_b"])
    write_lines(path, rows)
    page = Page(write_report(run))
    assert light(page, name) == "note"
    n = sum(short in clips for clips in {(row["clip_a"], row["clip_b"]) for row in rows})
    assert f"{n} of 6 pairs have a span less than half as long" in figures(page, name)
    assert "They count like any other pair" in figures(page, name) and short in figures(page, name)


def test_a_clip_sounds_on_the_page_as_the_model_hears_it(tmp_path, monkeypatch):
    heard = []
    write = soundfile.write
    monkeypatch.setattr(
        soundfile, "write", lambda file, sound, *args, **how: heard.append(sound) or write(file, sound, *args, **how)
    )
    path = tmp_path / "clip.wav"
    time = np.arange(44_100) / 44_100
    write(path, np.stack([np.sin(2000 * time), 0 * time], axis=1) / 2, 44_100)
    sounds._mp3(path, 0, 0.9)
    assert heard[0].dtype == np.float32 and np.array_equal(heard[0], read_audio(path))
    assert len(heard[0]) == 16_000 and np.abs(heard[0]).max() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("harm", ["cut short", "no sound at all"])
def test_a_clip_that_cannot_be_read_is_silent_alone_and_the_page_says_so(tmp_path, harm):
    data = tmp_path / "data"
    shutil.copytree(DEMO, data)
    bad = build_pairs(load_dataset(data).clips, "prosody", 6).pairs[2].b
    bad.path.write_bytes(bad.path.read_bytes()[:3_000] if harm == "cut short" else b"no sound" * 50)
    page = Page(write_report(make_run(tmp_path / "run", data=data)))
    clips = page.data["pairs-data"]["clips"]
    sounding = {clips[int(number)]["id"] for number in page.data["sounds-data"]}
    assert {clip["id"] for clip in clips} - sounding == {bad.clip_id}
    assert f"could not be read: 1 of the {len(clips)} clips." in page.text


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_without_the_runs_own_data_there_is_no_sound_and_the_page_says_so(run, harm):
    new = {"gone": {"source": "/no/such/place"}, "changed": {"sha256": "0" * 64}}[harm]
    change(run, "patching_config.json", lambda config: config["data"].update(new))
    page = Page(write_report(run))
    assert page.data["sounds-data"] == {} and "no texts and no sound" in page.text
    assert len(page.data["pairs-data"]["experiments"][0]["pairs"]) == 6


def test_a_known_corpus_with_labels_of_its_texts_is_found_again_and_named(tmp_path):
    data, texts, noise = tmp_path / "TESS", tmp_path / "texts.csv", np.random.default_rng(0)
    data.mkdir()
    for word, emotion in ((word, emotion) for word in ("love", "hate", "back") for emotion in ("happy", "sad")):
        soundfile.write(data / f"OAF_{word}_{emotion}.wav", noise.normal(0, 0.1, 6000), 16000)
    texts.write_text("text_id,semantic_label\nlove,happy\nhate,angry\n")
    run = make_run(tmp_path / "run", ("semantic",), data=data, texts=texts)
    page = Page(write_report(run))
    assert "Say the word love" in page.source and page.data["sounds-data"]
    assert f"--data {data} --texts {texts}" in page.text
    assert "name TESS, edition all files in one folder" in page.text and light(page, "Data") == "note"
