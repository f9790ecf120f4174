"""Planted reading: a check whose true answer is known (sanity_check_planted.json).

    planted_check(subject, equally_long(subject, clips))      # {"passed": ..., "checks": [...], "planted": [...]}

The positions after the audio span may attend to it in layer k alone. So the span patched before k must give B's
readout, and patched at k or later A's own: the curve must cross its middle at k - 0.5. The engine of the run computes
it, and the crossing is that of the analysis, so the check tests the pipeline itself.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from voicepatch.analysis.hand_over import first_below
from voicepatch.engine.pair_input import PairInput, align
from voicepatch.engine.subject import Subject
from voicepatch.errors import UserError
from voicepatch.registry.intervention import intervention
from voicepatch.runs.checks import close, largest_difference, largest_logit, noise
from voicepatch.text import listing
from voicepatch.types.check import Check, as_stored
from voicepatch.types.clip import Clip

N_PAIRS, N_PLANTED = 8, 5
TOLERANCE = 0.1  # layers
N_ROWS = 8  # planned together; each holds a mask for every layer
RECOVERED = "A planted reading layer is recovered"
EXACT = "A patch before the planted layer gives B's readout, from it on A's own"


@intervention
def planted(lm, pair, layer, k=1, patched=True):
    """B's span after one layer is written into A's run, in which the span can be attended to in layer k alone."""
    with lm.trace(pair.b):
        donor = lm.layers_output[layer][:, pair.b_span].save()
    with lm.trace(pair.a):
        for number in range(lm.n_layers):
            if number != k:
                lm.attention_mask[number][:, pair.a.span.stop :, pair.a.span] = -torch.inf
            if number == layer and patched:
                lm.layers_output[number][:, pair.a_span] = donor
        logits = lm.logits.save()
    return logits


def equally_long(subject: Subject, clips: Sequence[Clip]) -> list[PairInput]:
    """Each two clips in a row as a pair, cut to the shorter span, so that a patch of the span hands over all of B."""
    if len(clips) < 2:
        raise UserError("check --planted needs two usable clips; the data have fewer")
    pairs = []
    for a, b in zip(clips[::2], clips[1::2], strict=False):
        length = min(len(subject.clips.frames(a)), len(subject.clips.frames(b)))
        pairs.append(align(subject.clips.get(a, length), subject.clips.get(b, length)))
    return pairs


def planted_check(subject: Subject, pairs: Sequence[PairInput]) -> dict[str, Any]:
    """Whether the layer at which the span is read is recovered, for some layers, the last one among them.

    `pairs` are of equal lengths. A layer is left out where reading there alone does not change the readout: behind a
    sliding window, for instance.
    """
    later = range(1, subject.engine.n_layers)  # no patch stands before layer 0
    own, donors = _unpatched(subject, pairs[0], later)
    largest = largest_logit(subject, torch.cat([own, donors]))
    tolerance = noise(subject, largest)
    read = [k for k, one, other in zip(later, own, donors, strict=True) if _apart(subject, one, other) > tolerance]
    chosen = [read[i] for i in np.linspace(0, len(read) - 1, min(N_PLANTED, len(read))).round().astype(int)]
    with tqdm(total=len(chosen) * len(pairs), desc="planted reading", unit="curve", delay=2, leave=False) as bar:
        found = [_recovered(subject, pairs, k, bar) for k in chosen]
    left_out = [str(k) for k in later if k not in read]
    checks = [_recovery(found, left_out), close(EXACT, _largest(found), tolerance, "look at how the engine writes")]
    return as_stored(checks) | {"engine": subject.engine.name, "n_pairs": len(pairs), "planted": found}


def _recovery(found: Sequence[dict[str, Any]], left_out: Sequence[str]) -> Check:
    """The check in words: which layers were planted, and where the curve crossed its middle."""
    wrong = [str(one["layer"]) for one in found if not _is_recovered(one)]
    if found:
        layers = ", ".join(str(one["layer"]) for one in found)
        crossings = ", ".join("none" if one["recovered"] is None else f"{one['recovered']:.2f}" for one in found)
        text = f"planted in layers k = {layers}, recovered at {crossings}; must be k − 0.5 within {TOLERANCE:g} layers"
    else:
        text = "to read the span in one layer alone changes no readout, so no layer can be planted"
    if wrong:
        text += f"; wrong for {listing(wrong)}: look at how the engine writes masks and patches"
    if left_out:
        text += f"; not planted, since reading there alone does not change the readout: layers {listing(left_out)}"
    return Check(RECOVERED, bool(found) and not wrong, text, {"tolerance": TOLERANCE}, note=bool(left_out))


def _largest(found: Sequence[dict[str, Any]]) -> float:
    return max((one["max_abs_logit_difference"] for one in found), default=0.0)


def _recovered(subject: Subject, pairs: Sequence[PairInput], k: int, bar: Any) -> dict[str, Any]:
    """The curve of one planted layer over all pairs, the layer where it crosses its middle, and its area in layers."""
    labels, n = subject.labels.token_ids, subject.engine.n_layers
    towards, distance, flips, difference = np.zeros(n), 0.0, [], 0.0
    for pair in pairs:
        (own, donor), patched = _unpatched(subject, pair, [k]), _rows(subject, pair, range(n), k)
        truth = torch.cat([donor.expand(k, -1), own.expand(n - k, -1)])
        difference = max(difference, largest_difference(patched[:, labels], truth[:, labels]))
        start, end, rows = (value[:, labels].double().cpu().numpy() for value in (own, donor, patched))
        towards += (rows - start) @ (end - start)[0]
        distance += ((end - start) ** 2).sum()
        if start.argmax() != end.argmax():
            flips.append(rows.argmax(1) == end.argmax())
        bar.update()
    curve = towards / distance if distance else np.zeros(n)
    return {
        "layer": k,
        "recovered": _crossing(curve),
        "area": round(float(np.trapezoid(curve / curve[0])), 6) if curve[0] > 0 else None,
        "recovered_by_flips": _crossing(np.mean(flips, axis=0)) if flips else None,
        "n_answers_apart": len(flips),
        "curve": [round(float(value), 6) + 0.0 for value in curve],  # no -0.0
        "max_abs_logit_difference": difference,
    }


def _unpatched(subject: Subject, pair: PairInput, ks: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Readouts `[ks, vocabulary]` of A and of B where the span can be attended to in one layer alone."""
    both = (align(pair.a, pair.b), align(pair.b, pair.a))
    own, donor = (torch.cat([_rows(subject, one, [0], k, patched=False) for k in ks]) for one in both)
    return own, donor


def _rows(subject: Subject, pair: PairInput, layers: Sequence[int], k: int, patched: bool = True) -> torch.Tensor:
    """Readouts `[layers, vocabulary]` with the span patched at each layer and read in layer k alone."""
    options, rows = [{"k": k, "patched": patched}], []
    for start in range(0, len(layers), N_ROWS):
        found = subject.engine.readouts(planted, pair, layers[start : start + N_ROWS], options)
        rows.append(found.logits[1:])
    return torch.cat(rows)


def _apart(subject: Subject, one: torch.Tensor, other: torch.Tensor) -> float:
    return largest_difference(one[subject.labels.token_ids], other[subject.labels.token_ids])


def _crossing(curve: np.ndarray) -> float | None:
    """Where a curve by layer first falls below half of its start; None where it does not."""
    at = first_below(curve[None], curve[:1] / 2, np.arange(len(curve), dtype=float))[0]
    return round(float(at), 6) if np.isfinite(at) else None


def _is_recovered(found: dict[str, Any]) -> bool:
    values = (found["recovered"], found["area"])
    return all(value is not None and abs(value - (found["layer"] - 0.5)) <= TOLERANCE for value in values)
