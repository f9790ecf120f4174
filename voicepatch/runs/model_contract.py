"""What a model must do for a patch of its residual stream to mean what the method says (sanity_check_model.json).

    report = model_check(subject, clips)        # {"passed": ..., "checks": [{"name", "passed", "text", ...}]}

Built-in families are held to it as well as those from outside.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from voicepatch.audio.cache import read_sound
from voicepatch.engine.pair_input import align
from voicepatch.engine.subject import Subject
from voicepatch.models.speech_lm import ClipInput
from voicepatch.registry.catalogue import load_intervention, main_experiment
from voicepatch.runs.checks import embedding_difference, largest_difference, largest_logit, noise
from voicepatch.types.clip import Clip

N_POSITIONS = 64  # positions before a change whose logits are compared
N_IDS = 4096  # rows of the embedding table that are compared at once
Found = dict[str, Any]  # "passed", "text" and numbers


def model_check(subject: Subject, clips: Sequence[Clip]) -> Found:
    """Check the contract on two clips; one clip stands for both where there is only one."""
    a, b = clips[0], clips[-1]
    logits = torch.cat([subject.engine.record(subject.clips.get(clip)).logits for clip in (a, b)])
    largest = largest_logit(subject, logits)
    tolerance = noise(subject, largest)
    checks = {
        "reference": _reference(subject, a, tolerance),
        "causality": _causality(subject, a, tolerance),
        "embeddings": _within(
            embedding_difference(subject, a, b),
            tolerance,
            "with all of B's frames written in at the embeddings, A's readout is B's readout",
            "it reads the sound past the residual stream, for instance by per-layer inputs",
        ),
        "engine": _engine(subject, a, b, tolerance),
        "span": _span(subject, a),
    }
    return {
        "passed": all(check["passed"] for check in checks.values()),
        "family": subject.family.name,
        "clips": [a.clip_id, b.clip_id],
        "tolerance": tolerance,
        "largest_logit": largest,
        "checks": [{"name": name} | check for name, check in checks.items()],
    }


def _within(difference: float, tolerance: float, holds: str, why_not: str) -> Found:
    passed = difference <= tolerance
    text = holds if passed else f"it does not hold that {holds}; {why_not}"
    text += f" (largest |Δlogit| {difference:.2g}, noise up to {tolerance:g})"
    return {"passed": passed, "text": text, "max_abs_logit_difference": difference}


def _reference(subject: Subject, clip: Clip, tolerance: float) -> Found:
    reference: Callable[..., Any] | None = getattr(subject.model, "reference", None)
    if reference is None:
        return {"passed": True, "text": "the family gives no reference(waveform) to compare with"}
    own = subject.engine.record(subject.clips.get(clip)).logits
    with torch.inference_mode():
        expected = torch.as_tensor(reference(np.array(read_sound(clip.path).waveform))).to(own).flatten()[None]
    if expected.shape != own.shape:
        text = f"reference(waveform) gives {expected.shape[1]} logits, and the model {own.shape[1]}"
        return {"passed": False, "text": text}
    return _within(
        largest_difference(own, expected),
        tolerance,
        "the unpatched readout is that of reference(waveform)",
        "look at the prompt, at features and encode, and at what stands between lm_head and the logits",
    )


def _causality(subject: Subject, clip: Clip, tolerance: float) -> Found:
    inputs = subject.clips.get(clip)
    start = (inputs.span.start + inputs.span.stop) // 2
    embeds = inputs.inputs_embeds.clone()
    embeds[:, start:] = embeds[:, start:].flip(1)
    positions = torch.linspace(0, start - 1, min(start, N_POSITIONS)).long()
    own, changed = (_logits_at(subject, i, positions) for i in (inputs, replace(inputs, inputs_embeds=embeds)))
    return _within(
        largest_difference(own, changed),
        tolerance,
        f"a change from position {start} on changes nothing before it",
        "its decoder looks ahead, so what is written at a layer does not stay behind its position",
    )


def _logits_at(subject: Subject, inputs: ClipInput, positions: torch.Tensor) -> torch.Tensor:
    llm, stream = subject.model.llm, subject.engine.record(inputs).streams[-1]
    with torch.inference_mode():
        return llm.lm_head(llm.model.norm(stream[:, positions.to(stream.device)]))[0].float()


def _engine(subject: Subject, a: Clip, b: Clip, tolerance: float) -> Found:
    engine, patch = subject.engine, load_intervention(main_experiment().name)
    layers = sorted({0, engine.n_layers // 2, engine.n_layers - 1})
    pair = align(subject.clips.get(a), subject.clips.get(b))
    found, plain = (run(patch, pair, layers, [{}]).logits for run in (engine.readouts, engine.as_written))
    what = {"tail": "recorded keys and values", "sweep": "all layers in one forward"}.get(engine.name, engine.name)
    slower = {"tail": "sweep", "sweep": "stepwise"}.get(engine.name, engine.name)
    return _within(
        largest_difference(found, plain),
        tolerance,
        f"a patch by engine {engine.name} ({what}) gives what a full forward gives",
        f"pass --engine {slower}, or declare the engines that are exact with engines= of @family",
    )


def _span(subject: Subject, clip: Clip) -> Found:
    """Whether the frames hold a row of the embedding table, which is text and not sound."""
    frames, model = subject.clips.frames(clip), subject.model
    n_ids = getattr(model.llm.config, "vocab_size", 0)
    texts: set[int] = set()
    with torch.inference_mode():
        for start in range(0, n_ids, N_IDS):
            table = model.embed(range(start, min(start + N_IDS, n_ids)))
            rows, columns = (table[:, :1] == frames[:, 0].to(table)).nonzero(as_tuple=True)
            same = (table[rows] == frames[columns].to(table)).all(1)
            texts.update(columns[same].tolist())
    found = {"n_frames": len(frames), "text_at": sorted(texts)}
    if not texts:
        return {"passed": True, "text": "the audio frames hold no embedding of a text token"} | found
    text = f"{len(texts)} of {len(frames)} audio frames are embeddings of text, the first is frame {min(texts)}"
    if model.prompt.span:
        return {"passed": True, "text": f"{text}; the family says of the span: {model.prompt.span}"} | found
    return {"passed": False, "text": f"{text}; say what the span holds beside the sound with Prompt(span=...)"} | found
