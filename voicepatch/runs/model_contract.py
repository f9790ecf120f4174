"""What a model must do for a patch of its residual stream to mean what the method says (sanity_check_model.json).

    model_check(subject, clip)        # {"passed": ..., "checks": [...], "family": ...}

Built-in families and those from outside pass the same checks. `interface_check` looks at the model's functions before
they are used, and `self_patch_check` has two more checks, which need a patch.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from voicepatch.audio.cache import read_sound
from voicepatch.engine.subject import Subject
from voicepatch.models.speech_lm import ClipInput
from voicepatch.runs.checks import close, largest_difference, largest_logit, noise
from voicepatch.runs.interface_check import called, interface_check
from voicepatch.types.check import Check, as_stored
from voicepatch.types.clip import Clip

N_POSITIONS = 64  # positions before a change whose logits are compared
N_IDS = 4096  # rows of the embedding table that are compared at once
REFERENCE = "The unpatched readout is that of reference(waveform)"
LOGITS = "The output of lm_head is the decoder's logits"
CAUSALITY = "No position depends on a later one"
SPAN = "The audio frames hold no embedding of a text token"


def model_check(subject: Subject, clip: Clip, interface: Sequence[Check] | None = None) -> dict[str, Any]:
    """Check the contract on one clip; where `interface`, the result of `interface_check`, failed, nothing else."""
    interface = interface_check(subject, [clip]) if interface is None else interface
    about = {"family": subject.family.name, "clip": clip.clip_id}
    if not all(check.passed for check in interface):
        return as_stored(interface) | about
    own = subject.engine.record(subject.clips.get(clip)).logits
    tolerance = noise(subject, largest_logit(subject, own))
    checks = [_reference(subject, clip, own, tolerance), *interface]
    checks += [_logits(subject, clip, own, tolerance), _causality(subject, clip, tolerance), _span(subject, clip)]
    return as_stored(checks) | about


def _reference(subject: Subject, clip: Clip, own: torch.Tensor, tolerance: float) -> Check:
    if not hasattr(subject.model, "reference"):
        return Check(REFERENCE, True, "the family has no such function to compare with", note=True)
    waveform = np.array(read_sound(clip.path, subject.clips.sounds.max_seconds).waveform)
    expected = torch.as_tensor(called(subject, "reference", waveform)).to(own).flatten()[None]
    if expected.shape != own.shape:
        return Check(REFERENCE, False, f"it gives {expected.shape[1]} logits, and the model {own.shape[1]}")
    why_not = "look at the prompt, at features and encode, and at what stands between lm_head and the logits"
    return close(REFERENCE, largest_difference(own, expected), tolerance, why_not)


def _logits(subject: Subject, clip: Clip, own: torch.Tensor, tolerance: float) -> Check:
    """Whether `lm_head` gives what the decoder gives, for instance where its forward scales or caps logits."""
    with torch.inference_mode():
        found = subject.model.llm(inputs_embeds=subject.clips.get(clip).inputs_embeds, use_cache=False).logits[:, -1]
    why_not = "make what stands between lm_head and the logits, such as a scale or a cap, a part of lm_head"
    return close(LOGITS, largest_difference(own, found.to(own)), tolerance, why_not)


def _causality(subject: Subject, clip: Clip, tolerance: float) -> Check:
    inputs = subject.clips.get(clip)
    start = (inputs.span.start + inputs.span.stop) // 2
    embeds = inputs.inputs_embeds.clone()
    embeds[:, start:] = embeds[:, start:].flip(1)
    positions = torch.linspace(0, start - 1, min(start, N_POSITIONS)).long()
    own, changed = (_logits_at(subject, i, positions) for i in (inputs, replace(inputs, inputs_embeds=embeds)))
    why_not = "the decoder looks ahead, so what is written at a layer also changes positions before it"
    return close(CAUSALITY, largest_difference(own, changed), tolerance, why_not)


def _logits_at(subject: Subject, inputs: ClipInput, positions: torch.Tensor) -> torch.Tensor:
    llm, stream = subject.model.llm, subject.engine.record(inputs).streams[-1]
    with torch.inference_mode():
        return llm.lm_head(llm.model.norm(stream[:, positions.to(stream.device)]))[0].float()


def _span(subject: Subject, clip: Clip) -> Check:
    frames, model = subject.clips.frames(clip), subject.model
    n_ids = getattr(model.llm.config, "vocab_size", 0)
    texts: set[int] = set()
    with torch.inference_mode():
        for start in range(0, n_ids, N_IDS):
            table = model.embed(range(start, min(start + N_IDS, n_ids)))
            rows, columns = (table[:, :1] == frames[:, 0].to(table)).nonzero(as_tuple=True)
            # Digital silence may give zeros, which are the padding's embedding and no text.
            same = (table[rows] == frames[columns].to(table)).all(1) & frames[columns].any(1)
            texts.update(columns[same].tolist())
    numbers = {"n_frames": len(frames), "text_at": sorted(texts)}
    if not texts:
        return Check(SPAN, True, f"none of {len(frames)} frames is one", numbers)
    text = f"{len(texts)} of {len(frames)} audio frames are embeddings of text, the first is frame {min(texts)}"
    if model.prompt.span:
        return Check(SPAN, True, f"{text}; the family declares of the span: {model.prompt.span}", numbers, note=True)
    return Check(SPAN, False, f"{text}; declare what else the span holds with Prompt(span=...)", numbers)
