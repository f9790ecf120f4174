"""A map in time: which positions a part is, that every engine writes B's there, and what comes of it in a run."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from interventions import load_intervention
from interventions.figures import timeline as maps
from pairs import build_pairs
from tests.commands import MODEL, NO_FIGURES, call, fails
from tests.engine.decoders import by_hooks, make_clip, value_at
from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.errors import UserError
from voicepatch.runs.job import make_job
from voicepatch.runs.parts import check_parts


@pytest.fixture(params=["truncate_to_min", "resample_linear"])
def pair(request):
    return align(make_clip(11, seed=1), make_clip(7, seed=2), request.param)


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_parts_cover_the_span_without_overlap(pair, of):
    parts = [pair.part(number, of) for number in range(of)]
    covered = [position for a_part, _ in parts for position in range(a_part.start, a_part.stop)]
    assert covered == list(range(pair.a_span.start, pair.a_span.stop))
    lengths = {a_part.stop - a_part.start for a_part, _ in parts}
    assert max(lengths) - min(lengths) <= 1
    assert all(a_part.start - in_span.start == pair.a_span.start for a_part, in_span in parts)


@pytest.mark.parametrize(("number", "of"), [(0, 12), (3, 3), (-1, 3), (0, 0)])
def test_a_part_that_is_not_there_is_refused(pair, number, of):
    with pytest.raises(UserError, match=r"can be cut into 1 to \d+ parts"):
        pair.part(number, of)


def test_a_window_has_its_length_and_lies_in_the_span(pair):
    pair = replace(pair, a_seconds=1.1)  # 0.1 s a position
    windows = [pair.part(number, 7, seconds=0.3)[1] for number in range(7)]
    assert {window.stop - window.start for window in windows} == {3}
    assert windows[0].start == 0 and windows[-1].stop == pair.n_patched
    assert sorted(window.start for window in windows) == [window.start for window in windows]
    assert pair.part(3, 7, seconds=60)[1] == slice(0, pair.n_patched)
    assert pair.part(3, 7, seconds=1e-9)[1].stop - pair.part(3, 7, seconds=1e-9)[1].start == 1
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="must be longer than 0"):
            pair.part(0, 7, seconds)
    with pytest.raises(UserError, match="A's length be known"):
        replace(pair, a_seconds=None).part(0, 7, 0.3)


@pytest.mark.parametrize("engine", ["tail", "sweep", "stepwise"])
@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_one_part_is_bs_and_the_others_are_as(llm, pair, engine, alpha):
    options = [{"part": part, "slices": 3, "alpha": alpha} for part in range(3)]
    found = Engine(llm, engine).readouts(load_intervention("timeline"), pair, range(4), options)
    assert found.as_written is None
    for note, logits in zip(found.notes, found.logits[1:], strict=True):
        donor = pair.resampled(value_at(llm, pair.b, note.layer, "", "output")[:, pair.b_span])
        n, part = pair.n_patched, note.options["part"]
        start, stop = part * n // 3, (part + 1) * n // 3
        there = slice(pair.a_span.start + start, pair.a_span.start + stop)

        def write(stream, donor=donor[:, start:stop], there=there):
            stream[:, there] = torch.lerp(stream[:, there], donor, alpha)

        expected = by_hooks(llm, pair.a, (note.layer, "", "output", write))
        torch.testing.assert_close(logits, expected, atol=2e-5, rtol=0)
        assert (note.start, note.n_positions) == (there.start, stop - start)


def test_one_slice_is_the_main_experiment(llm, pair):
    engine = Engine(llm, "tail")
    whole = engine.readouts(load_intervention("timeline"), pair, range(4), [{"part": 0, "slices": 1}]).logits
    assert torch.equal(whole, engine.readouts(load_intervention("patch"), pair, range(4), [{}]).logits)


def test_slices_are_one_number(demo):
    for slices in ((2, 3), 0, -1, 1001):
        with pytest.raises(
            UserError, match="--slices .*: give one number from 1 to 1000, since part runs over"
        ) as caught:
            make_job(demo, load_intervention("timeline"), options={"slices": slices})
        assert caught.value.status == 2


def test_a_part_beyond_the_slices_is_refused(demo):
    job = make_job(demo, load_intervention("timeline"), options={"slices": 3})
    assert job.values["part"] == (0, 1, 2)
    with pytest.raises(UserError, match=r"--part 3: --slices 3 has 0-2 \(slices 3\)"):
        make_job(demo, load_intervention("timeline"), options={"slices": 3, "part": 3})


def test_more_slices_than_the_shortest_span_has_are_refused_before_anything_runs(demo, demo_data, tmp_path):
    pairs = build_pairs(demo_data.clips, "prosody", max_pairs=5).pairs
    lengths = [min(len(demo.clips.frames(clip)) for clip in (pair.a, pair.b)) for pair in pairs]
    check_parts(make_job(demo, load_intervention("timeline"), options={"slices": min(lengths)}), pairs)
    words = ("timeline", "--kind", "prosody", "--max-pairs", "5", "--device", "cpu", "--out", tmp_path / "run")
    line = fails(*words, "--slices", str(min(lengths) + 1), status=2)
    assert f"has {min(lengths)} audio positions; use at most {min(lengths)}" in line
    assert not list((tmp_path / "run").glob("pair_list*"))


def test_what_the_model_does_not_hear_has_no_parts_and_no_seconds(demo, demo_data, monkeypatch):
    pairs = build_pairs(demo_data.clips, "prosody", max_pairs=1).pairs
    monkeypatch.setattr(demo.model, "max_samples", SAMPLE_RATE)
    n = demo.model.n_audio(SAMPLE_RATE)
    assert n < len(demo.clips.frames(pairs[0].a))
    job = make_job(demo, load_intervention("timeline"), options={"slices": n + 1})
    with pytest.raises(UserError, match=f"has {n} audio positions; use at most {n}"):
        check_parts(job, pairs)
    assert job.inputs().of(pairs[0]).a_seconds == 1


@pytest.mark.parametrize(("how", "lengths"), [("truncate_to_min", [500, 1000]), ("resample_linear", [1000, 1000])])
def test_the_level_is_over_the_aligned_span(monkeypatch, how, lengths):
    heard = []
    monkeypatch.setattr(maps, "_sound", lambda held, clips, clip_id: np.ones(1000))
    monkeypatch.setattr(maps, "level", lambda sound: heard.append(len(sound)) or np.zeros(maps.BINS))
    records = pd.DataFrame([{"pair_id": "p", "clip_a": "a", "clip_b": "b", "len_a": 20, "len_b": 10}])
    one = SimpleNamespace(records=records, settings={"align": how})
    maps.levels_of(SimpleNamespace(experiment=lambda name: one, clips=({}, "")), "timeline-prosody")
    assert heard == lengths


def test_the_level_is_of_each_part_of_the_sound():
    sound = np.concatenate([np.full(500, 0.01), np.full(500, 0.1)])
    found = maps.level(sound)
    assert len(found) == 50 and np.allclose(found[25:], 0) and np.allclose(found[:25], -20)
    assert np.allclose(maps.level(np.zeros(100)), maps.FLOOR)


def test_a_run_has_the_map_the_level_and_how_far_lengths_differ(tmp_path):
    from pairs.load import find_clips
    from voicepatch.analysis.results import Results
    from voicepatch.figures.charts import charts_of
    from voicepatch.report import write_report
    from voicepatch.report.summary import summarise

    run, name = tmp_path / "run", "timeline-prosody"
    few = ("--max-pairs", "4", "--layers", "0,3", "--slices", "3", "--align", "resample_linear", *MODEL)
    output = call("timeline", "--kind", "prosody", "--out", run, *few, NO_FIGURES)
    assert "4 pairs × (2 × 3 + 2) = 32 forward passes" in output  # the cost is announced
    results = Results(run, find_clips=find_clips)
    records = results.experiment(name).records
    assert (
        records.groupby("pair_id").size().eq(6).all()
        and records.groupby("layer")["n_patched"].sum().eq(records.drop_duplicates("pair_id")["len_a"].sum()).all()
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("voicepatch.figures.figure_style.save", lambda chart, path: [])
        patch.setattr("voicepatch.report.sounds_of", lambda *_: ({}, ""))
        summarise(results, name)
        page = write_report(results).read_text(encoding="utf-8")
    levels = pd.read_csv(run / f"sound_level_{name}.csv")
    assert len(levels) == 100 and set(levels["clip"]) == {"A", "B"} and levels["level_db"].max() <= 0
    chart = charts_of(results, name)[f"timeline_{name}"].to_dict()
    assert len(chart["vconcat"]) == 3
    cells = next(rows for rows in chart["datasets"].values() if "start" in rows[0])
    assert len(cells) == len(results.experiment(name).metrics) == 6
    assert {(cell["start"], cell["end"]) for cell in cells} == {(100 * k / 3, 100 * (k + 1) / 3) for k in range(3)}
    assert "a part of A gets the same part of B. The two clips&#39; lengths differ by" in page
    assert '"map":{"slices":3,"parts":[0,1,2],"whole":true}' in page
