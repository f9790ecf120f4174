"""The contrast of two main experiments: right on simulated data, refused where it would compare unlike things."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.analysis.made_run import Page, change, make_run, write_lines
from tests.analysis.simulated_kinds import LAYERS, draw
from tests.commands import call
from voicepatch.analysis import words_and_voice
from voicepatch.analysis.contrast_runs import contrast_runs
from voicepatch.analysis.contrasts import ALL, ELIGIBLE, contrast
from voicepatch.analysis.results import Results
from voicepatch.report.compare import _note, compare
from voicepatch.report.summary import summarise

STATISTICS = "statistics_prosody_vs_semantic.json"


def test_a_curve_that_hands_nothing_over_has_no_difference_and_a_reason():
    one, other = draw(np.random.default_rng(0))
    never = replace(other, records=other.records.assign(flip_to_target=True))
    found = contrast(one, never).statistics[ALL]
    assert found["difference"] is None and found["reason"].startswith("the second curve does not fall below")
    flat = replace(other, records=other.records.assign(flip_to_target=False))
    assert "the second curve starts no higher than A's own rate" in contrast(one, flat).statistics[ALL]["reason"]
    eligible = other.records["eligible"]
    hardly = other.records["pair_id"].eq(other.records.loc[eligible, "pair_id"].iloc[0]) & other.records["layer"].eq(0)
    low = replace(other, records=other.records.assign(flip_to_target=~eligible | hardly))
    reason = contrast(one, low).statistics[ALL]["reason"]
    assert reason.startswith(
        "the second curve starts above A's own rate by 1.2 percentage points, but the 95 % interval"
    )
    two = replace(one, pairs=one.pairs.assign(text_id_a="1", text_id_b="1"))
    alone = contrast(two, replace(other, pairs=other.pairs.assign(text_id_a="1", text_id_b="1"))).statistics[ALL]
    assert alone["low"] is None and "p" not in alone and "too few texts" in alone["reason"]


def test_models_of_other_depths_are_compared_on_relative_depth_and_not_layer_by_layer():
    one, other = draw(np.random.default_rng(0))
    deeper = replace(other, records=other.records.assign(layer=2 * other.records["layer"]), depth=2 * LAYERS[-1])
    found = contrast(replace(one, depth=LAYERS[-1]), deeper)
    same = contrast(one, other).statistics[ALL]["difference"]
    assert found.table.empty and found.statistics[ALL]["difference"] == pytest.approx(same / LAYERS[-1])


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (None, 5.0, "4.0 (95 % interval from before the first layer patched to 5.0)"),
        (2.0, None, "4.0 (95 % interval 2.0 to after the last layer patched)"),
        (None, None, "4.00 (no interval)"),
    ],
)
def test_an_end_outside_the_patched_layers_is_open_in_the_comparison(low, high, shown):
    row = {"run": "A", "n_pairs": 20, "alpha": 1.0, "layers": "all", "n_layers": 10, "hand_over_layer": 4.0}
    row |= {"median_span": 12.0, "frames_per_second": None, "low": low, "high": high}
    assert f"hand-over layer {shown}" in _note(row)


def as_simulated(run, seed=0, **how):
    """The pairs of both kinds are of simulated texts, each with clips of its own, and flip as the simulated ones."""
    for side in draw(np.random.default_rng(seed), n_pairs=30, n_texts=12, **how):
        pairs, records = (run / f"{stem}_{side.name}.jsonl" for stem in ("pair_list", "patching_records"))
        rows = [json.loads(line) for line in pairs.read_text().splitlines()]
        clips = {row["pair_id"]: {f"clip_{of}": f"{number}{of}" for of in "ab"} for number, row in enumerate(rows)}
        texts = side.pairs[["text_id_a", "text_id_b"]].astype(str).to_dict("records")
        write(pairs, [row | text | clips[row["pair_id"]] for row, text in zip(rows, texts, strict=True)])
        simulated = side.records[["eligible", "flip_to_target"]].itertuples(index=False)
        rows = [json.loads(line) for line in records.read_text().splitlines()]
        write(records, [_as(row, *one) | clips[row["pair_id"]] for row, one in zip(rows, simulated, strict=True)])


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _as(row, eligible, flips):
    target = row["target"]
    base = "happy" if target == "sad" else "sad"
    base = base if eligible else target
    patch = target if flips else base
    logits = {key: dict.fromkeys(row["logits_base"], 0.0) for key in ("logits_base", "logits_patch", "logits_donor")}
    for key, answer in zip(logits, (base, patch, target), strict=True):
        logits[key][answer] = 4.0
    answers = {"pred_base": base, "pred_patch": patch, "eligible": bool(eligible), "flip_to_target": bool(flips)}
    moved = logits["logits_patch"][target] - logits["logits_base"][target]
    return row | logits | answers | {"flip_from_base": base != patch, "delta_logit_target": moved}


@pytest.fixture(scope="module")
def two_kinds(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("both") / "run", ("prosody", "semantic"), n_pairs=30, n_layers=8)
    as_simulated(run, later=2.0)
    return run


@pytest.fixture
def run(two_kinds, tmp_path):
    return shutil.copytree(two_kinds, tmp_path / "run")


def test_the_answer_is_the_reports_first_sentence_and_in_the_figures(run, monkeypatch):
    from voicepatch.figures.charts import charts_of
    from voicepatch.report import write_report

    monkeypatch.setattr("voicepatch.report.sounds_of", lambda *_: ({}, ""))
    monkeypatch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
    results = Results(run)
    summarise(results, "semantic")
    sentence, not_shown = words_and_voice.headline(results)
    whole = json.loads((run / STATISTICS).read_text())["contrast"][ALL]
    pairs = pd.concat(results.main(kind).pairs for kind in ("prosody", "semantic"))
    numbers = re.fullmatch(
        r"B's words stop overriding A's answer (\S+) layers \(95 % interval (\S+) to (\S+)\) earlier than B's "
        rf"voice does, in these {len({*pairs['text_id_a'], *pairs['text_id_b']})} texts( and 2 speakers)?\..*",
        sentence,
    ).groups()[:3]
    expected = [whole[key] for key in ("difference", "low", "high")]
    assert [float(number) for number in numbers] == pytest.approx(expected, abs=0.05)
    assert len({len(number.partition(".")[2]) for number in numbers}) == 1
    assert "p = " not in sentence and "knock-out of the attention to the span" in not_shown
    page = Page(write_report(results))
    assert page.text.index(sentence) < page.text.index(not_shown) < page.text.index("toy receives clip A")
    assert "Difference from semantic, by layer" in page.text
    charts = charts_of(results, "semantic")
    for stem in ("prosody_and_semantic", "contrast_prosody_vs_semantic"):
        subtitle = "".join(charts[stem].to_dict()["title"]["subtitle"])
        assert sentence in subtitle and not_shown in subtitle, stem
    table = pd.read_csv(run / "contrast_prosody_vs_semantic.csv")
    assert table.groupby("pairs")["layer"].apply(list).to_dict() == {ALL: list(range(8)), ELIGIBLE: list(range(8))}


OF_TWO = pd.DataFrame({"text_id_a": ["1", "2"], "text_id_b": ["2", "1"], "speaker_a": "f", "speaker_b": ["f", "m"]})


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            (0.5, 0.1, 0.9),
            "B's words stop overriding A's answer 0.50 layers (95 % interval 0.10 to 0.90) earlier than B's voice "
            "does, in these 2 texts and 2 speakers.",
        ),
        (
            (-0.52, -0.9, -0.1),
            "B's voice stops overriding A's answer 0.52 layers (95 % interval 0.10 to 0.90) earlier than B's words do, "
            "in these 2 texts and 2 speakers.",
        ),
        (
            (2.4, -1.2, 3.4),
            "B's words stop overriding A's answer 2.4 layers (95 % interval −1.2 to 3.4) earlier than B's voice "
            "does, in these 2 texts and 2 speakers. The interval includes 0, so the order of the two is open.",
        ),
        (
            (-0.5, -0.9, None),
            "B's voice stops overriding A's answer 0.50 layers (95 % interval from outside the layers patched to 0.90) "
            "earlier than B's words do, in these 2 texts and 2 speakers. The interval includes 0, so the order of the "
            "two is open.",
        ),
        (
            (0.0, 0.0, 0.0),
            "B's words and B's voice stop overriding A's answer at the same layer (95 % interval 0.00 to 0.00), in "
            "these 2 texts and 2 speakers. The interval includes 0, so the order of the two is open.",
        ),
        (
            (0.85, None, None, "no limits: too few texts"),
            "B's words stop overriding A's answer 0.85 layers earlier than B's voice does, in these 2 texts and 2 "
            "speakers; there is no 95 % interval: too few texts.",
        ),
        (
            (0.85, None, None),
            "B's words stop overriding A's answer 0.85 layers earlier than B's voice does, in these 2 texts and 2 "
            "speakers; its 95 % interval goes past the layers patched at both ends.",
        ),
        (
            (None, None, None, "the second curve starts no higher than A's own rate"),
            "Which of B's words and B's voice stops overriding A's answer earlier, in these 2 texts and 2 speakers, "
            "is open: the semantic curve starts no higher than A's own rate.",
        ),
    ],
)
@pytest.mark.parametrize("p", [{}, {"p": 0.017}])
def test_the_sentence_counts_in_its_own_direction_and_names_no_p(found, said, p):
    one = dict(zip(("difference", "low", "high", "reason"), (*found, None), strict=False)) | p
    assert words_and_voice.sentence({ALL: one, ELIGIBLE: one}, OF_TWO) == said


def test_eligible_pairs_are_named_where_their_difference_is_another():
    one = {"difference": 0.5, "low": 0.1, "high": 0.9, "reason": None}
    other = {"difference": -0.3, "low": None, "high": 0.2, "reason": None}
    expected = (
        "Among the eligible pairs the difference is −0.30 (95 % interval from outside the layers patched to 0.20)."
    )
    assert words_and_voice.sentence({ALL: one, ELIGIBLE: other}, OF_TWO).endswith(expected)


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


def test_a_run_with_one_kind_has_no_such_sentence(run):
    change(run, "patching_config.json", lambda c: c["experiments"]["semantic"].update(finished=False))
    assert words_and_voice.headline(Results(run)) == []


def test_the_terminal_has_the_answer_and_its_limits(run, monkeypatch):
    monkeypatch.setattr("voicepatch.report.sounds_of", lambda *_: ({}, ""))
    monkeypatch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
    lines = call("report", run).splitlines()
    at = lines.index(words_and_voice.headline(Results(run))[0])
    assert lines[at + 1] == words_and_voice.NOT_SHOWN and lines[at + 2].startswith("report: ")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"align": "resample_linear"}, "semantic pairs ran with align resample_linear, not truncate_to_min"),
        ({"dtype": "bfloat16"}, "semantic pairs ran with dtype bfloat16, not float32"),
        ({"patch_alpha": 0.5}, "semantic pairs ran with alpha 0.5, not 1"),
    ],
)
def test_other_settings_are_not_contrasted_and_the_report_gives_the_reason(run, settings, said, monkeypatch):
    monkeypatch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
    (run / "contrast_prosody_vs_semantic.csv").write_text("of another time")
    change(run, "patching_config.json", lambda c: c["experiments"]["semantic"].update(settings))
    records = run / "patching_records_semantic.jsonl"
    dose = {key: value for key, value in settings.items() if key == "patch_alpha"}
    write_lines(records, [json.loads(line) | dose for line in records.read_text().splitlines()])
    results = Results(run)
    summarise(results, "semantic")
    (line,) = words_and_voice.headline(results)
    assert line.startswith(f"Words and voice are not contrasted: {said}")
    assert json.loads((run / STATISTICS).read_text())["contrast"] is None
    assert not (run / "contrast_prosody_vs_semantic.csv").exists()


def test_layers_that_differ_are_no_contrast_but_a_reason(run):
    path = run / "patching_records_semantic.jsonl"
    path.write_text(
        "".join(line + "\n" for line in path.read_text().splitlines() if json.loads(line)["layer"] in (0, 3))
    )
    layers = {"layers_to_patch": [0, 3], "patch_all_layers": False}
    change(run, "patching_config.json", lambda c: c["experiments"]["semantic"].update(layers))
    assert (
        "semantic pairs ran with layers 0,3, not 0-7, as prosody pairs did" in words_and_voice.headline(Results(run))[0]
    )


def test_runs_are_contrasted_kind_by_kind(run, two_kinds, tmp_path, monkeypatch):
    monkeypatch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
    out = tmp_path / "comparison"
    table, _ = compare([two_kinds, run], out)
    assert len(table.attrs["contrasts"]) == 2 and all(
        "difference of the hand-over layers 0.00 layers (95 % interval 0.00 to 0.00)" in line and "p =" not in line
        for line in table.attrs["contrasts"]
    )
    statistics = json.loads((out / "contrasts.json").read_text())
    assert all(entry[ALL]["difference"] == 0 for entry in statistics.values())
    assert len(list(out.glob("contrast_*_vs_*.csv"))) == 2
    assert all(entry[ALL]["low"] == entry[ALL]["high"] == 0 for entry in statistics.values())  # of the same texts
    change(run, "patching_config.json", lambda c: c["data"].update(sha256="0" * 64))
    contrast_runs({"A": Results(two_kinds), "B": Results(run)}, out)
    statistics = json.loads((out / "contrasts.json").read_text())
    assert all(entry[ALL]["low"] < 0 < entry[ALL]["high"] for entry in statistics.values())  # of other texts
    change(run, "patching_config.json", lambda c: c["model"].update(n_layers=20))
    change(run, "patching_config.json", lambda c: c["experiments"]["semantic"].update(patch_all_layers=False))
    prosody, semantic = contrast_runs({"A": Results(two_kinds), "B": Results(run)}, out)
    assert "of the relative depth" in prosody
    assert "not contrasted: B was not patched at all layers, and the models have different numbers" in semantic
