"""The pair loop (SPEC sections 4, 5 and 9).

    for records in run_pairs(subject, load_intervention("patch"), pairs, layers=range(subject.lm.n_layers)):
        ...                                  # one pair, one dict a layer

An intervention and pairs go in, records come out, a pair at a time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from errors import UserError
from interventions.core.failures import PairFailed, check_finite
from interventions.core.inputs import ALIGNMENTS, Inputs, PairInput
from interventions.core.memory import Say, is_out_of_memory, release_memory, with_fewer_rows
from interventions.core.mistakes import explained
from interventions.core.registry import Intervention
from interventions.core.store import Answer, restrict
from interventions.core.subject import Subject
from models.labels import LABELS
from pairs import Clip, Pair


def run_pairs(
    subject: Subject,
    experiment: Intervention,
    pairs: Sequence[Pair],
    *,
    layers: Sequence[int] | None = None,
    align_how: str = ALIGNMENTS[0],
    seed: int = 42,
    options: Mapping[str, Any] | None = None,
    clips: Sequence[Clip] = (),
    say: Say = print,
    failed: Callable[[Pair, PairFailed], None] | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Run one intervention over pairs, yielding each pair's records (SPEC section 9), one a patched row.

    `layers` are all for None, `options` the intervention's own parameters, `clips` the data set, for interventions that
    look beyond their pair. Clips are dropped after their last pair, so memory does not grow with the number of pairs;
    a sweep that does not fit is split, and `say` is told. A pair that fails (`PairFailed`) is told to `failed`, if
    given, and yields no record.
    """
    layers = range(subject.lm.n_layers) if layers is None else layers
    inputs = Inputs(subject, experiment.name, clips, align_how, seed)
    records = partial(_pair_records, subject, experiment, layers=layers, options=options or {}, inputs=inputs)
    with subject.clips.serving(pairs):
        for pair in pairs:
            try:
                found = with_fewer_rows(subject, partial(records, pair), say)
            except PairFailed as error:
                if failed is None:
                    raise
                failed(pair, error)
                found = []
            yield found
            subject.clips.done(pair)
            release_memory(subject.lm.llm.device)


def _pair_records(
    subject: Subject,
    experiment: Intervention,
    pair: Pair,
    layers: Sequence[int],
    options: Mapping[str, Any],
    inputs: Inputs,
) -> list[dict[str, Any]]:
    pair_input = inputs.of(pair)
    logits = patched_logits(subject, experiment, pair_input, layers, options)
    heard = [(pair.a, pair_input.a), (pair.b, pair_input.b)]
    check_finite(subject.lm, logits, heard)
    check_finite(subject.lm, subject.clips.unpatched(pair.b).logits, heard[1:])
    return _records(subject, pair, pair_input, restrict(logits, subject.labels.token_ids))


def run_table(subject: Subject, experiment: Intervention, pairs: Sequence[Pair], **settings: Any) -> pd.DataFrame:
    """The records of `run_pairs`, with its `settings`, as one table, for notebooks."""
    rows = run_pairs(subject, experiment, pairs, **settings)
    return pd.DataFrame([record for records in tqdm(rows, total=len(pairs), unit="pair") for record in records])


def patched_logits(
    subject: Subject, experiment: Intervention, inputs: PairInput, layers: Sequence[int], options: Mapping[str, Any]
) -> torch.Tensor:
    """Readouts `[1 + rows, vocabulary]` of one pair: A's own, then a row for each of `layers`, once or several times.

    Raises `UserError` when what the intervention wrote and what it gave do not fit together.
    """
    lm = subject.lm
    lm.reset()
    try:
        with torch.inference_mode():
            logits = experiment.run(lm, inputs, layers, **options)
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise explained(error, experiment) from error
    lm.check_known()
    written = [write.layer for write in lm.writes]
    rounds = max(1, len(written) // len(layers))
    if written != list(layers) * rounds or len(logits) != 1 + len(written):
        raise UserError(
            f"intervention {experiment.name!r} began rows at layers {written} and gave {len(logits)} readouts; "
            f"expected a row at each of {list(layers)} and one readout more, A's own, first (was the readout .save()d?)"
        )
    return logits


def _records(subject: Subject, pair: Pair, inputs: PairInput, answer: Answer) -> list[dict[str, Any]]:
    by_row = _by_label(answer)
    base, donor = by_row[0], _by_label(subject.clips.unpatched(pair.b))[0]
    predictions = [LABELS[i] for i in answer.logits.argmax(1).tolist()]
    mass = [round(x, 6) for x in answer.mass.tolist()]
    writes = subject.lm.writes
    shifts = torch.stack([write.shift for write in writes]).tolist()
    return [
        {
            "pair_id": pair.pair_id,
            "clip_a": pair.a.clip_id,
            "clip_b": pair.b.clip_id,
            "layer": write.layer,
            "target": pair.target,
            "pred_base": predictions[0],
            "pred_patch": predictions[i],
            "eligible": predictions[0] != pair.target,
            "flip_to_target": predictions[i] == pair.target,
            "flip_from_base": predictions[i] != predictions[0],
            "delta_logit_target": round(by_row[i][pair.target] - base[pair.target], 6),
            "logits_base": base,
            "logits_patch": by_row[i],
            "logits_donor": donor,
            "len_a": inputs.a.n_audio,
            "len_b": inputs.b.n_audio,
            "n_patched": write.n,
            "patch_alpha": write.alpha,
            "patched_from": write.start,
            "semantic_label_b": pair.b.semantic_label,
            "prosody_label_b": pair.b.prosody_label,
            "label_mass_base": mass[0],
            "label_mass_patch": mass[i],
            "stream_shift": round(shifts[i - 1], 6),
        }
        for i, write in enumerate(writes, start=1)
    ]


def _by_label(answer: Answer) -> list[dict[str, float]]:
    # Six decimals are beyond float32 at the size of a logit; differences are taken between the printed values.
    return [dict(zip(LABELS, (round(x, 6) for x in row), strict=True)) for row in answer.logits.tolist()]
