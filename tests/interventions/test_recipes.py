"""The recipes of docs/recipes.md are complete plugins, and each gives what plain forward hooks give."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from interventions import load_intervention
from tests.engine.decoders import by_hooks, make_clip, make_llm, value_at
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.registry.catalogue import add_plugin

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
RECIPES = {re.search(r"^@intervention.*\ndef (\w+)", block, flags=re.MULTILINE)[1]: block for block in BLOCKS}
RUNS = dict(re.findall(r"^\| \[`(\w+)`\].*\| (fused|as written) \|$", PAGE, flags=re.MULTILINE))
LAYERS = range(4)
HEAD_DIM = 8
TARGET = 7  # the token id of the target
STREAM, O_PROJ, DOWN_PROJ = ("", "output"), ("self_attn.o_proj", "input"), ("mlp.down_proj", "input")
KEYS, VALUES = ("self_attn.k_proj", "output"), ("self_attn.v_proj", "output")
ATTENTION, MLP = ("self_attn", "output"), ("mlp", "output")
DIRECTIONS = torch.randn(len(LAYERS), 32, generator=torch.Generator().manual_seed(5))
EXPECTED = {}  # by name: (what plain hooks give for a pair, a layer and options; the options to try)


def holds(*options):
    """Registers the decorated function as what the recipe of its name must give, with each of `options`."""

    def register(function):
        EXPECTED[function.__name__] = function, list(options) or [{}]
        return function

    return register


def own(llm, pair, layer, place, at=slice(None)):
    return value_at(llm, pair.a, layer, *place)[:, at]


def donors(llm, pair, layer, place, at="span"):
    return pair.resampled(value_at(llm, pair.b, layer, *place)[:, pair.positions(at)[1]], at)


def put(value, at, columns=slice(None)):
    def write(tensor):
        tensor[:, at, columns] = value

    return write


@holds()
def zero_span(llm, pair, layer):
    return by_hooks(llm, pair.a, (layer, *STREAM, put(0, pair.a.span)))


@holds()
def mean_span(llm, pair, layer):
    spans = [value_at(llm, clip, layer, *STREAM)[0, clip.span] for clip in pair.target_clips()]
    return by_hooks(llm, pair.a, (layer, *STREAM, put(torch.cat(spans).mean(0), pair.a.span)))


@holds()
def frames_apart(llm, pair, layer):
    n, span = pair.a.readout_pos + 1, pair.a.span
    allowed = torch.ones(n, n, dtype=torch.bool).tril()
    allowed[span, span] = torch.eye(pair.a.n_audio, dtype=torch.bool)
    mask = torch.zeros(n, n).masked_fill(~allowed, -torch.inf)[None, None]

    def hide(module, args, kwargs):
        return args, {**kwargs, "attention_mask": mask}

    blocks = llm.model.layers[layer:]
    handles = [block.self_attn.register_forward_pre_hook(hide, with_kwargs=True) for block in blocks]
    logits = by_hooks(llm, pair.a)
    for handle in handles:
        handle.remove()
    return logits


@holds({"head": 0}, {"head": 3})
def head_to_readout(llm, pair, layer, head):
    """With everything behind the head frozen, its change is added to A's last stream as it is."""
    columns = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
    change = (donors(llm, pair, layer, O_PROJ, "last") - own(llm, pair, layer, O_PROJ)[:, -1:])[..., columns]
    stream = own(llm, pair, LAYERS[-1], STREAM)[:, -1:]
    added = change @ llm.model.layers[layer].self_attn.o_proj.weight[:, columns].mT
    return llm.lm_head(llm.model.norm(stream + added))[0, -1]


@holds()
def later_keys_and_values(llm, pair, layer):
    """With the span's own stream restored, which later positions do not read."""
    before = slice(0, pair.a_span.stop)
    writes = []
    for block in range(layer, len(LAYERS)):
        writes += [(block, *place, put(donors(llm, pair, block, place), pair.a_span)) for place in (KEYS, VALUES)]
        writes += [(block, *STREAM, put(own(llm, pair, block, STREAM, before), before))]
    return by_hooks(llm, pair.a, *writes)


@holds()
def keys_only(llm, pair, layer):
    return by_hooks(llm, pair.a, (layer, *KEYS, put(donors(llm, pair, layer, KEYS), pair.a_span)))


@holds({"neuron": 0}, {"neuron": 17})
def one_neuron(llm, pair, layer, neuron):
    donor = donors(llm, pair, layer, DOWN_PROJ, "after")[..., neuron]
    return by_hooks(llm, pair.a, (layer, *DOWN_PROJ, put(donor, slice(pair.a.span.stop, None), neuron)))


@holds({"head": 0}, {"head": 3})
def all_but_one_head(llm, pair, layer, head):
    donor, after = donors(llm, pair, layer, O_PROJ, "after"), slice(pair.a.span.stop, None)
    others = [column for column in range(4 * HEAD_DIM) if column // HEAD_DIM != head]
    return by_hooks(llm, pair.a, (layer, *O_PROJ, put(donor[..., others], after, others)))


@holds({"alpha": 1.0}, {"alpha": 0.3})
def attention_and_mlp(llm, pair, layer, alpha):
    given = {place: donors(llm, pair, layer, place) for place in (ATTENTION, MLP)}

    def mixed(place):
        def write(value):
            value[:, pair.a_span] = (1 - alpha) * value[:, pair.a_span] + alpha * given[place]

        return layer, *place, write

    return by_hooks(llm, pair.a, mixed(ATTENTION), mixed(MLP))


@holds({"half": "start"}, {"half": "end"})
def one_half(llm, pair, layer, half):
    n, start = pair.n_patched, pair.a_span.start
    part = slice(0, n // 2) if half == "start" else slice(n // 2, n)
    donor = donors(llm, pair, layer, STREAM)[:, part]
    return by_hooks(llm, pair.a, (layer, *STREAM, put(donor, slice(start + part.start, start + part.stop))))


@holds()
def without_direction(llm, pair, layer):
    span, unit = own(llm, pair, layer, STREAM, pair.a.span), DIRECTIONS[layer] / DIRECTIONS[layer].norm()
    left = span @ (torch.eye(len(unit)) - torch.outer(unit, unit))
    return by_hooks(llm, pair.a, (layer, *STREAM, put(left, pair.a.span)))


@holds({"k": 1}, {"k": 3})
def in_subspace(llm, pair, layer, k):
    spans = torch.cat([value_at(llm, clip, layer, *STREAM)[0, clip.span] for clip in pair.target_clips()])
    _, vectors = torch.linalg.eigh(torch.cov(spans.mT.double()))  # ascending
    projection = (vectors[:, -k:] @ vectors[:, -k:].mT).float()
    span = own(llm, pair, layer, STREAM, pair.a_span)
    mixed = donors(llm, pair, layer, STREAM) @ projection + span @ (torch.eye(len(projection)) - projection)
    return by_hooks(llm, pair.a, (layer, *STREAM, put(mixed, pair.a_span)))


@holds({"later": 1}, {"later": 2})
def back_patch(llm, pair, layer, later):
    late = own(llm, pair, min(layer + later, LAYERS[-1]), STREAM, pair.a.span)
    return by_hooks(llm, pair.a, (layer, *STREAM, put(late, pair.a.span)))


@holds({"k": 1}, {"k": 5})
def held_back(llm, pair, layer, k):
    found = []

    def require(module, args):
        found.append(args[0].detach().clone().requires_grad_())
        return found[0]

    handle = llm.model.layers[layer].mlp.down_proj.register_forward_pre_hook(require)
    with torch.enable_grad():
        llm(inputs_embeds=pair.a.inputs_embeds, use_cache=False).logits[0, -1, TARGET].backward()
    handle.remove()
    after = slice(pair.a.span.stop, None)
    scores = (found[0] * found[0].grad)[0, after].sum(0)
    lowest = (-scores).topk(k).indices
    return by_hooks(llm, pair.a, (layer, *DOWN_PROJ, put(0, after, lowest)))


PAIRS = {
    "truncate_to_min": align(make_clip(9, seed=1), make_clip(6, seed=2)),
    "resample_linear": align(make_clip(6, seed=1), make_clip(9, seed=2), "resample_linear"),
}
CLIPS = [make_clip(4, seed=3), make_clip(7, seed=4)]


@pytest.fixture(params=PAIRS)
def pair(request):
    labels = {"target": "sad", "label_ids": {"happy": 9, "sad": TARGET}}
    return replace(PAIRS[request.param], target_clips=lambda: CLIPS, cache={}, **labels)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """`recipe(name)`: the experiment, from a plugin that is the block of the page alone."""
    monkeypatch.chdir(tmp_path)
    save_file({str(layer): DIRECTIONS[layer].clone() for layer in LAYERS}, "directions.safetensors")

    def load(name):
        path = tmp_path / f"{name}.py"
        path.write_text(RECIPES[name], encoding="utf-8")
        add_plugin(path)
        return load_intervention(name)

    return load


def test_the_table_has_every_recipe():
    assert len(RECIPES) == len(BLOCKS)
    assert list(RUNS) and set(RUNS) == set(RECIPES) == set(EXPECTED)


def test_the_links_of_the_table_name_sections():
    sections = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^## (.+)", PAGE, re.M)
    }
    assert set(re.findall(r"^\| \[`\w+`\]\(#(.+?)\)", PAGE, re.M)) == sections


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_short(name):
    """The experiment has at most 20 lines, and the file no more than it and one function that it calls."""
    *helpers, function = [node for node in ast.parse(RECIPES[name]).body if isinstance(node, ast.FunctionDef)]
    assert function.end_lineno - function.lineno < 20
    assert len(helpers) <= 1


@pytest.mark.parametrize("engine", ["tail", "sweep", "stepwise"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_what_plain_hooks_give(name, engine, pair, recipe):
    llm = make_llm()
    expected, options = EXPECTED[name]
    found = Engine(llm, engine).readouts(recipe(name), pair, LAYERS, options)
    own_logits, rows = found.logits[0], found.logits[1:]
    wanted = torch.stack([expected(llm, pair, layer, **chosen) for chosen in options for layer in LAYERS])
    torch.testing.assert_close(rows, wanted, atol=2e-5, rtol=0)
    assert (wanted - own_logits)[:: len(LAYERS)].abs().amax(1).min() > 1e-2
    if engine != "stepwise":
        assert (found.as_written is None) == (RUNS[name] == "fused"), found.as_written


def test_reading_all_of_b_from_a_block_on_is_patching_the_block_before(recipe):
    llm, pair = make_llm(), PAIRS["truncate_to_min"]
    found = Engine(llm).readouts(recipe("later_keys_and_values"), pair, LAYERS, [{}])
    for layer in LAYERS:
        donor = donors(llm, pair, layer, ("", "input"))
        patched = by_hooks(llm, pair.a, (layer, "", "input", put(donor, pair.a_span)))
        torch.testing.assert_close(found.logits[1 + layer], patched, atol=2e-5, rtol=0)
