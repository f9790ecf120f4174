"""What the report says of the checks, of lost pairs and of the sounds; its figures are left out."""

import json
import shutil
from html import unescape

import numpy as np
import pytest
import soundfile

from pairs import build_pairs, load_dataset
from tests.analysis.made_run import (
    ALIKE,
    DEMO,
    ENGINE,
    LABELS,
    LAST_LAYER,
    LOST,
    NEAR_TIES,
    SOUNDS,
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
from voicepatch.audio.decode import read_audio
from voicepatch.report import sounds


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


def test_a_failed_check_is_red_and_a_remark_is_a_note(run):
    assert light(Page(write_report(run)), LAST_LAYER) == "passed"
    change(run, "sanity_check_self_patch.json", lambda c: c.update(last_layer_max_abs_delta_logit=0.5))
    change(run, "patching_config.json", lambda c: c["data"].update(warnings=["sad: 3 clips are missing"]))
    page = Page(write_report(run))
    assert light(page, LAST_LAYER) == "failed"
    assert light(page, "Data") == "note" and "sad: 3 clips are missing" in page.text
    assert light(page, "Each label has a token of its own") == "note" and "angry (ang | ry)" in page.text
    assert "compared with the tokens beside it" in page.text
    change(run, "sanity_check_audio_span.json", lambda c: c.update(held_against="[BEGIN_AUDIO] directly beside it"))
    assert "compared with [BEGIN_AUDIO] directly beside it" in Page(write_report(run)).text
    (run / "sanity_check_audio_span.json").unlink()
    assert light(Page(write_report(run)), "The audio span is in the right place") == "missing"


def test_the_engines_check_is_shown_with_its_figures(tmp_path):
    run = make_run(tmp_path / "run", ("prosody", "random-prosody"))
    assert light(Page(write_report(run)), ENGINE) == "missing"
    close = [{"pair_id": "p", "row": 2, "stepwise_margin": 4e-4}]
    found = {"prosody": engine_found(), "random-prosody": engine_found(max_abs_logit_difference=3e-5)}
    write_json(run / "sanity_check_engine.json", found)
    page = Page(write_report(run))
    assert light(page, ENGINE) == "passed"
    for words in ("4 pairs of 2 experiments", "largest |Δlogit| 3e-05", "tolerance 0.001", "0 of 20 answers differ"):
        assert words in figures(page, ENGINE), words
    assert page.text.count("0 of 10") == 2  # the table, an experiment a row

    found["prosody"] |= {"n_differing_predictions": 1, "differing_predictions": close}
    write_json(run / "sanity_check_engine.json", found)
    page = Page(write_report(run))
    assert light(page, ENGINE) == "note"
    assert "1 of 20 answers differ, where the best two labels are at most 0.0004" in figures(page, ENGINE)

    write_json(run / "sanity_check_engine.json", {"prosody": engine_found(passed=False)})
    page = Page(write_report(run))
    assert light(page, ENGINE) == "failed"
    assert "failed in: prosody; not checked: random-prosody" in figures(page, ENGINE)


def test_clips_that_cannot_be_read_or_hold_no_sound_are_named(run):
    assert light(Page(write_report(run)), SOUNDS) == "missing"
    write_json(run / "sanity_check_sounds.json", {"prosody": sounds_found()})
    page = Page(write_report(run))
    assert light(page, SOUNDS) == "passed" and "all clips of 1 experiment were read (12)" in figures(page, SOUNDS)
    assert "--on-bad-clip" not in page.text
    write_json(run / "sanity_check_sounds.json", {"prosody": sounds_found(silent=["quiet"])})
    page = Page(write_report(run))
    assert light(page, SOUNDS) == "note" and "1 digital silence: quiet" in figures(page, SOUNDS)
    write_json(run / "sanity_check_sounds.json", {"prosody": sounds_found([("bad", "/data/bad.wav: no sound")])})
    page = Page(write_report(run))
    assert light(page, SOUNDS) == "failed"
    assert "1 cannot be read: bad (/data/bad.wav: no sound)" in figures(page, SOUNDS)
    assert "--on-bad-clip skip" in page.text  # the command that makes it again would stop without
    assert "--max-seconds" not in page.text
    write_json(run / "sanity_check_sounds.json", {"prosody": sounds_found() | {"max_seconds": 3600}})
    assert "--max-seconds 3600 --engine" in Page(write_report(run)).text


def test_pairs_without_a_record_are_counted_and_listed_with_their_reason(run):
    page = Page(write_report(run))
    assert light(page, LOST) == "passed" and "all 6 pairs that ran" in figures(page, LOST)
    assert "Pairs without a record" not in page.text and "gave no record" not in page.text
    lost = lose(run, pairs=(1, 4))
    page = Page(write_report(run))
    assert light(page, LOST) == "note"
    assert "2 of 6 pairs gave no record" in figures(page, LOST) and "prosody 2 of 6" in figures(page, LOST)
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
    assert "1 of 4 pairs gave no record" in figures(page, LOST)
    assert "3 of 6 pairs are measured, 1 gave no record" in figures(page, "prosody is not finished")


def test_an_experiment_of_which_every_pair_failed_is_shown_as_such(tmp_path):
    run = make_run(tmp_path / "run", ("prosody", "semantic"))
    lose(run, "semantic", range(6))
    (run / "patching_records_semantic.jsonl").unlink()
    page = Page(write_report(run))
    assert "6 of 12 pairs gave no record" in figures(page, LOST) and "none of 6" in page.text


def test_of_many_lost_pairs_fifty_are_listed_and_the_others_counted(tmp_path):
    run = make_run(tmp_path / "run", n_pairs=70)
    lose(run, pairs=range(61))
    page = Page(write_report(run))
    assert "the first 50, and 11 more" in page.text and "61 of 70 pairs gave no record" in page.text
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
    assert "hacked" not in words or page.text.count(words) == 4
    assert "\u2028" not in page.text and "x" * 401 not in page.text


def test_pairs_of_which_a_sliver_was_written_are_counted(run):
    name = "The spans of prosody pairs have similar lengths"
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
    assert f"{n} of 6 prosody pairs have a span less than half as long" in figures(page, name)
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
