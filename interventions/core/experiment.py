"""The pair loop (SPEC sections 4, 5 and 9).

    for records in run_pairs(subject, load_intervention("patch"), pairs, layers=range(subject.lm.n_layers)):
        ...                                  # one pair, one dict a layer

An intervention and pairs go in, records come out, a pair at a time.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from errors import BAD_USAGE, UserError
from interventions.core.mistakes import explained
from interventions.core.registry import Intervention
from interventions.core.subject import Answer, Subject, restrict
from models.labels import LABELS
from models.opens2s_io import ClipInput
from pairs import Clip, Pair

N_TARGET_CLIPS = 20
ALIGNMENTS = ("truncate_to_min", "resample_linear")


@dataclass(frozen=True)
class PairInput:
    """A pair as the model reads it: recipient `a`, donor `b`, and the aligned positions, equally many, in each.

    For an intervention that needs more: `rng` is seeded and of this pair alone; `target_clips()` gives some clips with
    the target label, in A's voice; `once(make)` keeps what is the same for all pairs with this target and speaker.
    """

    a: ClipInput
    b: ClipInput
    a_span: slice
    b_span: slice
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    target_clips: Callable[[], list[ClipInput]] = list
    once: Callable[[Callable[[], Any]], Any] = lambda make: make()

    @property
    def n_patched(self) -> int:
        return self.a_span.stop - self.a_span.start


def align(a: ClipInput, b: ClipInput, how: str = "truncate_to_min") -> PairInput:
    """The first `min(len_A, len_B)` audio positions of A receive the first as many of B; A's tail stays its own."""
    check_alignment(how)
    length = min(a.n_audio, b.n_audio)
    return PairInput(a, b, _first(a.span, length), _first(b.span, length))


def check_alignment(how: str) -> None:
    """Raise `UserError` for an alignment that cannot be run."""
    if how == "resample_linear":
        raise UserError(
            "--align resample_linear: reserved, not built yet (interpolated states are none that the model makes); "
            "use truncate_to_min",
            BAD_USAGE,
        )
    if how not in ALIGNMENTS:
        raise UserError(f"--align {how}: unknown; use truncate_to_min", BAD_USAGE)


def _first(span: slice, length: int) -> slice:
    return slice(span.start, span.start + length)


def run_pairs(
    subject: Subject,
    experiment: Intervention,
    pairs: Sequence[Pair],
    *,
    layers: Sequence[int] | None = None,
    align_how: str = "truncate_to_min",
    seed: int = 42,
    options: Mapping[str, Any] | None = None,
    clips: Sequence[Clip] = (),
) -> Iterator[list[dict[str, Any]]]:
    """Run one intervention over pairs, yielding each pair's records (SPEC section 9), one a patched row.

    `layers` are all for None, `options` the intervention's own parameters, `clips` the data set, for interventions that
    look beyond their pair. Clips are dropped after their last pair, so
    memory does not grow with the number of pairs.
    """
    layers = range(subject.lm.n_layers) if layers is None else layers
    uses = Counter(clip.clip_id for pair in pairs for clip in (pair.a, pair.b))
    kept: dict[tuple, Any] = {}
    for pair in pairs:
        inputs = replace(
            align(subject.clips.get(pair.a), subject.clips.get(pair.b), align_how),
            rng=random.Random(f"{seed}:{experiment.name}:{pair.pair_id}"),
            target_clips=partial(_target_clips, subject, pair, clips, seed, uses),
            once=partial(_once, kept, (pair.target, pair.a.speaker)),
        )
        logits = patched_logits(subject, experiment, inputs, layers, options or {})
        yield _records(subject, pair, inputs, restrict(logits, subject.labels.token_ids))
        for clip in (pair.a, pair.b):
            uses[clip.clip_id] -= 1
            if not uses[clip.clip_id]:
                subject.clips.drop(clip)
        _release_memory(logits.device)


def _target_clips(
    subject: Subject, pair: Pair, clips: Sequence[Clip], seed: int, uses: Mapping[str, int]
) -> list[ClipInput]:
    label = f"{pair.kind}_label"
    peers = [clip for clip in clips if getattr(clip, label) == pair.target and clip.speaker == pair.a.speaker]
    if not peers:
        raise UserError(f"pair {pair.pair_id}: no clip with the {label} {pair.target}; pass the data set's clips")
    peers = sorted(peers, key=lambda clip: clip.clip_id)
    drawn = random.Random(f"{seed}:{pair.target}:{pair.a.speaker}").sample(peers, min(N_TARGET_CLIPS, len(peers)))
    inputs = [subject.clips.get(clip) for clip in drawn]
    for clip in drawn:
        if not uses.get(clip.clip_id):
            subject.clips.drop(clip)
    return inputs


def _once(kept: dict[tuple, Any], key: tuple, make: Callable[[], Any]) -> Any:
    if key not in kept:
        kept[key] = make()
    return kept[key]


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
    lm.writes.clear()
    try:
        with torch.inference_mode():
            logits = experiment.run(lm, inputs, layers, **options)
    except UserError:
        raise
    except Exception as error:
        raise explained(error, experiment) from error
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


def _release_memory(device: torch.device) -> None:
    """Give cached blocks back when the allocator holds far more than what is in use (SPEC section 4)."""
    if device.type != "cuda":
        return
    reserved, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    if reserved - used > max(used, 2 << 30):
        torch.cuda.empty_cache()
