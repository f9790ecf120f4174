"""Detection of non-finite numbers, and where they occur first.

check_finite(engine, logits, [(pair.a, inputs.a), (pair.b, inputs.b)])
"""

import math
from collections.abc import Sequence

import torch

from voicepatch.engine.engine import Engine, Note
from voicepatch.engine.failures import NotFinite
from voicepatch.models.speech_lm import ClipInput
from voicepatch.text import escape
from voicepatch.types.clip import Clip


def check_finite(
    engine: Engine, logits: torch.Tensor, clips: Sequence[tuple[Clip, ClipInput]], notes: Sequence[Note] = ()
) -> None:
    """Raise `NotFinite` where readouts `[rows, …]` are not finite, naming the clip of those `clips`, and the layer.

    `notes` are those of the rows after the first; what they wrote must be finite too.
    """
    bad = ~torch.isfinite(logits).all(dim=1)
    if not bool(bad.any()):
        _check_shifts(clips[0][0], notes)
        return
    for clip, inputs in clips:
        place = _first_not_finite(engine, inputs)
        if place:
            raise NotFinite(f"clip {escape(clip.clip_id)}: {place}")
    row = int(bad.nonzero()[0])
    where = f", patched at layer {notes[row - 1].layer}" if 0 < row <= len(notes) else ""
    raise NotFinite(f"clip {escape(clips[0][0].clip_id)}{where}: its readout is not finite")


def _check_shifts(clip: Clip, notes: Sequence[Note]) -> None:
    """A norm in the blocks may give finite readouts although values before it are too large."""
    for note in notes:
        if not math.isfinite(note.relative_change):
            where = f"clip {escape(clip.clip_id)}, patched at layer {note.layer}"
            raise NotFinite(f"{where}: what was written is too large for the model's numbers")


def _first_not_finite(engine: Engine, inputs: ClipInput) -> str:
    if not bool(torch.isfinite(inputs.inputs_embeds).all()):
        return "its audio frames are not finite, as the encoder gives them"
    recording = engine.record(inputs)
    for layer, stream in enumerate(recording.streams):
        if not bool(torch.isfinite(stream).all()):
            return f"its residual stream is not finite from layer {layer} on, in {str(stream.dtype).split('.')[1]}"
    return "" if bool(torch.isfinite(recording.logits).all()) else "its readout is not finite"
