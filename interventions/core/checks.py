"""What must hold before anything is measured (SPEC section 7).

    span_check(subject, clips)                  # sanity_check_audio_span.json
    self_patch_check(subject, clips, layers)    # sanity_check_self_patch.json

The span is where we think it is, silence stays silent, and every curve has its floor and its ceiling.
"""

from collections.abc import Sequence
from typing import Any

import torch

from interventions.core.experiment import align, patched_logits
from interventions.core.subject import Subject
from interventions.patch import patch
from interventions.self import self as self_patch
from models.opens2s import audio_length
from models.opens2s_io import AUDIO_END, AUDIO_START, SAMPLE_RATE
from pairs import Clip

# Largest |logit difference| that counts as noise of the arithmetic; logits are of the order of 10.
NOISE = {torch.float32: 1e-3, torch.float16: 1e-1, torch.bfloat16: 5e-1}


def span_check(subject: Subject, clips: Sequence[Clip]) -> dict[str, Any]:
    """Where the audio span of each clip lies, and whether its length is what the duration asks for."""
    rows = [_span_row(subject, clip) for clip in clips]
    return {"passed": all(row["ok"] for row in rows), "clips": rows}


def _span_row(subject: Subject, clip: Clip) -> dict[str, Any]:
    inputs, seconds = subject.clips.get(clip), subject.clips.seconds(clip)
    start, end = inputs.span.start, inputs.span.stop - 1
    hop = subject.io.extractor.hop_length
    frames = -(-round(seconds * SAMPLE_RATE) // hop)
    n_convs = len(subject.model.audio_adapter.subsampler.conv_layers)
    expected = audio_length(frames, subject.model.window_frames, n_convs)
    ids = inputs.input_ids.tolist()
    decode = subject.io.tokenizer.convert_ids_to_tokens
    before, after = decode(ids[max(0, start - 2) : start]), decode(ids[end + 1 : end + 3])
    bordered = before[-1:] == [AUDIO_START] and after[:1] == [AUDIO_END]
    return {
        "clip_id": clip.clip_id,
        "seconds": round(seconds, 3),
        "n_input_ids": len(ids),
        "span_start": start,
        "span_end": end,
        "n_audio": inputs.n_audio,
        "n_audio_expected": expected,
        "tokens_before": before,
        "ids_in_span": sorted(set(ids[start : end + 1])),
        "tokens_after": after,
        "ok": bordered and inputs.n_audio == expected and inputs.inputs_embeds.shape[1] == len(ids),
    }


def self_patch_check(subject: Subject, clips: Sequence[Clip], layers: Sequence[int]) -> dict[str, Any]:
    """Self-patching at `layers` is silent; the last layer is the floor (exactly 0), the embeddings are the ceiling (B).

    The last two hold for any causal decoder, whatever its weights.
    """
    tolerance = NOISE[subject.model.llm_model.dtype]
    difference, agree, last_layer, embeddings = 0.0, 0, 0.0, 0.0
    label_ids = subject.labels.token_ids
    for clip, other in zip(clips, [*clips[1:], clips[0]], strict=True):
        a, b = subject.clips.get(clip), subject.clips.get(other)
        logits = patched_logits(subject, self_patch, align(a, a), layers, {})
        difference = max(difference, _distance(logits[1:], logits[:1]))
        answers = logits[:, label_ids].argmax(1)
        agree += int((answers[1:] == answers[0]).sum())
        logits = patched_logits(subject, patch, align(a, b), [subject.lm.n_layers - 1], {})
        last_layer = max(last_layer, _distance(logits[1:], logits[:1]))
        embeddings = max(embeddings, _embedding_difference(subject, clip, other))
    total = len(clips) * len(layers)
    return {
        "passed": agree == total and difference <= tolerance and last_layer == 0 and embeddings <= tolerance,
        "engine": subject.lm.engine,
        "clips": [clip.clip_id for clip in clips],
        "layers": list(layers),
        "n_predictions": total,
        "prediction_agreement": agree / total,
        "max_abs_delta_logit": difference,
        "tolerance": tolerance,
        "last_layer_max_abs_delta_logit": last_layer,
        "embeddings_max_abs_difference_from_donor": embeddings,
    }


def _embedding_difference(subject: Subject, clip: Clip, other: Clip) -> float:
    """How far A with all of B's frames written in at the embeddings is from B, both cut to the same length."""
    length = min(len(subject.clips.frames(clip)), len(subject.clips.frames(other)))
    a, b = subject.clips.get(clip, length), subject.clips.get(other, length)
    lm = subject.lm
    with torch.inference_mode():
        with lm.trace(b):
            donor = lm.readout().save()
        with lm.trace(a):
            lm.write_embeddings(a.span, b.inputs_embeds[:, b.span])
            patched = lm.readout().save()
    return _distance(patched, donor)


def _distance(x: torch.Tensor, y: torch.Tensor) -> float:
    # A NaN must fail the check, and max() would drop it.
    return torch.nan_to_num((x - y).abs(), nan=torch.inf).max().item()
