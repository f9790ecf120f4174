"""A sweep that does not fit is done in parts, says so, and gives the same records."""

import pytest
import torch

from interventions import load_intervention, load_subject
from pairs import PairSample, build_pairs
from voicepatch.errors import UserError
from voicepatch.paths import DEMO_MODEL
from voicepatch.runs.executor import LocalExecutor
from voicepatch.runs.experiment import run_experiment
from voicepatch.runs.pair_loop import run_pairs
from voicepatch.store.directory import RunDir
from voicepatch.types.settings import Settings


@pytest.fixture(scope="module")
def pairs(demo_data):
    return build_pairs(demo_data.clips, "prosody", max_pairs=3).pairs


def records(subject, pairs, said):
    return list(run_pairs(subject, load_intervention("noise"), pairs, log=said.append))


def tight(subject, rows, error):
    """Let a block fail on more than so many rows, as a device without memory would."""

    def refuse(module, args):
        if len(args[0]) > rows:
            raise error

    return subject.model.llm.model.layers[5].register_forward_pre_hook(refuse)


@pytest.mark.parametrize("engine", ["tail", "sweep"])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_rows_are_halved_until_they_fit(pairs, engine, error):
    subject, said = load_subject(DEMO_MODEL, device="cpu", engine=engine), []
    expected = records(subject, pairs, said)
    assert said == [] and subject.engine.max_rows is None
    tight(subject, 3, error)
    found = records(subject, pairs, said)
    assert subject.engine.max_rows == 2 and len(said) == 2 and "--max-rows 2" in said[-1]
    for rows, fitting in zip(expected, found, strict=True):
        for row, other in zip(rows, fitting, strict=True):
            assert list(other["logits_patch"].values()) == pytest.approx(list(row["logits_patch"].values()), abs=1e-4)
            assert {key: row[key] for key in ("pair_id", "layer", "pred_base", "pred_patch", "stream_shift")} == {
                key: other[key] for key in ("pair_id", "layer", "pred_base", "pred_patch", "stream_shift")
            }


def test_the_checks_before_a_run_are_done_in_parts_too(demo_data, pairs, tmp_path):
    subject, said = load_subject(DEMO_MODEL, device="cpu"), []
    tight(subject, 3, torch.OutOfMemoryError("CUDA out of memory"))
    report = build_pairs(demo_data.clips, "prosody", 3).report
    sample, settings = PairSample(pairs, report, demo_data.clips), Settings("prosody", max_pairs=3)
    run_experiment(
        LocalExecutor(subject), demo_data, RunDir(tmp_path), load_intervention("patch"), sample, settings, said.append
    )
    assert (
        any("--max-rows 2" in line for line in said) and RunDir(tmp_path).config()["experiments"]["prosody"]["finished"]
    )


@pytest.mark.parametrize("engine", ["tail", "stepwise"])
def test_when_not_even_one_row_fits_the_advice_is_another(pairs, engine):
    subject = load_subject(DEMO_MODEL, device="cpu", engine=engine)
    tight(subject, 0, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(UserError, match="a single row"):
        records(subject, pairs, [])


def test_other_errors_are_not_taken_for_a_lack_of_memory(pairs):
    subject, said = load_subject(DEMO_MODEL, device="cpu"), []
    tight(subject, 0, RuntimeError("something else"))
    with pytest.raises(UserError, match="something else"):
        records(subject, pairs, said)
    assert said == []
