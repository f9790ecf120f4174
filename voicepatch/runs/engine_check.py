"""Whether the engine computes what the experiment does as it is written (sanity_check_engine.json).

report, readouts = engine_check(job, pairs)
moves(subject, readouts[0])                  # whether the experiment changes anything
"""

from collections.abc import Sequence
from typing import Any

from voicepatch.engine.engine import Readouts
from voicepatch.engine.failures import PairFailed
from voicepatch.engine.not_finite import check_finite
from voicepatch.engine.subject import Subject
from voicepatch.runs.checks import largest_difference, largest_logit, noise
from voicepatch.runs.job import Job
from voicepatch.text import counted
from voicepatch.types.check import Check, as_stored
from voicepatch.types.pair import Pair

N_ENGINE_PAIRS = 2


def engine_check(job: Job, pairs: Sequence[Pair]) -> tuple[dict[str, Any], list[Readouts]]:
    """The first pairs by the run's engine and as the experiment is written: whole readouts, and the answers in them.

    Answers may differ where two labels are closer to each other than the arithmetic's noise; those are counted. Gives
    the report, and the engine's readouts.
    """
    subject = job.subject
    engine, label_ids = subject.engine, subject.labels.token_ids
    differing: list[dict[str, Any]] = []
    compared: list[str] = []
    readouts: list[Readouts] = []
    total = 0
    difference, repeated, largest, reads_donor = 0.0, 0.0, 0.0, False
    for pair in pairs:
        if len(compared) == N_ENGINE_PAIRS:
            break
        try:
            # What the engine keeps for an experiment (`pair.cached`), the reference computes every time.
            mine, plain = job.inputs().of(pair), job.inputs(keep=False).of(pair)
            found = job.readouts(mine)
            expected = job.as_written(plain)
            check_finite(engine, expected.logits, [(pair.a, plain.a), (pair.b, plain.b)], expected.notes)
        except PairFailed:  # listed when its turn comes
            continue
        compared.append(pair.pair_id)
        readouts.append(found)
        reads_donor |= bool(expected.reads_donor)
        apart = largest_difference(found.logits, expected.logits)
        largest = max(largest, largest_logit(subject, expected.logits))
        if apart > noise(subject, largest):
            repeated = largest_difference(job.as_written(plain).logits, expected.logits)
        difference = max(difference, apart)
        answers, textbook = (logits[:, label_ids] for logits in (found.logits, expected.logits))
        rows = (answers.argmax(1) != textbook.argmax(1)).nonzero().flatten().tolist()
        best = textbook.topk(2, dim=1).values
        differing += [
            {"pair_id": pair.pair_id, "row": row, "stepwise_margin": (best[row, 0] - best[row, 1]).item()}
            for row in rows
        ]
        total += len(answers)
    tolerance = noise(subject, largest)
    as_written = next((found.as_written for found in readouts if found.as_written), None)
    how = f"as written ({as_written})" if as_written else f"engine {engine.name}"
    text = (
        f"{how}, compared with stepwise on {counted(len(compared), 'pair')}: largest |Δlogit| {difference:.2g}, "
        f"tolerance {tolerance:g}; {len(differing)} of {total} answers differ"
    )
    if differing:
        widest = max(answer["stepwise_margin"] for answer in differing)
        text += f", where the best two labels are at most {widest:.2g} logits apart"
    if repeated > tolerance:
        text += f"; {job.experiment.name} gives other logits when it runs again; draw its random numbers from pair.rng"
    check = Check(
        "The engine computes what stepwise does",
        difference <= tolerance,
        text,
        {"max_abs_logit_difference": difference, "tolerance": tolerance, "n_differing": len(differing)},
        bool(differing),
    )
    report = as_stored([check]) | {
        "engine": engine.name,
        "reference": "stepwise",
        "as_written": as_written,
        "reads_donor": reads_donor,
        "pairs": compared,
        "layers": list(job.layers),
        "n_predictions": total,
        "n_differing_predictions": len(differing),
        "differing_predictions": differing,
        "max_abs_logit_difference": difference,
        "max_abs_logit_difference_when_repeated": repeated,
        "tolerance": tolerance,
        "largest_logit": largest,
    }
    return report, readouts


def moves(subject: Subject, readouts: Readouts) -> bool:
    """Whether any call changed what stood where it wrote, or the readout by more than the arithmetic's noise."""
    moved, own = any(note.relative_change > 0 for note in readouts.notes), readouts.logits[:1]
    return moved or largest_difference(readouts.logits, own) > noise(subject, largest_logit(subject, own))
