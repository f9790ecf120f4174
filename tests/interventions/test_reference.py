"""docs/interventions.md names every member of `lm`, `pair` and a clip; its examples run; experiments have its form."""

import ast
import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from interventions import catalogue
from tests.engine.decoders import by_hooks, make_clip, make_llm, value_at
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import PairInput, align
from voicepatch.engine.written import WrittenLM
from voicepatch.models.speech_lm import ClipInput

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "interventions.md").read_text(encoding="utf-8")
PLUMBING = {
    "read",
    "write",
    "raw_output",
    "raw_attribute",
    "used_raw_attribute",
    "clip_copies",
    "copying_clips",
    "layer",
    "writes",
    "forget",
    "went_beyond",
    "reached_model",
    "unembedded",
    "handed_out",
    "handing_out",
    "traces",
    "ending_early",
    "is_of_earlier_trace",
    "cache",
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
    assert documented(thing) == members(kind) - PLUMBING


def test_the_example_is_the_main_experiment():
    def code(text):
        (function,) = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
        return ast.dump(ast.Module(function.body[1:], []))  # whatever its docstring

    shown = re.search(r"```python\n(@intervention\ndef patch.*?)```", TEXT, flags=re.DOTALL)[1]
    assert code(shown) == code((ROOT / "interventions" / "patch.py").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", catalogue())
def test_no_body_is_longer_than_thirteen_lines(name):
    entry = catalogue()[name]
    tree = ast.parse(entry.path.read_text(encoding="utf-8"))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list]
    body = function.body[1:] if ast.get_docstring(function) else function.body
    assert body[-1].end_lineno - body[0].lineno + 1 <= 13


@pytest.fixture
def example(tmp_path):
    """`example(name)`: the example of the documentation that has this experiment, imported from a file."""

    def load(name):
        blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
        (block,) = [block for block in blocks if re.search(rf"@intervention(\(.*\))?\ndef {name}\(", block)]
        path = tmp_path / f"{name}.py"
        path.write_text(f"import torch\n\nfrom interventions import intervention\n\n\n{block}", encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, name)

    return load


@pytest.fixture
def pair():
    clips = [make_clip(4, seed=3), make_clip(7, seed=4)]
    aligned = align(make_clip(6, seed=1), make_clip(9, seed=2))
    return replace(aligned, target_clips=lambda: clips, target="sad", label_ids={"happy": 9, "sad": 7}, cache={})


def readout(llm, engine, experiment, pair, **options):
    return Engine(llm, engine).readouts(experiment, pair, [1], [options]).logits[1]


@pytest.mark.parametrize("engine", ["tail", "sweep", "stepwise"])
class TestExamples:
    def test_a_step_along_the_gradient(self, llm, pair, example, engine):
        found = {}

        def require(value):
            found["stream"] = value.detach().clone().requires_grad_()
            return found["stream"]

        block = llm.model.layers[1]
        handle = block.register_forward_hook(lambda module, args, output: require(output))
        with torch.enable_grad():
            logits = llm(inputs_embeds=pair.a.inputs_embeds, use_cache=False, logits_to_keep=1).logits[0, -1]
            logits[7].backward()
        handle.remove()
        gradient = found["stream"].grad

        def write(value):
            value[:, pair.a_span] += 20 * gradient[:, pair.a_span]

        expected = by_hooks(llm, pair.a, (1, "", "output", write))
        assert expected[7] > logits[7] + 1e-2
        torch.testing.assert_close(
            readout(llm, engine, example("uphill"), pair, step=20.0), expected, atol=2e-5, rtol=0
        )

    def test_a_knockout(self, llm, pair, example, engine):
        def hide(module, args, kwargs):
            n = pair.a.readout_pos + 1
            seen = torch.ones(n, n).tril()
            seen[pair.a.span.stop :, pair.a.span] = 0
            return args, {**kwargs, "attention_mask": torch.where(seen == 1, 0.0, -torch.inf)[None, None]}

        blocks = llm.model.layers[1:]
        handles = [block.self_attn.register_forward_pre_hook(hide, with_kwargs=True) for block in blocks]
        expected = by_hooks(llm, pair.a)
        for handle in handles:
            handle.remove()
        assert (expected - by_hooks(llm, pair.a)).abs().max() > 1e-2
        torch.testing.assert_close(readout(llm, engine, example("knockout"), pair), expected, atol=2e-5, rtol=0)

    def test_what_is_made_of_the_target_clips(self, llm, pair, example, engine):
        spans = torch.cat([value_at(llm, clip, 1, "", "output")[0, clip.span] for clip in pair.target_clips()])
        directions = torch.linalg.svd(spans - spans.mean(0), full_matrices=False).Vh[:3]

        def write(value):
            value[:, pair.a_span] -= value[:, pair.a_span] @ directions.mT @ directions

        expected = by_hooks(llm, pair.a, (1, "", "output", write))
        torch.testing.assert_close(readout(llm, engine, example("projected"), pair, k=3), expected, atol=1e-4, rtol=0)
