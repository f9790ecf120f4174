"""The pair loop (SPEC sections 4, 5 and 9).

    for records in run_pairs(subject, load_intervention("patch"), pairs, layers=range(subject.lm.n_layers)):
        ...                                  # one pair, one dict a layer

An intervention and pairs go in, records come out, a pair at a time.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from errors import BAD_USAGE, UserError
from interventions.core.registry import Intervention
from interventions.core.subject import Answer, Subject, restrict
from models.labels import LABELS
from models.opens2s_io import ClipInput
from pairs import Pair

ALIGNMENTS = ("truncate_to_min", "resample_linear")


@dataclass(frozen=True)
class PairInput:
    """A pair as the model reads it: recipient `a`, donor `b`, and the aligned positions, equally many, in each."""

    a: ClipInput
    b: ClipInput
    a_span: slice
    b_span: slice

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
    layers: Sequence[int],
    align_how: str = "truncate_to_min",
    alpha: float = 1.0,
) -> Iterator[list[dict[str, Any]]]:
    """Run one intervention over pairs, yielding each pair's records (SPEC section 9), one a layer.

    Clips are dropped after their last pair, so memory does not grow with the number of pairs.
    """
    options = {"alpha": alpha} if "alpha" in experiment.options else {}
    uses = Counter(clip.clip_id for pair in pairs for clip in (pair.a, pair.b))
    for pair in pairs:
        inputs = align(subject.clips.get(pair.a), subject.clips.get(pair.b), align_how)
        logits = patched_logits(subject, experiment, inputs, layers, options)
        yield _records(subject, pair, inputs, layers, restrict(logits, subject.labels.token_ids), alpha)
        for clip in (pair.a, pair.b):
            uses[clip.clip_id] -= 1
            if not uses[clip.clip_id]:
                subject.clips.drop(clip)
        _release_memory(logits.device)


def patched_logits(
    subject: Subject, experiment: Intervention, inputs: PairInput, layers: Sequence[int], options: dict[str, Any]
) -> torch.Tensor:
    """Readouts `[1 + n_layers, vocabulary]` of one pair; an error unless every layer was written exactly once."""
    subject.lm.writes.clear()
    with torch.inference_mode():
        logits = experiment.run(subject.lm, inputs, layers, **options)
    written = [layer for layer, _, _ in subject.lm.writes]
    if written != list(layers) or len(logits) != 1 + len(layers):
        raise RuntimeError(
            f"intervention {experiment.name!r} wrote at layers {written} and gave {len(logits)} readouts; "
            f"expected one write at each of {list(layers)}, and A's own readout before theirs"
        )
    return logits


def _records(
    subject: Subject, pair: Pair, inputs: PairInput, layers: Sequence[int], answer: Answer, alpha: float
) -> list[dict[str, Any]]:
    # Six decimals are beyond float32 at the size of a logit; differences are taken between the printed values.
    by_row = [dict(zip(LABELS, (round(x, 6) for x in row), strict=True)) for row in answer.logits.tolist()]
    base, mass_base = by_row[0], answer.mass[0].item()
    donor = subject.clips.unpatched(pair.b)
    donor_logits = dict(zip(LABELS, (round(x, 6) for x in donor.logits[0].tolist()), strict=True))
    predictions = [LABELS[i] for i in answer.logits.argmax(1).tolist()]
    shifts = torch.stack([shift for _, _, shift in subject.lm.writes]).tolist()
    common = {"pair_id": pair.pair_id, "clip_a": pair.a.clip_id, "clip_b": pair.b.clip_id}
    return [
        common
        | {
            "layer": layer,
            "target": pair.target,
            "pred_base": predictions[0],
            "pred_patch": predictions[i],
            "eligible": predictions[0] != pair.target,
            "flip_to_target": predictions[i] == pair.target,
            "flip_from_base": predictions[i] != predictions[0],
            "delta_logit_target": round(by_row[i][pair.target] - base[pair.target], 6),
            "logits_base": base,
            "logits_patch": by_row[i],
            "logits_donor": donor_logits,
            "len_a": inputs.a.n_audio,
            "len_b": inputs.b.n_audio,
            "n_patched": subject.lm.writes[i - 1][1],
            "patch_alpha": alpha,
            "label_mass_base": round(mass_base, 6),
            "label_mass_patch": round(answer.mass[i].item(), 6),
            "stream_shift": round(shifts[i - 1], 6),
        }
        for i, layer in enumerate(layers, start=1)
    ]


def _release_memory(device: torch.device) -> None:
    """Give cached blocks back when the allocator holds far more than what is in use (SPEC section 4)."""
    if device.type != "cuda":
        return
    reserved, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    if reserved - used > max(used, 2 << 30):
        torch.cuda.empty_cache()
