"""The body that nnsight runs is the one that Python runs: by the same lines, of the same text."""

import importlib
import sys

import pytest

from tests.engine.decoders import by_hooks, make_clip
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.errors import UserError

LAYER = 1
# Runs as written, since a value is read after the first write; an earlier trace has another body at the same depth.
SOURCE = """
from interventions import intervention

def above(lm, clip, layer):
    with lm.trace(clip):
        stream = lm.layers_output[layer].mul_(7).save()
        stream = lm.layers_output[layer + 1].mul_(5).save()
    return stream

NOTE = "MARK"

@intervention
def scaled(lm, pair, layer):
    with lm.trace(pair.a):
        lm.layers_output[layer][:, pair.a_span] *= FACTOR
        lm.layers_output[layer + 1][:, pair.a_span] *= FACTOR
        logits = lm.logits.save()
    return logits
"""
ENGINES = ["tail", "sweep", "stepwise"]


@pytest.fixture
def pair():
    return align(make_clip(6, seed=1), make_clip(9, seed=2))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """`module(factor, mark)` writes the file and imports it, or loads it again."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = f"experiment_{tmp_path.name.replace('-', '_')}"
    path = tmp_path / f"{name}.py"

    def load(factor=2, mark="", newline="\n"):
        write(factor, mark, newline)
        importlib.invalidate_caches()
        return importlib.reload(sys.modules[name]) if name in sys.modules else importlib.import_module(name)

    def write(factor, mark="", newline="\n"):
        text = SOURCE.replace("FACTOR", str(factor)).replace("MARK", mark)
        path.write_text(text, encoding="utf-8", newline=newline)

    load.write = write
    yield load
    sys.modules.pop(name, None)


def found(llm, experiment, pair, engine):
    return Engine(llm, engine).readouts(experiment, pair, [LAYER], [{}]).logits[1]


def expected(llm, pair, factor):
    def write(value):
        value[:, pair.a_span] *= factor

    return by_hooks(llm, pair.a, (LAYER, "", "output", write), (LAYER + 1, "", "output", write))


def is_close(x, y):
    return bool((x - y).abs().max() < 2e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("character", ["\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_a_character_at_which_only_nnsight_ends_a_line_is_refused_by_line(llm, pair, module, engine, character):
    experiment = module(mark=character * 9).scaled
    with pytest.raises(UserError) as caught:
        found(llm, experiment, pair, engine)
    assert f"{character!r} in line 10 of experiment_" in str(caught.value) and "\n" not in str(caught.value)
    assert ".py:14: " in str(caught.value)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_may_end_as_python_knows_them(llm, pair, module, engine, newline):
    assert is_close(found(llm, module(mark="é\\f", newline=newline).scaled, pair, engine), expected(llm, pair, 2))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_module_that_was_loaded_again_runs_its_new_text(llm, pair, module, engine):
    assert is_close(found(llm, module(2).scaled, pair, engine), expected(llm, pair, 2))
    assert is_close(found(llm, module(3).scaled, pair, engine), expected(llm, pair, 3))
    assert is_close(found(llm, module(0.5).scaled, pair, engine), expected(llm, pair, 0.5))
    assert not is_close(expected(llm, pair, 2), expected(llm, pair, 3))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_that_is_edited_while_its_module_runs_goes_on_as_it_was_loaded(llm, pair, module, engine):
    experiment = module(2).scaled
    assert is_close(found(llm, experiment, pair, engine), expected(llm, pair, 2))
    module.write(3)
    assert is_close(found(llm, experiment, pair, engine), expected(llm, pair, 2))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_that_was_edited_before_its_first_trace_is_refused(llm, pair, module, engine):
    experiment = module(2).scaled
    module.write(3)
    with pytest.raises(UserError, match="was changed after it was loaded"):
        found(llm, experiment, pair, engine)
