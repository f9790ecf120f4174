"""What `new` writes is an experiment as it stands."""

import ast

import pytest

from voicepatch.errors import UserError
from voicepatch.paths import ROOT
from voicepatch.registry.catalogue import add_plugin, catalogue
from voicepatch.registry.template import write_template


def body(path):
    """The code of an experiment, without its docstring and with a value that is named on the way put in place."""
    function = next(node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))
    return ast.unparse(function.body[1:]).replace("    value = donor\n", "").replace("value = donor\n", "")


@pytest.mark.parametrize("name", ["my-idea", "my_idea"])
def test_it_is_an_experiment_under_the_name_that_is_shown(tmp_path, name):
    path = write_template(name, tmp_path)
    add_plugin(path)
    assert path.name == "my_idea.py" and catalogue()["my-idea"].options["alpha"].default == 1.0
    assert "python cli.py my-idea" in catalogue()["my-idea"].summary


def test_it_is_patch_with_a_place_to_change_the_value(tmp_path):
    written = body(write_template("my-idea", tmp_path))
    patch = body(ROOT / "interventions" / "patch.py").replace("a_at, b_at = pair.positions(at)\n", "")
    over_the_span = patch.replace("b_at], at)", "pair.b_span])").replace("a_at", "pair.a_span")
    assert written.replace(", value, ", ", donor, ") == over_the_span


@pytest.mark.parametrize("name", ["patch", "no_conflict", "torch", "class", "_x", "not a name", "a/b", ""])
def test_a_name_that_is_taken_or_none_is_refused(tmp_path, name):
    with pytest.raises(UserError):
        write_template(name, tmp_path)
    assert not list(tmp_path.iterdir())
