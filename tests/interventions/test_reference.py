"""docs/interventions.md names every member of `lm`, `pair` and a clip, and the experiments keep to its form."""

import ast
import re
from pathlib import Path

import pytest

from engine.pair_input import PairInput
from engine.written import WrittenLM
from interventions import catalogue
from models.speech_lm import ClipInput
from tests.engine.decoders import make_llm

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "interventions.md").read_text(encoding="utf-8")
PLUMBING = {
    "read",
    "write",
    "whole",
    "beyond",
    "layer",
    "writes",
    "forget",
    "went_beyond",
    "unembedded",
    "traced",
}  # what the engine uses


def documented(thing):
    return set(re.findall(rf"^\| `{thing}\.(\w+)", TEXT, flags=re.MULTILINE))


def members(thing):
    names = {*dir(thing), *vars(thing), *getattr(thing, "__dataclass_fields__", ())}
    return {name for name in names if not name.startswith("_")} - {"save"}  # which nnsight gives to every object


def test_every_member_of_lm_is_there():
    assert documented("lm") == members(WrittenLM(make_llm())) - PLUMBING


@pytest.mark.parametrize(("thing", "kind"), [("pair", PairInput), ("clip", ClipInput)])
def test_every_member_of_a_pair_and_a_clip_is_there(thing, kind):
    assert documented(thing) == members(kind)


def test_the_example_is_the_main_experiment():
    def code(text):
        (function,) = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
        return ast.dump(ast.Module(function.body[1:], []))  # whatever its docstring

    shown = re.search(r"```python\n(@intervention\ndef patch.*?)```", TEXT, flags=re.DOTALL)[1]
    assert code(shown) == code((ROOT / "interventions" / "patch.py").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", catalogue())
def test_no_body_is_longer_than_ten_lines(name):
    entry = catalogue()[name]
    tree = ast.parse(entry.path.read_text(encoding="utf-8"))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list]
    body = function.body[1:] if ast.get_docstring(function) else function.body
    assert body[-1].end_lineno - body[0].lineno + 1 <= 10
