"""The distance between the clips of a pair in sd, what stands in its files, and what a report makes of it."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile

from pairs import build_pairs, load_dataset
from pairs.acoustics import BANDS, clip_table, pair_table
from tests.analysis.made_run import DEMO, Page, make_run, write_report
from tests.commands import FEW, MODEL, NO_FIGURES, call, fails, rows
from voicepatch.analysis.acoustics import acoustic_table, last_flip_layers
from voicepatch.analysis.contrasts import Side
from voicepatch.analysis.results import Results
from voicepatch.audio.acoustics import FEATURES
from voicepatch.errors import UserError
from voicepatch.report.table import table_of
from voicepatch.types.clip import Clip


def test_a_distance_is_in_sd_over_all_clips_and_missing_where_a_pitch_is():
    flat = dict.fromkeys(BANDS, 0.0)
    clips = pd.DataFrame(
        [
            {"clip_id": "a", "f0": 1.0, "energy": -20.0, "duration": 2.0, **flat},
            {"clip_id": "b", "f0": 3.0, "energy": -20.0, "duration": 1.0, **flat, BANDS[0]: 1.0},
            {"clip_id": "c", "f0": np.nan, "energy": -20.0, "duration": 3.0, **flat},
        ]
    )
    found = pair_table(clips, [("a->b", "a", "b"), ("a->c", "a", "c")]).set_index("pair_id")
    assert found.loc["a->b", "f0"] == pytest.approx(2 / np.std([1, 3], ddof=1))
    assert found.loc["a->b", "duration"] == pytest.approx(1.0)
    assert found.loc["a->b", "energy"] == 0  # all clips are equally loud
    spread = np.std([0, 1, 0], ddof=1)
    assert found.loc["a->b", "spectrum"] == pytest.approx(1 / spread / np.sqrt(len(BANDS)))
    assert np.isnan(found.loc["a->c", "f0"]) and found.loc["a->c", "spectrum"] == 0


def test_clips_are_measured_as_they_sound(tmp_path):
    clips = []
    for name, f0 in (("low", 110), ("high", 220)):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * f0 * np.arange(16_000) / 16_000), 16_000)
        clips.append(Clip(name, path, "t", "text", "happy", "sad"))
    table = clip_table(clips).set_index("clip_id")
    assert table["f0"]["high"] - table["f0"]["low"] == pytest.approx(12, abs=0.1)
    assert table["duration"].tolist() == [1, 1]


def tones(folder, f0s):
    """A data folder with a clip of one text for each pitch in Hz, happy and sad in turn; None is silence."""
    folder.mkdir()
    lines = ["clip_id,path,text_id,text,semantic_label,prosody_label"]
    for number, f0 in enumerate(f0s):
        sound = np.zeros(16_000) if f0 is None else 0.5 * np.sin(2 * np.pi * f0 * np.arange(16_000) / 16_000)
        soundfile.write(folder / f"{number}.wav", sound, 16_000)
        lines.append(f"{number},{number}.wav,t,Yes.,neutral,{('happy', 'sad')[number % 2]}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_a_silent_clip_has_no_level_and_is_not_in_the_sd(tmp_path):
    clips = load_dataset(tones(tmp_path / "data", [110, 220, 330, None])).clips
    table = clip_table(clips)
    silent = table[table["f0"].isna()].iloc[0]
    assert silent["duration"] == 1 and silent[["energy", *BANDS]].isna().all()
    voiced = table[table["f0"].notna()]
    sounding, other, *_ = voiced["clip_id"]
    names = [("pair", sounding, other), ("silent", sounding, silent["clip_id"])]
    every, without = pair_table(table, names).set_index("pair_id"), pair_table(voiced, names[:1]).set_index("pair_id")
    expected = without.loc["pair", list(FEATURES)].astype(float)
    np.testing.assert_allclose(every.loc["pair", list(FEATURES)].astype(float), expected)
    assert every.loc["silent", ["f0", "energy", "spectrum"]].isna().all()


@pytest.mark.parametrize(("f0s", "n"), [([110, 220, 330, None], 1), ([None] * 4, 4)], ids=["one", "all"])
def test_silent_clips_are_counted_and_where_all_are_silent_there_is_a_dash(tmp_path, f0s, n):
    data = tones(tmp_path / "data", f0s)
    shown = call("pairs", "--kind", "prosody", "--acoustics", "--data", data, "--out", tmp_path / "run")
    assert f"silent clips, of which only the length is measured: {n} of 4" in shown
    assert f"clips without a pitch (too short, or not voiced): {n} of 4" in shown
    assert "nan" not in shown and ("energy   –  (4 pairs without a value)" in shown) == (n == 4)


def test_a_clip_under_25_ms_ends_the_command(tmp_path):
    data = tones(tmp_path / "data", [110, 220])
    soundfile.write(data / "1.wav", np.full(399, 0.1), 16_000)
    line = fails("pairs", "--kind", "prosody", "--acoustics", "--data", data, "--out", tmp_path / "run", status=1)
    assert "1.wav: is shorter than 25 ms" in line


def test_where_the_pairs_are_those_of_the_runs_experiment_the_line_says_so(tmp_path):
    run = make_run(tmp_path / "run", ("semantic",), n_pairs=6)
    words = ("pairs", "--kind", "semantic", "--acoustics", "--max-pairs", "60", "--out")
    shown = call(*words, run)
    assert "60 drawn" in shown
    assert "distance of 6 semantic pairs of the run's experiment (not those drawn above), in sd" in shown
    assert "distance of 60 semantic pairs, in sd" in call(*words, tmp_path / "other")


def test_a_pairs_last_flip_layer_is_of_eligible_pairs_that_flip():
    rows = [
        ("1", 0, True, True),
        ("1", 1, False, True),
        ("1", 2, True, True),
        ("2", 0, False, True),
        ("3", 2, True, False),
    ]
    records = pd.DataFrame(rows, columns=["pair_id", "layer", "flip_to_target", "eligible"]).assign(patch_alpha=1.0)
    assert last_flip_layers(Side("prosody", records, pd.DataFrame())).to_dict() == {"1": 2}


def test_the_command_writes_both_tables_and_the_report_shows_them(tmp_path):
    run = make_run(tmp_path / "run", ("prosody", "semantic"), n_pairs=12)
    other = tmp_path / "other"
    said = call("pairs", "--kind", "prosody", "--acoustics", "--max-pairs", "12", "--out", other)
    assert "clips without a pitch (too short, or not voiced): 0 of 150" in said and "spectrum " in said
    clips, distances = (pd.read_csv(other / f"{name}.csv") for name in ("acoustics", "pair_acoustics_prosody"))
    assert len(clips) == 150 and len(distances) == 12 and clips["f0"].notna().all()
    assert acoustic_table(Results(run)) is None
    shutil.copy(other / "pair_acoustics_prosody.csv", run)
    table = acoustic_table(Results(run))
    assert table["kind"].unique().tolist() == ["prosody"] and (table["pairs"] == 12).all()
    assert table.set_index("feature")["mean"]["f0"] == pytest.approx(distances["f0"].mean())
    assert "Acoustic distance of the pairs" in Page(write_report(run)).text


@pytest.mark.parametrize(
    "content", ["", "pair_id,f0\nx,1\n", "pair_id,f0,energy,duration,spectrum\nx,1,a,2,3\n", "\0\xff"]
)
def test_a_file_of_other_pairs_is_not_shown_and_the_report_gives_the_reason(tmp_path, content):
    run = make_run(tmp_path / "run", n_pairs=6)
    (run / "pair_acoustics_prosody.csv").write_text(content)
    assert "pair_acoustics_prosody.csv does not hold the prosody pairs of this run" in Page(write_report(run)).text


def test_where_no_pair_has_a_distance_the_report_has_dashes(tmp_path):
    run = make_run(tmp_path / "run", n_pairs=6)
    listed = [(row["pair_id"], row["clip_a"], row["clip_b"]) for row in rows(run / "pair_list_prosody.jsonl")]
    table = pd.DataFrame(listed, columns=["pair_id", "clip_a", "clip_b"])
    table.assign(**dict.fromkeys(FEATURES, np.nan)).to_csv(run / "pair_acoustics_prosody.csv", index=False)
    found = acoustic_table(Results(run))
    assert (found["without a value"] == 6).all()
    assert all(row[4:7] == ["–"] * 3 for row in table_of("", found).rows)
    assert "Acoustic distance of the pairs" in Page(write_report(run)).text


class TestMatching:
    LIMIT = 1.2

    @pytest.fixture
    def clips(self):
        return load_dataset(DEMO).clips

    def test_only_pairs_whose_clips_are_close_in_every_feature_are_drawn(self, clips):
        sample = build_pairs(clips, "prosody", 300, max_acoustic_distance=self.LIMIT)
        every = build_pairs(clips, "prosody", 300).pairs
        names = [(pair.pair_id, pair.a.clip_id, pair.b.clip_id) for pair in every]
        apart = pair_table(clip_table(clips), names).set_index("pair_id").max(axis=1, numeric_only=True)
        assert 0 < len(sample.pairs) < 300
        assert {pair.pair_id for pair in sample.pairs} == set(apart[apart <= self.LIMIT].index)
        counts = {"tried": 300, "left_out": 300 - len(sample.pairs), "without_a_value": 0}
        assert sample.report["matching"] == {"max_acoustic_distance": self.LIMIT, **counts}
        assert "matching" not in build_pairs(clips, "prosody", 5).report

    def test_a_smaller_sample_is_a_part_of_a_larger_one_and_does_not_depend_on_the_order_of_the_clips(self, clips):
        larger, smaller = (
            {pair.pair_id for pair in build_pairs(some, "semantic", n, max_acoustic_distance=self.LIMIT).pairs}
            for some, n in ((clips, 30), (clips[::-1], 12))
        )
        assert smaller < larger and len(smaller) == 12

    def test_where_no_pair_is_close_enough_there_is_one_line(self, clips):
        with pytest.raises(
            UserError, match="no prosody pairs: each of the 300 possible ones differs by more than 0.001"
        ):
            build_pairs(clips, "prosody", max_acoustic_distance=0.001)

    def test_controls_inherit_it_and_the_run_records_it(self, tmp_path):
        out = tmp_path / "run"
        said = call("patch", "--kind", "prosody", "--max-acoustic-distance", "1.2", "--out", out, *FEW, NO_FIGURES)
        assert "pairs drawn differ by more than 1.2 sd in sound" in said
        call("control", "--kind", "no-conflict", "--out", out, *MODEL, NO_FIGURES)
        ran = json.loads((out / "patching_config.json").read_text())["experiments"]
        assert {"prosody", "no-conflict-prosody"} <= set(ran)
        assert {of["max_acoustic_distance"] for of in ran.values()} == {1.2}
        names = [
            (row["pair_id"], row["clip_a"], row["clip_b"]) for row in rows(out / "pair_list_no-conflict-prosody.jsonl")
        ]
        distances = pair_table(clip_table(load_dataset(DEMO).clips), names)
        assert (distances.max(axis=1, numeric_only=True) <= 1.2).all()
        line = fails("patch", "--kind", "prosody", "--out", out, *FEW, status=2)
        assert "max_acoustic_distance was 1.2, is 0.0" in line
        line = fails("control", "--kind", "random", "--max-acoustic-distance", "2", "--out", out, *MODEL, status=2)
        assert line.startswith("error: --max-acoustic-distance: random runs as the prosody experiment of")
