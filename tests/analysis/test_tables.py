"""Tables of records written by hand, whose cells can be counted."""

import pandas as pd
import pytest

from voicepatch.analysis.tables import all_tables, unpatched

CONFLICTS = "Unpatched answers of clips whose two labels differ"
LABELS = ["neutral", "happy", "sad", "angry", "surprised"]


def logits(answer):
    return {label: 4.0 * (label == answer) for label in LABELS}


def pair(pair_id, clip_a, clip_b, target, kind="prosody"):
    """A clip is named text/words/voice."""
    sides = {}
    for side, clip in (("a", clip_a), ("b", clip_b)):
        text, words, voice = clip.split("/")
        sides |= {f"clip_{side}": clip, f"text_id_{side}": text, f"text_type_{side}": text.rstrip("0123456789")}
        sides |= {f"semantic_label_{side}": words, f"prosody_label_{side}": voice}
    return {"pair_id": pair_id, "kind": kind, "target": target} | sides


def record(of, base, donor, patch, layer, len_a=10, len_b=10, alpha=1.0):
    copied = {key: of[key] for key in ("pair_id", "clip_a", "clip_b", "target", "semantic_label_b", "prosody_label_b")}
    return copied | {
        "layer": layer,
        "patch_alpha": alpha,
        "pred_base": base,
        "pred_patch": patch,
        "eligible": base != of["target"],
        "flip_to_target": patch == of["target"],
        "logits_base": logits(base),
        "logits_patch": logits(patch),
        "logits_donor": logits(donor),
        "len_a": len_a,
        "len_b": len_b,
        "label_mass_base": 0.5,
        "label_mass_patch": 0.9,
    }


@pytest.fixture
def experiment():
    """Three pairs at two layers: one flips at both, one at the first, one has the target from the beginning."""
    pairs = [
        pair("p1", "plain1/sad/angry", "plain1/sad/happy", "happy"),  # the voice wins in A and in B
        pair("p2", "clear1/sad/happy", "clear1/sad/angry", "angry"),  # the words win in A; in B it is neither's
        pair("p3", "plain1/sad/happy", "plain1/sad/angry", "angry"),  # both clips known from p1
    ]
    answers = {"p1": ("angry", "happy"), "p2": ("sad", "neutral"), "p3": ("angry", "angry")}
    patched = {"p1": ("happy", "happy"), "p2": ("angry", "sad"), "p3": ("angry", "angry")}
    lengths = {"p1": (10, 10), "p2": (10, 20), "p3": (20, 18)}
    rows = [
        record(one, *answers[one["pair_id"]], patched[one["pair_id"]][layer], layer, *lengths[one["pair_id"]])
        for layer in (0, 1)
        for one in pairs
    ]
    return pd.DataFrame(rows), pd.DataFrame(pairs)


def test_rates_by_label_are_over_the_eligible_pairs_of_the_group(experiment):
    table = all_tables(*experiment)["By target label"]
    assert table.index.tolist() == ["happy", "angry"]  # in the order of the labels
    assert table["pairs"].tolist() == [1, 2] and table["eligible"].tolist() == [1, 1]
    assert table["flip_to_target_rate_eligible, layer 0"].tolist() == [1, 1] and table[
        "flip_to_target_rate_eligible, layer 1"
    ].tolist() == [1, 0]
    both = all_tables(*experiment)["By label of A and B"]
    assert both.index.tolist() == [("happy", "angry"), ("angry", "happy")] and both["pairs"].tolist() == [2, 1]


def test_semantic_pairs_are_told_apart_by_their_words(experiment):
    records, pairs = experiment
    both = all_tables(records, pairs.assign(kind="semantic"))["By label of A and B"]
    assert both.index.tolist() == [("sad", "sad")]


def test_the_difference_in_length_is_taken_of_the_longer_span(experiment):
    table = all_tables(*experiment)["By difference in length"]
    assert table.index.tolist() == ["B shorter by 5 to 25 %", "equal within 5 %", "B longer by over 25 %"]
    assert table["median len_b − len_a, positions"].tolist() == [-2, 0, 10]
    assert table["flip_to_target_rate_eligible, layer 1"].isna().tolist() == [True, False, False]  # p3 is not eligible


def test_a_clip_is_counted_once_with_its_own_answer(experiment):
    clips = unpatched(*experiment).set_index("clip_id")
    assert clips["answer"].to_dict() == {
        "clear1/sad/angry": "neutral",
        "clear1/sad/happy": "sad",
        "plain1/sad/angry": "angry",
        "plain1/sad/happy": "angry",  # as A, which comes before B
    }
    assert clips["label_mass"].notna().tolist() == [False, True, True, True]  # known of clips A
    assert clips["text_id"].tolist() == ["clear1", "clear1", "plain1", "plain1"]


def test_answers_are_held_against_the_words_and_against_the_voice(experiment):
    tables = all_tables(*experiment)
    words, voice = (tables[f"Unpatched answers by {by} label"] for by in ("semantic", "prosody"))
    assert words.index.tolist() == voice.index.tolist() == LABELS
    assert words.loc["sad"].tolist()[:5] == [1, 0, 1, 2, 0] and words.loc["sad", "agreement"] == 0.25
    assert voice.loc["angry", "answers angry"] == 1 and voice.loc["angry", "agreement"] == 0.5
    assert words.loc["happy"].tolist()[:5] == [0] * 5 and pd.isna(words.loc["happy", "agreement"])


def test_conflict_clips_say_who_wins(experiment):
    table = all_tables(*experiment)[CONFLICTS]
    assert table.loc["all"].tolist() == [4, 0.25, 0.25, 0.5]
    assert table.loc["clear texts"].tolist() == [2, 0.5, 0, 0.5]
    records, pairs = experiment
    without_type = all_tables(records, pairs.drop(columns=["text_type_a", "text_type_b"]))
    assert without_type[CONFLICTS].index.tolist() == ["all"]


def test_a_clip_whose_words_and_voice_agree_is_no_conflict(experiment):
    records, pairs = experiment
    agreeing = pairs.assign(prosody_label_a="sad", prosody_label_b="sad")
    assert all_tables(records, agreeing)[CONFLICTS].loc["all", "clips"] == 0


def test_the_mass_of_the_labels_is_told_before_and_after_patching(experiment):
    table = all_tables(*experiment)["Probability mass of the labels"]
    assert table["readouts"].tolist() == [3, 3, 3] and table["median"].tolist() == [0.5, 0.9, 0.9]


def test_of_many_layers_and_doses_a_few_layers_at_the_highest_dose_are_shown(experiment):
    records, pairs = experiment
    deep = pd.concat([records[records["layer"] == 0].assign(layer=layer) for layer in range(36)])
    weak = deep.assign(patch_alpha=0.5, flip_to_target=False)
    table = all_tables(pd.concat([weak, deep]), pairs)["By target label"]
    shown = [column for column in table if column.startswith("flip")]
    assert (
        len(shown) == 6
        and shown[0] == "flip_to_target_rate_eligible, layer 0"
        and shown[-1] == "flip_to_target_rate_eligible, layer 35"
    )
    assert (table[shown] == 1).all(axis=None) and table["pairs"].tolist() == [1, 2]


def test_where_no_pair_is_eligible_the_rates_are_empty(experiment):
    records, pairs = experiment
    table = all_tables(records.assign(eligible=False), pairs)["By target label"]
    assert table["eligible"].tolist() == [0, 0] and table["flip_to_target_rate_eligible, layer 0"].isna().all()


def test_rates_are_by_the_values_of_a_swept_option(experiment):
    records, pairs = experiment
    swept = pd.concat([records.assign(head=2, flip_to_target=False), records.assign(head=5)])
    table = all_tables(swept, pairs, ["head"])["By target label"]
    assert table.index.tolist() == [(2, "happy"), (2, "angry"), (5, "happy"), (5, "angry")]
    assert table["pairs"].tolist() == [1, 2, 1, 2]
    assert table["flip_to_target_rate_eligible, layer 0"].tolist() == [0, 0, 1, 1]
