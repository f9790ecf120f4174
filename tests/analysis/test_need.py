"""Until which layer A's span is needed: which clips count, and the numbers by hand."""

from types import SimpleNamespace

import pandas as pd
import pytest

from voicepatch.analysis.need import ANY, LOST, VOICE, WORDS, need_of

N_LAYERS = 6


def clips(last, voice="sad", words="happy", answer="sad", first=0):
    """Clips with a text each, whose answer changes where the span is blocked from a layer up to `last` on."""
    return pd.DataFrame(
        {
            "name": [f"c{first + number}" for number in range(len(last))],
            "last": last,
            "voice": voice,
            "words": words,
            "answer": answer,
        }
    )


def experiment(table, layers=range(N_LAYERS), finished=True, name="need-prosody"):
    """A finished knock-out of these clips, as its results are read."""
    rows = [
        {
            "pair_id": f"clip:{clip.name}",
            "layer": layer,
            "pred_base": clip.answer,
            "flip_from_base": layer <= clip.last,
        }
        for clip in table.itertuples(index=False)
        for layer in layers
    ]
    pairs = pd.DataFrame(
        {
            "pair_id": "clip:" + table["name"],
            "clip_a": table["name"],
            "text_id_a": table["name"],
            "text_id_b": table["name"],
            "prosody_label_b": table["voice"],
            "semantic_label_b": table["words"],
            "speaker_a": "f",
            "speaker_b": "f",
        }
    )
    settings = {"beside_main": True, "layers_to_patch": list(layers), "intervention": "need"}
    tables = {"records": pd.DataFrame(rows), "measured_pairs": pairs, "pairs": pairs}
    kind = name.removeprefix("need-")
    return SimpleNamespace(name=name, kind=kind, settings=settings, is_main=False, is_curve=finished, seed=42, **tables)


def main(clips, kind="prosody"):
    """A main experiment with these clips as its recipients."""
    pairs = pd.DataFrame({"clip_a": clips, "clip_b": clips})
    return SimpleNamespace(name=kind, kind=kind, settings={"beside_main": False}, is_main=True, pairs=pairs)


def found(*experiments, damaged=()):
    config = {"model": {"n_layers": N_LAYERS}, "experiments": {name: {"beside_main": True} for name in damaged}}
    return need_of(SimpleNamespace(valid=experiments, invalid=dict.fromkeys(damaged, "damaged"), config=config))


BOTH = pd.concat([clips([1, 1, 2, 1, 1, 2, 1]), clips([3, 4, 3, 4, 3, 3, 4], answer="happy", first=7)])


def test_the_share_of_lost_answers_by_layer_and_label():
    table = found(experiment(BOTH)).table
    assert list(table.columns) == ["follows", "layer", "n_clips", LOST, f"{LOST}_low", f"{LOST}_high"]
    shares = table.set_index(["follows", "layer"])[LOST]
    assert shares[VOICE].tolist() == pytest.approx([1, 1, 2 / 7, 0, 0, 0])
    assert shares[WORDS].tolist() == pytest.approx([1, 1, 1, 1, 3 / 7, 0])
    assert (table["n_clips"] == 7).all()


def test_the_midpoints_and_the_difference_of_the_areas():
    statistics = found(experiment(BOTH)).statistics
    assert statistics[VOICE]["layer"] == pytest.approx(1 + 0.5 / (5 / 7))
    assert statistics[WORDS]["layer"] == pytest.approx(3 + 0.5 / (4 / 7))
    areas = [0.5 + 1 + 2 / 7, 0.5 + 3 + 3 / 7]
    assert statistics[VOICE]["area"]["area"] == pytest.approx(areas[0])
    assert statistics["difference"]["difference"] == pytest.approx(areas[0] - areas[1])
    assert statistics["difference"]["high"] < 0 and statistics["difference"]["p"] < 0.01


def test_an_answer_that_needs_the_span_at_every_layer_falls_where_nothing_is_blocked():
    statistics = found(experiment(clips([N_LAYERS - 1] * 8))).statistics
    assert statistics[VOICE]["layer"] == pytest.approx(N_LAYERS - 0.5)
    assert statistics[VOICE]["area"]["area"] == pytest.approx(N_LAYERS - 0.5)


def test_without_the_last_layer_nothing_is_known_of_the_end():
    statistics = found(experiment(clips([5] * 8), layers=[0, 2])).statistics
    assert statistics[VOICE]["layer"] is None and "does not fall" in statistics[VOICE]["reason"]


def test_a_clip_of_both_kinds_of_pairs_counts_once_and_other_answers_do_not():
    neither, agreeing = clips([1] * 3, answer="angry", first=20), clips([1] * 3, words="sad", first=30)
    need = found(experiment(pd.concat([BOTH, neither])), experiment(pd.concat([BOTH[:5], agreeing])))
    assert need.statistics[VOICE]["n_clips"] == need.statistics[WORDS]["n_clips"] == 7
    assert len(need.pairs) == 14


def test_clips_whose_labels_agree_are_one_group():
    need = found(experiment(clips([2] * 7, words="sad")))
    assert list(need.table["follows"].unique()) == [ANY] and need.statistics["difference"] is None


def test_a_task_without_words_has_the_voice_alone():
    need = found(experiment(pd.concat([clips([2] * 7, words=None), clips([4] * 3, None, None, "sad", first=9)])))
    assert list(need.table["follows"].unique()) == [VOICE] and need.statistics[VOICE]["n_clips"] == 7


def test_no_answer_by_either_label_leaves_an_empty_table():
    need = found(experiment(clips([2] * 7, answer="angry")))
    assert need.table.empty and need.statistics["difference"] is None


def test_an_unfinished_knock_out_does_not_count():
    assert found(experiment(BOTH, finished=False)) is None


def test_knock_outs_at_other_layers_do_not_count_together_and_the_reason_is_given():
    need = found(experiment(BOTH[:7]), experiment(BOTH[7:], layers=[0, 1], name="need-semantic"))
    assert list(need.table["follows"].unique()) == [VOICE] and need.names == ["need-prosody"]
    (line,) = need.left_out_lines
    assert line.startswith(
        "need-semantic does not count: it ran at layers 0-1, need-prosody at 0-5; python cli.py need"
    )


def test_a_knock_out_on_other_clips_than_the_main_experiments_does_not_count():
    need = found(experiment(BOTH), main(["c0", "c1"]))
    assert need.names == [] and need.table.empty
    assert need.left_out_lines == [
        "need-prosody does not count: it ran on other clips than the prosody pairs; python cli.py need --pairs prosody "
        "--overwrite runs it again"
    ]
    assert found(experiment(BOTH), main(BOTH["name"])).names == ["need-prosody"]
    assert found(experiment(BOTH), main(["c0"], "semantic")).names == ["need-prosody"]


def test_a_damaged_knock_out_is_named():
    need = found(experiment(BOTH), damaged=["need-semantic"])
    assert need.left_out_lines == ["need-semantic does not count: its files do not hold together"]


def test_the_reason_without_a_height_is_that_of_a_knock_out():
    statistics = found(experiment(clips([-1] * 7))).statistics
    assert statistics[VOICE]["reason"].startswith("the rate starts no higher than 0")
