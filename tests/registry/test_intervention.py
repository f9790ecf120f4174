"""An experiment is its function, its options, and the hash of all the code that it runs."""

import copy
import pickle
from functools import partial
from typing import Literal

import pytest

from voicepatch.errors import UserError
from voicepatch.registry import intervention as module
from voicepatch.registry import sources
from voicepatch.registry.intervention import intervention
from voicepatch.registry.options import ALL
from voicepatch.registry.plugins import run_file

PATCH = '''\
"""The file's docstring."""
from voicepatch.registry.intervention import intervention

@intervention
def patch(lm, pair, layer, alpha=1.0):
    """One line."""
    return alpha  # a comment
'''
SELF = """\
from voicepatch.registry.intervention import intervention
from interventions.patch import patch

@intervention
def self(lm, pair, layer, alpha=1.0):
    return patch(lm, pair, layer, alpha)
"""


def test_a_decorated_function_is_an_experiment_that_can_be_called():
    @intervention(range_of={"head": "n_heads"}, may_be_noop=True)
    def one_head(lm, pair, layer, head, alpha=0.5):
        """One line."""
        return lm, pair, layer, head, alpha

    assert (one_head.name, one_head.doc, one_head.control, one_head.may_be_noop) == (
        "one-head",
        "One line.",
        False,
        True,
    )
    assert {option.name: option.default for option in one_head.options.values()} == {"head": ALL, "alpha": 0.5}
    assert one_head("lm", "pair", 3, head=7) == ("lm", "pair", 3, 7, 0.5)


def test_an_experiment_with_one_row_for_all_layers_is_called_once_and_takes_no_layers():
    @intervention(by_layer=False)
    def of_a_set(lm, pair, layer):
        return lm

    @intervention
    def of_each(lm, pair, layer):
        return lm

    assert list(of_a_set.layers_called(4, None)) == [0]
    assert list(of_each.layers_called(4, None)) == [0, 1, 2, 3] and list(of_each.layers_called(4, [2])) == [2]
    with pytest.raises(UserError, match="^--layers: of-a-set has one row for all layers; leave --layers out$"):
        of_a_set.layers_called(4, [0])


def test_a_function_in_a_notebook_is_held_to_the_same_rules():
    with pytest.raises(UserError, match=r"test_intervention.py:\d+: old must take \(lm, pair, layer\)"):

        @intervention
        def old(lm, pair, layers): ...


def test_choices_are_those_of_the_annotation_however_it_is_written():
    @intervention
    def first(lm, pair, layer, where: Literal["start", "end"] = "start", k: "Literal[1, 3]" = 3, scale: float = 1): ...

    assert [option.choices for option in first.options.values()] == [("start", "end"), (1, 3), ()]
    assert [repr(option.default) for option in first.options.values()] == ["'start'", "3", "1.0"]

    with pytest.raises(UserError, match="the option where of wrong: its default 'End' is not one of start, end"):

        @intervention
        def wrong(lm, pair, layer, where: Literal["start", "end"] = "End"): ...

    @intervention
    def other(lm, pair, layer, where: "Nowhere" = "any", more: list[str] | None = 1): ...  # noqa: F821

    assert not any(option.choices for option in other.options.values())


@pytest.mark.parametrize("thing", [partial(print), print, 3, lambda lm, pair, layer: 0, type("Some", (), {})()])
def test_what_is_no_function_is_no_experiment(thing):
    with pytest.raises(UserError, match="@intervention must stand before a function"):
        intervention(thing)


def test_all_is_one_and_reads_all():
    assert str(ALL) == "all"
    assert copy.deepcopy(ALL) is pickle.loads(pickle.dumps(ALL)) is ALL


@pytest.fixture
def hashed(tmp_path, monkeypatch):
    """The hash of an experiment whose file, and whose neighbours in the folder, hold these texts."""
    monkeypatch.setattr(sources, "_folders", {tmp_path: "interventions"})

    def code_hash(text, **neighbours):
        for name, source in neighbours.items():
            (tmp_path / f"{name}.py").write_text(source)
        path = tmp_path / "idea.py"
        path.write_text(text.replace("from interventions.patch import patch", "patch = 0  #IMPORT"))
        experiment = next(value for value in vars(run_file(path)).values() if isinstance(value, module.Intervention))
        path.write_text(text)
        return experiment.code_hash()

    return code_hash


def test_comments_and_docstrings_are_no_code(hashed):
    other = PATCH.replace("a comment", "another").replace("One line.", "Two.").replace("The file's", "Its")
    assert hashed(PATCH) == hashed(other)


def test_other_code_has_another_hash(hashed):
    assert hashed(PATCH) != hashed(PATCH.replace("return alpha", "return alpha + 1"))


@pytest.mark.parametrize(
    "words", ["from interventions.patch import patch", "from interventions import patch", "import interventions.patch"]
)
def test_the_code_of_an_experiment_that_it_calls_is_its_code(hashed, words):
    text = SELF.replace("from interventions.patch import patch", f"def later():\n    {words}\n")
    before = hashed(text, patch=PATCH)
    assert hashed(text, patch=PATCH.replace("a comment", "another")) == before
    assert hashed(text, patch=PATCH.replace("return alpha", "return 0")) != before


def test_what_is_called_indirectly_counts_and_a_circle_ends(hashed):
    neighbours = {"patch": f"from interventions.help import f\n{PATCH}", "help": "import interventions.patch\nf = 1"}
    before = hashed(SELF, **neighbours)
    assert hashed(SELF, **neighbours | {"help": "import interventions.patch\nf = 2"}) != before


def test_what_is_not_called_is_not_its_code(hashed):
    assert hashed(PATCH, noise="a = 1") == hashed(PATCH, noise="a = 2")
