"""Records say what happened in each (pair, layer)."""

import json
from typing import Literal

import numpy as np
import pytest
import torch

from interventions import intervention, load_intervention
from pairs import PairSample, build_pairs
from voicepatch.errors import UserError
from voicepatch.runs.pair_loop import run_pairs
from voicepatch.runs.sweep import option_values
from voicepatch.types.task import default_task

LABELS = default_task().labels

FIELDS = [
    *("pair_id", "clip_a", "clip_b", "layer", "target", "pred_base", "pred_patch", "eligible"),
    *("flip_to_target", "flip_from_base", "delta_logit_target", "logits_base", "logits_patch", "logits_donor"),
    *("len_a", "len_b", "n_patched", "patch_alpha"),
]
LAYERS = (0, 1, 4)


@pytest.fixture(scope="module")
def pairs(demo_data):
    return build_pairs(demo_data.clips, "prosody", max_pairs=6).pairs


@pytest.fixture(scope="module")
def records(demo, pairs):
    return list(run_pairs(demo, load_intervention("patch"), pairs, layers=LAYERS))


def test_there_is_one_record_a_layer_with_every_field(records, pairs):
    assert [[row["layer"] for row in rows] for rows in records] == [list(LAYERS)] * len(pairs)
    assert all(list(row)[: len(FIELDS)] == FIELDS for rows in records for row in rows)


def test_predictions_and_flips_follow_from_the_logits(records, pairs):
    for pair, rows in zip(pairs, records, strict=True):
        for row in rows:
            answer = {name: max(LABELS, key=row[f"logits_{name}"].get) for name in ("base", "patch")}
            assert (row["clip_a"], row["clip_b"], row["target"]) == (pair.a.clip_id, pair.b.clip_id, pair.target)
            assert (row["pred_base"], row["pred_patch"]) == (answer["base"], answer["patch"])
            assert row["eligible"] == (answer["base"] != pair.target)
            assert row["flip_to_target"] == (answer["patch"] == pair.target)
            assert row["flip_from_base"] == (answer["patch"] != answer["base"])
            moved = row["logits_patch"][pair.target] - row["logits_base"][pair.target]
            assert row["delta_logit_target"] == pytest.approx(moved, abs=1e-6)
            assert row["n_patched"] == min(row["len_a"], row["len_b"])


def test_base_and_donor_logits_are_those_of_the_clips_alone(demo, records, pairs):
    for pair, rows in zip(pairs, records, strict=True):
        for clip, column in ((pair.a, "logits_base"), (pair.b, "logits_donor")):
            alone = demo.clips.unpatched(clip).logits[0].tolist()
            assert list(rows[0][column].values()) == pytest.approx(alone, abs=1e-4)


def test_alpha_reaches_the_intervention(demo, pairs):
    (full,), (half,) = (
        next(run_pairs(demo, load_intervention("patch"), pairs[:1], layers=[0], options={"alpha": alpha}))
        for alpha in (1.0, 0.5)
    )
    assert half["patch_alpha"] == 0.5
    assert 0 < half["stream_shift"] == pytest.approx(full["stream_shift"] / 2, rel=1e-4)


def test_the_self_control_keeps_recipients_and_targets(demo, demo_data, pairs):
    control = load_intervention("self")
    own = control.pairs(PairSample(pairs, {}, demo_data.clips), demo_data.clips)
    assert [(p.a, p.b, p.target) for p in own] == [(p.a, p.a, p.target) for p in pairs]
    for rows in run_pairs(demo, control, own, layers=LAYERS):
        for row in rows:
            assert not row["flip_from_base"] and abs(row["delta_logit_target"]) < 1e-3
            assert row["stream_shift"] == 0


def test_a_sweep_has_a_record_for_each_combination_and_layer_with_a_column_for_each_swept_option(demo, pairs):
    options = {"head": (1, 0), "alpha": (0.5, 1.0)}
    (rows,) = run_pairs(demo, load_intervention("heads"), pairs[:1], layers=[0, 4], options=options)
    assert [(row["head"], row["patch_alpha"], row["layer"]) for row in rows] == [
        (head, alpha, layer) for head in (1, 0) for alpha in (0.5, 1.0) for layer in (0, 4)
    ]
    assert {row["site"] for row in rows} == {"self_attn.o_proj.input"}
    (single,) = run_pairs(demo, load_intervention("heads"), pairs[:1], layers=[0, 4], options={"head": 1, "alpha": 0.5})
    assert "head" not in single[0]
    for row, alone in zip(rows, single, strict=False):
        assert row["logits_patch"] == pytest.approx(alone["logits_patch"], abs=1e-4)


def test_an_option_without_values_takes_all_that_the_model_has(demo, pairs):
    (rows,) = run_pairs(demo, load_intervention("heads"), pairs[:1], layers=[0])
    assert [row["head"] for row in rows] == list(range(demo.engine.written.n_heads))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"head": 99}, "--head 99: the model has 0-"),
        ({"head": (1, 1)}, "each value once"),
        ({"alpha": 0}, r"--alpha 0: is not in the range 0<x<=1"),
        ({"k": 3}, "takes no such option"),
        ({"head": "0"}, "--head 0: is not a whole number"),
        ({"head": 0.5}, "--head 0.5: is not a whole number"),
        ({"head": True}, "--head True: is not a whole number"),
        ({"alpha": "1"}, "--alpha 1: is not a number"),
    ],
)
def test_an_option_that_the_model_or_the_experiment_does_not_have_is_refused(demo, pairs, options, expected):
    with pytest.raises(UserError, match=expected) as caught:
        next(run_pairs(demo, load_intervention("heads"), pairs[:1], options=options))
    assert caught.value.status == 2


def test_a_value_that_an_experiment_does_not_take_is_refused_before_any_pair(demo, pairs):
    @intervention
    def idea(lm, pair, layer, where: Literal["start", "end"] = "start", scale=1.0, name="a", on=False):
        raise AssertionError("it was run")

    for option, value, expected in (
        ("where", "Start", "--where Start: is not one of start, end"),
        ("where", ("start", "End"), "--where End: is not one of start, end"),
        ("scale", "much", "--scale much: is not a number"),
        ("name", "a\0b", "--name a\\x00b: contains a control character"),
        ("name", "\ud800", "--name \\ud800: contains a control character"),
        ("name", 1, "--name 1: is not text"),
        ("on", 1, "--on 1: is not True or False"),
    ):
        with pytest.raises(UserError) as caught:
            next(run_pairs(demo, idea, pairs[:1], options={option: value}))
        assert expected in str(caught.value)


def test_numbers_of_numpy_are_numbers(demo):
    found = option_values(load_intervention("heads"), {"head": np.int64(1), "alpha": (np.float32(0.5), 1)}, demo)
    assert found == {"head": (1,), "alpha": (0.5, 1.0), "at": ("span",)}
    assert json.dumps(found) == '{"head": [1], "alpha": [0.5, 1.0], "at": ["span"]}'


def test_a_function_that_another_decorator_was_put_over_is_told_so(demo, pairs):
    @torch.no_grad()
    @intervention
    def idea(lm, pair, layer): ...

    with pytest.raises(UserError, match="@intervention must be its outermost decorator"):
        next(run_pairs(demo, idea, pairs[:1]))


def test_what_runs_as_it_is_written_is_said_once(demo, pairs):
    said = []
    window = load_intervention("window")
    list(run_pairs(demo, window, pairs[:2], layers=[3], options={"alpha": 0.5}, log=said.append))
    (line,) = said
    assert line.startswith("window runs as it is written, a trace a layer, which is slower: interventions/window.py:")


def test_resampled_pairs_of_equal_length_give_the_records_of_cut_ones(demo, demo_data):
    pairs = build_pairs(demo_data.clips, "prosody", max_pairs=12).pairs
    cut, resampled = (
        [
            record
            for records in run_pairs(demo, load_intervention("patch"), pairs, layers=[0, 4], align_how=how)
            for record in records
        ]
        for how in ("truncate_to_min", "resample_linear")
    )
    equal = [record["len_a"] == record["len_b"] for record in cut]
    assert any(equal) and not all(equal)
    for same, one, other in zip(equal, cut, resampled, strict=True):
        assert other["n_patched"] == other["len_a"]
        assert (one == other) == same


def test_a_notebook_needs_four_calls_for_a_table(demo):
    from interventions import load_intervention, load_subject, run_table
    from pairs import build_pairs, load_dataset
    from voicepatch.analysis.layer_metrics import layer_metrics
    from voicepatch.paths import DEMO_DATA, DEMO_MODEL

    subject = load_subject(DEMO_MODEL)
    data = load_dataset(DEMO_DATA)
    records = run_table(subject, load_intervention("patch"), build_pairs(data.clips, "prosody", max_pairs=2).pairs)
    metrics = layer_metrics(records)
    assert len(records) == 2 * subject.engine.n_layers and metrics["layer"].tolist() == list(
        range(subject.engine.n_layers)
    )
