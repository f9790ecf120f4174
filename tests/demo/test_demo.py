"""The embedded demo is what it says it is, and the instrument finds in it the rule that it was taught."""

import numpy as np
import pandas as pd
import pytest
import soundfile
from msgspec import to_builtins

from interventions import load_intervention
from pairs import build_pairs, pair_row
from pairs.controls import clips_in_conflict
from voicepatch.analysis.breakdown import metrics_by
from voicepatch.analysis.need import need
from voicepatch.paths import DEMO_DATA, DEMO_MODEL
from voicepatch.runs.pair_loop import run_table
from voicepatch.types.task import default_task

LABELS = default_task().labels


@pytest.fixture(scope="module")
def data(demo_data):
    return demo_data


@pytest.fixture(scope="module")
def subject(demo):
    return demo


def rule(clip):
    """What the model was taught to answer: the meaning of an explicit text, the voice of any other."""
    return clip.semantic_label if clip.text_type == "explicit" else clip.prosody_label


@pytest.fixture(scope="module")
def samples(data):
    return {kind: build_pairs(data.clips, kind, max_pairs=100).pairs for kind in ("prosody", "semantic")}


@pytest.fixture(scope="module")
def patched(subject, samples):
    """The records of 100 pairs of each kind at layer 0."""
    return {kind: run_table(subject, load_intervention("patch"), pairs, layers=[0]) for kind, pairs in samples.items()}


@pytest.fixture(scope="module")
def flips(patched, data):
    """Eligible pairs patched at layer 0, with whether B's answer by the rule is the target."""
    answers = {clip.clip_id: rule(clip) for clip in data.clips}
    tables = {kind: table.query("eligible") for kind, table in patched.items()}
    return {
        kind: table.assign(should=table["clip_b"].map(answers) == table["target"]) for kind, table in tables.items()
    }


def test_the_clips_are_thirty_texts_in_five_prosodies_by_two_voices(data):
    assert len(data.clips) == 150 and not data.warnings
    texts = {clip.text_id: clip for clip in data.clips}
    for label in LABELS:
        mine = [clip for clip in texts.values() if clip.semantic_label == label]
        assert sorted(clip.text_type for clip in mine) == ["explicit"] * 3 + ["implicit"] * 3
        assert sorted(clip.speaker for clip in mine) == ["f1"] * 3 + ["m1"] * 3


def test_loudness_does_not_give_the_prosody_away(data):
    for clip in data.clips:
        sound, rate = soundfile.read(clip.path)
        assert rate == 16_000 and sound.ndim == 1
        assert np.sqrt(np.mean(sound**2)) == pytest.approx(0.05, rel=0.02)


def test_the_whole_demo_is_small():
    sizes = [path.stat().st_size for folder in (DEMO_DATA, DEMO_MODEL) for path in folder.rglob("*")]
    assert sum(sizes) < 24e6 and max(sizes) < 20e6


def test_the_model_answers_by_its_rule(subject, data):
    right = {"explicit": [], "implicit": []}
    for clip in data.clips:
        answer = subject.clips.unpatched(clip)
        right[clip.text_type].append(LABELS[int(answer.logits.argmax())] == rule(clip))
        assert answer.mass.item() > 0.99
    assert np.mean(right["explicit"]) >= 0.93 and np.mean(right["implicit"]) >= 0.93


@pytest.mark.parametrize("kind", ["prosody", "semantic"])
def test_pairs_flip_where_the_rule_says_so_and_not_elsewhere(flips, kind):
    # The rest is alignment: a feeling word late in a longer B is lost, and a longer A keeps its own end.
    rate = flips[kind].groupby("should")["flip_to_target"].mean()
    assert rate[True] > 0.75 and rate[False] < 0.15


def test_only_implicit_prosody_pairs_and_mostly_explicit_semantic_donors_should_flip(flips, data):
    types = {clip.clip_id: clip.text_type for clip in data.clips}
    prosody, semantic = (flips[kind].query("should") for kind in ("prosody", "semantic"))
    assert (prosody["clip_a"].map(types) == "implicit").all()
    assert (semantic["clip_b"].map(types) == "explicit").mean() > 0.7


def test_a_breakdown_by_text_type_shows_the_rule(patched, samples):
    found = metrics_by(patched["prosody"], samples["prosody"], "text_type").set_index("text_type")
    rates = found["flip_to_target_rate_eligible"]
    assert rates["implicit"] > 0.9 and rates["explicit"] < 0.2


def test_the_voice_is_needed_for_fewer_layers_than_the_words(subject, data):
    """Midpoints of 2.0 and 4.4 were measured with plain hooks on 60 other clips."""
    sample = build_pairs(data.clips, "prosody", max_pairs=40)
    pairs = clips_in_conflict(sample, data.clips)
    records = run_table(subject, load_intervention("need"), pairs)
    rows = pd.DataFrame([to_builtins(pair_row(pair)) for pair in pairs])
    found = need(records, rows, n_layers=10).statistics
    for follows, midpoint in (("voice", 2.0), ("words", 4.4)):
        assert found[follows]["low"] < midpoint < found[follows]["high"]
    assert found["difference"]["high"] < 0
