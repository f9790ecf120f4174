"""What a value of the command line or of a settings file becomes, and what is refused."""

import click
import pytest

from voicepatch.commandline.param_types import InterventionName, controls, option_type
from voicepatch.registry.options import ALL, ALPHA, Option
from voicepatch.types.setting import LAYERS


def values(option, word):
    return option_type(option if isinstance(option, Option) else Option("option", option, 1)).read(word)


def refused(option, word):
    with pytest.raises(ValueError) as error:
        values(option, word)
    return str(error.value)


@pytest.mark.parametrize(
    ("kind", "word", "expected"),
    [
        (int, "7", (7,)),
        (int, "0,3,5-7", (0, 3, 5, 6, 7)),
        (int, "-1,2", (-1, 2)),
        (int, "0-15", tuple(range(16))),
        (int, [0, "2-3"], (0, 2, 3)),
        (int, 4, (4,)),
        (float, "0.1,0.25,1", (0.1, 0.25, 1.0)),
        (float, " 1e-3 , 2", (0.001, 2.0)),
        (float, [0.25, 1], (0.25, 1.0)),
        (str, "mean,max", ("mean", "max")),
        (str, "mean", ("mean",)),
        (bool, "true,false", (True, False)),
        (bool, False, (False,)),
        (bool, [True, False], (True, False)),
    ],
)
def test_values_are_read_in_order(kind, word, expected):
    found = values(kind, word)
    assert found == expected and [type(one) for one in found] == [kind] * len(expected)


def test_all_stands_for_what_the_model_has_where_the_option_runs_over_it():
    head = Option("head", int, ALL, range_of="n_heads")
    assert values(head, "all") is values(head, ALL) is ALL
    assert "'all' is not a whole number" in refused(int, "all")


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        *[(int, word) for word in ("", ",", "1,", "1.5", "x", "3-1", "1-", "--1", "1-2-3", "0-99999", "9" * 30)],
        *[(int, word) for word in ("9" * 5000, True, [True], [1.5])],
        *[(float, word) for word in ("", "x", "nan", "inf", "-inf", "1e999", "0.1;0.2", True, [float("nan")])],
        *[(str, word) for word in ("", ",", "a,", "a,,b")],
        *[(bool, word) for word in ("", "maybe", "2", "true,")],
        *[(kind, []) for kind in (int, float, str, bool)],
    ],
)
def test_an_invalid_value_is_refused(kind, word):
    refused(kind, word)


@pytest.mark.parametrize(
    ("kind", "word"), [(int, "1,1"), (int, "0-3,2"), (float, "1,1.0"), (str, "a,a"), (bool, "true,yes")]
)
def test_a_value_that_is_given_twice_is_refused(kind, word):
    assert "each value once" in refused(kind, word)


@pytest.mark.parametrize("word", ["0", "1.5", "-0.5", "0.5,2", [0.5, 0]])
def test_every_dose_is_in_its_range(word):
    assert "not in the range 0<x<=1" in refused(ALPHA, word)


def test_an_intervention_is_named_in_either_spelling():
    named = InterventionName()
    assert named.convert("no_conflict", None, None) == named.convert("no-conflict", None, None) == "no-conflict"
    assert named.convert("all", None, None) == "all"
    for name in ("patch", "nothing"):
        with pytest.raises(click.BadParameter, match="is not one of"):
            named.convert(name, None, None)


def test_the_control_that_must_change_nothing_comes_first():
    assert controls()[0] == "self" and "steer" not in controls()


def test_layers_are_read_as_a_set():
    assert LAYERS.read("22,20,24-26,20") == (20, 22, 24, 25, 26)
    assert LAYERS.read([1, "3-4"]) == (1, 3, 4)
    assert LAYERS.read("all") is None
