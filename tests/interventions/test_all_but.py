"""Everything but one: all heads and MLPs are B's at the readout, and what one of them loses by staying A's."""

import pandas as pd
import pytest
import torch

from interventions import load_intervention
from interventions.figures.all_but import effects
from tests.commands import FEW, call
from tests.engine.decoders import by_hooks, make_clip, make_llm, value_at
from tests.engine.test_block_layout import make_granite
from voicepatch.engine.engine import Engine
from voicepatch.engine.pair_input import align

PLACES = (("self_attn.o_proj", "input"), ("mlp", "output"))
PARTS = (0, 1, 2, 3, "mlp")


@pytest.fixture
def pair():
    return align(make_clip(7, seed=1), make_clip(5, seed=2))


def run(llm, pair, engine="tail", parts=PARTS):
    options = [{"head": part} for part in parts]
    return Engine(llm, engine).readouts(load_intervention("all-but"), pair, range(4), options)


def literally(llm, pair, layer, part):
    """Every head and MLP is written at the readout, with plain hooks."""
    writes = []
    for number in range(4):
        for path, end in PLACES:
            new, own = (value_at(llm, clip, number, path, end)[0, -1].clone() for clip in (pair.b, pair.a))
            if number == layer and (part == "mlp") == (path == "mlp"):
                columns = slice(None) if part == "mlp" else slice(part * 8, (part + 1) * 8)
                new[columns] = own[columns]
            writes.append((number, path, end, lambda value, new=new: value.__setitem__((0, -1), new)))
    return by_hooks(llm, pair.a, *writes)


@pytest.mark.parametrize("make", [make_llm, lambda: make_granite(0.5)], ids=["qwen3", "granite"])
@pytest.mark.parametrize("engine", ["tail", "stepwise"])
def test_one_write_is_the_same_as_a_write_of_every_part(pair, make, engine):
    llm = make()
    found = run(llm, pair, engine)
    assert found.as_written is None and {note.n_positions for note in found.notes} == {1}
    expected = [literally(llm, pair, layer, part) for part in PARTS for layer in range(4)]
    torch.testing.assert_close(found.logits[1:], torch.stack(expected), atol=1e-4, rtol=0)


def test_without_an_exception_it_is_bs_own_readout_as_with_all_components(pair):
    """So the loss is counted from B's own logits."""
    llm = make_llm()
    donor = Engine(llm).record(pair.b).logits[0]
    options = [{"components": "all", "at": "last"}, {"components": "all"}]
    all_parts = Engine(llm).readouts(load_intervention("components"), pair, [0], options).logits[1:]
    torch.testing.assert_close(all_parts, donor.expand(2, -1), atol=1e-4, rtol=0)
    same = align(pair.b, pair.b)  # a part that stays A's is B's here
    torch.testing.assert_close(run(llm, same).logits[1:], donor.expand(20, -1), atol=1e-4, rtol=0)


def test_the_loss_is_counted_from_bs_logit_of_the_target():
    logits = {
        "base": {"sad": 1.0, "happy": 5.0},
        "patch": {"sad": 7.0, "happy": 1.0},
        "donor": {"sad": 9.0, "happy": 0},
    }
    records = pd.DataFrame({f"logits_{which}": [value] for which, value in logits.items()} | {"target": ["sad"]})
    lost = effects(records)
    assert lost.tolist() == [2.0] and lost.attrs["whole"][0] == 8.0


def test_its_map_and_its_sentence(tmp_path):
    out = call("all-but", "--out", tmp_path, *FEW)
    assert "The largest loss of the target's logit is" in out
    assert (tmp_path / "all_but_all-but-prosody.svg").is_file() and (
        tmp_path / "map_cells_all-but-prosody.csv"
    ).is_file()
    assert not list(tmp_path.glob("flip_rate_curve*"))
