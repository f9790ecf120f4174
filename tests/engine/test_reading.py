"""Keys, values and attention masks: what is read where, held against plain hooks and masks."""

from dataclasses import replace

import pytest
import torch

from interventions import intervention, load_intervention
from tests.engine.decoders import by_hooks, make_clip, make_llm, value_at
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align
from voicepatch.errors import UserError

LAYERS = range(4)
ENGINES = ["tail", "sweep", "stepwise"]


def run(name, pair, engine="tail", llm=None, layers=LAYERS, **options):
    found = Engine(llm or make_llm(), engine).readouts(load_intervention(name), pair, layers, [options])
    assert found.as_written is None
    return found


@pytest.fixture(params=["shorter", "longer"])
def pair(request):
    """A shorter than B, and longer."""
    a, b = make_clip(6, seed=1), make_clip(9, seed=2)
    pair = align(a, b) if request.param == "shorter" else align(b, a)
    return replace(pair, question=slice(-3, -1))


def same(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def causal(n):
    return torch.full((n, n), -torch.inf).triu(1)


def masked(llm, clip, layers, readers, blocked):
    """Last logits with `blocked` taken out of what `readers` attend to, by a pre-hook that gives the mask."""
    mask = causal(len(clip.input_ids))
    mask[readers, blocked] = -torch.inf

    def give(module, args, kwargs):
        return args, {**kwargs, "attention_mask": mask[None, None]}

    handles = [llm.model.layers[layer].self_attn.register_forward_pre_hook(give, with_kwargs=True) for layer in layers]
    logits = by_hooks(llm, clip)
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("readers", "source", "k"),
    [("after", "span", 1), ("last", "span", 2), ("question", "span", 3), ("last", "question", 1)],
)
def test_a_knockout_is_an_attention_mask_with_holes(pair, engine, readers, source, k):
    llm, clip = make_llm(), pair.a
    n = len(clip.input_ids)
    rows = {"after": slice(clip.span.stop, n), "last": slice(n - 1, n), "question": slice(n - 3, n - 1)}[readers]
    blocked = clip.span if source == "span" else slice(n - 3, n - 1)
    found = run("knockout", pair, engine, llm, k=k, readers=readers, source=source)
    for layer in LAYERS:
        same(found.logits[1 + layer], masked(llm, clip, range(layer, min(layer + k, 4)), rows, blocked))
    assert found.notes[0].start == rows.start and found.notes[0].site == "self_attn.attention_mask"


@pytest.mark.parametrize("engine", ENGINES)
def test_need_blocks_the_span_from_a_layer_to_the_last(pair, engine):
    llm, clip = make_llm(), pair.a
    found = run("need", pair, engine, llm)
    for layer in LAYERS:
        expected = masked(llm, clip, range(layer, 4), slice(clip.span.stop, len(clip.input_ids)), clip.span)
        same(found.logits[1 + layer], expected)


@pytest.mark.parametrize("name", ["knockout", "reads"])
def test_a_question_that_is_to_read_itself_is_wrong_usage(pair, name):
    with pytest.raises(UserError, match="--readers question --source question: no reader stands after"):
        run(name, pair, readers="question", source="question")


@pytest.mark.parametrize("engine", ENGINES)
def test_with_all_layers_blocked_the_answer_depends_on_the_length_alone(engine):
    llm = make_llm()
    pairs = [align(clip, clip) for clip in (make_clip(6, 1), make_clip(6, 2), make_clip(7, 3))]
    first, second, longer = (run("knockout", pair, engine, llm, layers=[0], k=4).logits for pair in pairs)
    same(first[1], second[1])
    assert (first[0] - second[0]).abs().max() > 1e-2 and (first[1] - longer[1]).abs().max() > 1e-3


@pytest.mark.parametrize("engine", ENGINES)
def test_a_mask_in_which_nothing_more_is_blocked_changes_nothing(pair, engine):
    @intervention(may_be_noop=True)
    def nothing(lm, pair, layer):
        with lm.trace(pair.a):
            lm.attention_mask[layer][:, pair.a_span] += 0
            logits = lm.logits.save()
        return logits

    found = Engine(make_llm(), engine).readouts(nothing, pair, LAYERS, [{}])
    for row in found.logits[1:]:
        same(row, found.logits[0])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_position_that_can_attend_to_nothing_is_refused(pair, engine):
    @intervention
    def blind(lm, pair, layer):
        with lm.trace(pair.a):
            lm.attention_mask[layer][:, pair.a.readout_pos] = -torch.inf
            logits = lm.logits.save()
        return logits

    with pytest.raises(UserError, match=r"attention_mask\[2\]: a position can attend to nothing"):
        Engine(make_llm(), engine).readouts(blind, pair, [2], [{}])


def read_by_hooks(llm, pair, layers, source, others):
    """A's readout where keys and values at `source` are B's in `layers`, and `others` get A's own stream back."""
    (a_at, b_at), writes = source, []
    for layer in layers:
        for path in ("self_attn.k_proj", "self_attn.v_proj"):
            donor = value_at(llm, pair.b, layer, path, "output")[:, b_at]

            def put(value, donor=donor):
                value[:, a_at] = donor

            writes.append((layer, path, "output", put))
        own = value_at(llm, pair.a, layer, "", "output")[:, others]

        def restore(value, own=own):
            value[:, others] = own

        writes.append((layer, "", "output", restore))
    return by_hooks(llm, pair.a, *writes)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("readers", "source", "k"), [("after", "span", 1), ("last", "span", 2), ("last", "question", 1)]
)
def test_what_is_read_is_the_donors_and_the_stream_over_the_span_is_not(pair, engine, readers, source, k):
    llm, n = make_llm(), len(pair.a.input_ids)
    at = (pair.a_span, pair.b_span) if source == "span" else pair.positions("question")
    others = slice(0, n - 1 if readers == "last" else pair.a.span.stop)
    found = run("reads", pair, engine, llm, k=k, readers=readers, source=source)
    for layer in LAYERS:
        same(found.logits[1 + layer], read_by_hooks(llm, pair, range(layer, min(layer + k, 4)), at, others))
    assert (found.notes[0].start, found.notes[0].n_positions) == (at[0].start, at[0].stop - at[0].start)


def read_by_question(llm, pair, layers, source, readers):
    """A's readout where attention in `layers` runs twice: `readers` get what B's keys and values give."""
    a_at, b_at = source
    handles = []
    for layer in layers:
        attention = llm.model.layers[layer].self_attn
        donors = {
            path: value_at(llm, pair.b, layer, f"self_attn.{path}", "output")[:, b_at] for path in ("k_proj", "v_proj")
        }

        def twice(module, args, kwargs, output, donors=donors):
            def put(path):
                def hook(_, __, value):
                    value = value.clone()
                    value[:, a_at] = donors[path]
                    return value

                return getattr(module, path).register_forward_hook(hook)

            inner = [put(path) for path in donors]
            again = module.forward(*args, **kwargs)
            for handle in inner:
                handle.remove()
            first = output[0].clone()
            first[:, readers] = again[0][:, readers]
            return (first, *output[1:])

        handles.append(attention.register_forward_hook(twice, with_kwargs=True))
    logits = by_hooks(llm, pair.a)
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("k", [1, 3])
def test_the_question_alone_reads_the_donors_keys_and_what_follows_it_reads_as_own(pair, engine, k):
    llm, n = make_llm(), len(pair.a.input_ids)
    experiment, readers = load_intervention("reads"), slice(n - 3, n - 1)
    found = Engine(llm, engine).readouts(experiment, pair, LAYERS, [{"k": k, "readers": "question"}])
    by_all = run("reads", pair, engine, llm, k=k).logits
    source = (pair.a_span, pair.b_span)
    for layer in LAYERS:
        expected = read_by_question(llm, pair, range(layer, min(layer + k, 4)), source, readers)
        same(found.logits[1 + layer], expected)
    assert (found.logits - by_all)[1:4].abs().amax(1).min() > 1e-3, "the last position must not read as well"
    assert (found.notes[0].start, found.notes[0].n_positions) == (readers.start, 2)
    assert found.notes[0].site.startswith("self_attn.output")


def test_at_the_last_layer_the_question_reads_in_vain(pair):
    found = Engine(make_llm()).readouts(load_intervention("reads"), pair, [3], [{"readers": "question"}])
    assert torch.equal(found.logits[0], found.logits[1])


@pytest.mark.parametrize("engine", ENGINES)
def test_reading_at_all_layers_from_one_on_is_patching_the_layer_before(engine):
    """The identity holds where B's stream replaces A's whole span, since A's rest would be read with it."""
    llm, pair = make_llm(), align(make_clip(6, seed=1), make_clip(9, seed=2))
    read = run("reads", pair, engine, llm, layers=range(1, 4), k=4).logits[1:]
    same(read, run("patch", pair, engine, llm, layers=range(3)).logits[1:])


def test_reads_computes_only_the_readers(pair):
    engine = Engine(make_llm(), "tail")
    after, last = (
        engine.plan(load_intervention("reads"), pair, LAYERS, [{"readers": readers, "k": 2}])
        for readers in ("after", "last")
    )
    assert {row.n for row in after} == {pair.a.span.stop} and {row.n for row in last} == {pair.a.readout_pos}
    rows = engine.plan(load_intervention("knockout"), pair, LAYERS, [{"readers": "last"}])
    assert {row.n for row in rows} == {pair.a.readout_pos}


@pytest.mark.parametrize("engine", ENGINES)
def test_keys_alone_or_some_of_their_columns(pair, engine):
    """Nothing is known of the positions behind, so that they are computed."""
    llm = make_llm()

    @intervention
    def keys(lm, pair, layer):
        with lm.trace(pair.b):
            donor = lm.keys[layer][:, pair.b_span, :8].save()
        with lm.trace(pair.a):
            before = lm.layers_output[layer][:, : pair.a.span.stop].save()
        with lm.trace(pair.a):
            lm.keys[layer][:, pair.a_span, :8] = donor
            lm.layers_output[layer][:, : pair.a.span.stop] = before
            logits = lm.logits.save()
        return logits

    found = Engine(llm, engine).readouts(keys, pair, [1], [{}])
    assert found.as_written is None
    donor = value_at(llm, pair.b, 1, "self_attn.k_proj", "output")[:, pair.b_span, :8]
    own = value_at(llm, pair.a, 1, "", "output")[:, : pair.a.span.stop]

    def put(value):
        value[:, pair.a_span, :8] = donor

    def restore(value):
        value[:, : pair.a.span.stop] = own

    same(found.logits[1], by_hooks(llm, pair.a, (1, "self_attn.k_proj", "output", put), (1, "", "output", restore)))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_mask_of_a_sliding_window_keeps_its_window(engine):
    llm = make_llm(sliding_window=3)
    pair = align(make_clip(6, seed=1), make_clip(9, seed=2))
    n, window = len(pair.a.input_ids), causal(len(pair.a.input_ids))
    window[torch.arange(n)[:, None] - torch.arange(n)[None] >= 3] = -torch.inf
    window[pair.a.readout_pos, pair.a.readout_pos - 1] = -torch.inf

    @intervention
    def hole(lm, pair, layer):
        with lm.trace(pair.a):
            lm.attention_mask[layer][:, pair.a.readout_pos, pair.a.readout_pos - 1] = -torch.inf
            logits = lm.logits.save()
        return logits

    def give(module, args, kwargs):
        return args, {**kwargs, "attention_mask": window[None, None]}

    found = Engine(llm, engine).readouts(hole, pair, [1], [{}])
    handle = llm.model.layers[1].self_attn.register_forward_pre_hook(give, with_kwargs=True)
    expected = by_hooks(llm, pair.a)
    handle.remove()
    same(found.logits[1], expected)


@pytest.mark.parametrize(("side", "layers"), [("from", [2, 3]), ("to", [0, 1, 2]), ("around", [1, 2, 3])])
def test_a_band_begins_ends_or_lies_around_a_layer(side, layers):
    assert list(Engine(make_llm()).written.band(2, 3, side)) == layers


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("partial", ["values", "stream"])
def test_values_and_streams_of_which_only_some_columns_are_written(pair, engine, partial):
    """The other columns are what the changed run makes of them, so the positions are not known in advance."""
    llm, stop = make_llm(), pair.a.span.stop
    of_values, of_stream = slice(8 if partial == "values" else None), slice(8 if partial == "stream" else None)

    @intervention
    def some(lm, pair, layer):
        with lm.trace(pair.b):
            keys = lm.keys[layer][:, pair.b_span].save()
            values = lm.values[layer][:, pair.b_span, of_values].save()
        with lm.trace(pair.a):
            before = lm.layers_output[layer][:, :stop, of_stream].save()
        with lm.trace(pair.a):
            lm.keys[layer][:, pair.a_span] = keys
            lm.values[layer][:, pair.a_span, of_values] = values
            lm.layers_output[layer][:, :stop, of_stream] = before
            logits = lm.logits.save()
        return logits

    def write(clip, path, there, mine, columns):
        value = value_at(llm, clip, 1, path, "output")[:, there, columns]

        def put(found):
            found[:, mine, columns] = value

        return 1, path, "output", put

    found = Engine(llm, engine).readouts(some, pair, [1], [{}])
    assert found.as_written is None
    expected = by_hooks(
        llm,
        pair.a,
        write(pair.b, "self_attn.k_proj", pair.b_span, pair.a_span, slice(None)),
        write(pair.b, "self_attn.v_proj", pair.b_span, pair.a_span, of_values),
        write(pair.a, "", slice(stop), slice(stop), of_stream),
    )
    same(found.logits[1], expected)
