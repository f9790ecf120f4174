"""Which parts rank highest, and the sets of them that are patched exactly."""

import pandas as pd
import pytest

from pairs import build_pairs
from pairs.controls import halves_of_texts, of_other_texts
from voicepatch.analysis.ranking import ALONE, JOINT, RANDOM, WITHOUT, ranked, roles, sets_of, too_few
from voicepatch.errors import UserError

NAMES = [f"{layer}.{part}" for layer in range(4) for part in (0, 1, 2, 3, 4, "mlp")]


def test_the_part_that_raises_the_targets_logit_most_is_first_and_other_pairs_do_not_count():
    rows = [("p", 0, 1, 0.5), ("p", 1, "mlp", 2.0), ("p", 1, 0, -3.0), ("q", 0, 1, 0.7), ("other", 1, 0, 99.0)]
    records = pd.DataFrame(rows, columns=["pair_id", "layer", "head", "delta_logit_target"])
    assert ranked(records, ["p", "q"]) == ["1.mlp", "0.1", "1.0"]


def test_the_sets_are_what_their_roles_say():
    found = dict(zip(roles(3, 2), sets_of(NAMES, 3, 2, seed=1), strict=True))
    assert len(set(found.values())) == len(found)
    assert [found[JOINT, k, 0] for k in (1, 2, 3)] == ["0.0", "0.0+0.1", "0.0+0.1+0.2"]
    assert [found[ALONE, k, 0] for k in (2, 3)] == ["0.1", "0.2"] and found[WITHOUT, 2, 0] == "all-0.0-0.1"
    for draw in range(2):
        drawn = found[RANDOM, 2, draw].split("+")
        assert len(drawn) == 2 and {name.split(".")[0] for name in drawn} == {"0"} and not set(drawn) & set(NAMES[:3])
    assert sets_of(NAMES, 3, 2, seed=1) == list(found.values()) != sets_of(NAMES, 3, 2, seed=2)


@pytest.mark.parametrize(("top", "draws", "flag"), [(13, 1, "--top"), (1, 60, "--draws")])
def test_more_sets_than_the_model_has_parts_for_are_refused(top, draws, flag):
    with pytest.raises(UserError, match=flag):
        sets_of(NAMES, top, draws, seed=1)


@pytest.mark.parametrize(("n_pairs", "n_texts"), [(9, 6), (10, 5), (0, 0), (1, 1)])
def test_few_pairs_or_texts_are_a_warning_with_their_number(n_pairs, n_texts):
    texts = [f"t{i % n_texts}" for i in range(n_pairs)]
    (line,) = too_few("ranked on", pd.DataFrame({"text_id_a": texts, "text_id_b": texts}, dtype=object))
    assert line.startswith(f"the parts are ranked on {n_pairs} pair") and f" of {n_texts} text" in line


def test_ten_pairs_of_six_texts_are_enough():
    texts = [f"t{i % 6}" for i in range(10)]
    assert too_few("ranked on", pd.DataFrame({"text_id_a": texts, "text_id_b": texts})) == []


def test_no_text_of_one_half_is_in_the_other(demo_data):
    sample = build_pairs(demo_data.clips, "semantic", 200)
    one, other = halves_of_texts(sample.pairs, 42)
    texts = [{clip.text_id for pair in half for clip in (pair.a, pair.b)} for half in (one, other)]
    assert len(one) > 20 and len(other) > 20 and not texts[0] & texts[1]
    assert [pair.b for pair in of_other_texts(sample, demo_data.clips)] == [pair.b for pair in other]
