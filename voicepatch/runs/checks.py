"""The preflight checks: what must hold before anything is measured (SPEC section 7).

    label_check(subject)                        # tokenization_report.json
    span_check(subject, clips)                  # sanity_check_audio_span.json
    self_patch_check(subject, clips, layers)    # sanity_check_self_patch.json
    sound_check(clips, model.max_samples)       # sanity_check_sounds.json

Each gives what its file stores, with a `Check` in words for each question. `model_contract.py` and
`engine_check.py` have two more files.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nnsight
import torch
from tqdm import tqdm

from voicepatch.audio.cache import DecodedSound, sound_facts
from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.audio.limits import MAX_SECONDS
from voicepatch.engine.failures import BadClip, PairFailed
from voicepatch.engine.not_finite import check_finite
from voicepatch.engine.pair_input import align
from voicepatch.engine.subject import Subject
from voicepatch.errors import UserError
from voicepatch.models.speech_lm import ClipInput
from voicepatch.registry.catalogue import load_intervention, main_experiment
from voicepatch.text import listing
from voicepatch.types.check import Check, as_stored
from voicepatch.types.clip import Clip

# Largest |logit difference| that counts as noise of the arithmetic where the largest logit is 10; it grows with that.
NOISE = {torch.float32: 1e-3, torch.float16: 1e-1, torch.bfloat16: 5e-1}
NOISE_AT = 10.0


def noise(subject: Subject, largest_logit: float) -> float:
    """Largest |logit difference| that counts as noise where logits are as large as `largest_logit` says."""
    return float(f"{NOISE[subject.model.llm.dtype] * largest_logit / NOISE_AT:.3g}")


def largest_logit(subject: Subject, logits: torch.Tensor) -> float:
    """Largest |logit| of the labels and of the most likely token, in readouts `[rows, vocabulary]`.

    Others do not count: a model may give tokens that it never says the lowest number there is.
    """
    counted = torch.cat([logits[:, subject.labels.token_ids], logits.amax(1, keepdim=True)], dim=1)
    return counted.abs().max().item()


def close(name: str, difference: float, tolerance: float, why_not: str) -> Check:
    """Whether logits agree within the noise of the arithmetic; `why_not` says where to look if they do not."""
    text = f"largest |Δlogit| {difference:.2g}, tolerance {tolerance:g}"
    passed = difference <= tolerance
    return Check(
        name,
        passed,
        text if passed else f"{text}; {why_not}",
        {"max_abs_logit_difference": difference, "tolerance": tolerance},
    )


def label_check(subject: Subject) -> dict[str, Any]:
    """How the labels are read, and which of them are several tokens; labels that collide are an error on loading."""
    report, task = subject.labels.report(), subject.task
    several = [label for label, entry in report["labels"].items() if entry["multi_token"]]
    text = "no two labels start with the same token"
    if several:
        verb = "is" if len(several) == 1 else "are"
        text += f"; {' and '.join(several)} {verb} several tokens, of which the first is read"
    if task.answers:
        text += f"; the answers are {', '.join(f'{answer} for {label}' for label, answer in task.answers.items())}"
        text += (
            f", shifted in {task.n_orders} orders of the options, over which log-probabilities are averaged"
            if task.orders
            else ", in one order of the options, so the model's preference for an answer such as A, whatever it stands "
            "for, is part of every result; orders: cyclic averages over the orders"
        )
    if task.orders:
        report["orders"] = [task.answers_in(order) for order in range(task.n_orders)]
    noted = bool(several) or bool(task.answers and not task.orders)
    return report | as_stored([Check("Each label has a token of its own", True, text, note=noted)])


def span_check(subject: Subject, clips: Sequence[Clip]) -> dict[str, Any]:
    """Where the audio span of each clip lies, and whether its length is what the duration asks for.

    `span_end` is the first position after the span, as in Python.
    """
    rows = [_span_row(subject, clip) for clip in clips]
    prompt = subject.model.prompt
    beside = [token for token in prompt.borders if token]
    held = [f"{' and '.join(beside)} directly beside it"] if beside else []
    if None in prompt.borders:
        marked = "only one side of it" if beside else "neither side of it"
        held.append(f"the turn's own text around it, since the model marks {marked}")
    lengths, n_good = sorted(row["n_audio"] for row in rows), sum(row["ok"] for row in rows)
    compared = ", ".join(held)
    check = Check(
        "The audio span is in the right place",
        n_good == len(rows),
        f"{n_good} of {len(rows)} clips have one span, compared with {compared}, of {lengths[0]} to {lengths[-1]} "
        "positions, the number that the duration gives",
        {"n_clips": len(rows), "n_good": n_good},
    )
    report = as_stored([check]) | {"held_against": compared}
    return report | ({"span": prompt.span} if prompt.span else {}) | {"clips": rows}


def _span_row(subject: Subject, clip: Clip) -> dict[str, Any]:
    inputs, seconds = subject.clips.get(clip), subject.clips.seconds(clip)
    start, end = inputs.span.start, inputs.span.stop
    expected = subject.model.n_audio(round(seconds * SAMPLE_RATE))
    ids = inputs.input_ids.tolist()
    decode = subject.model.tokenizer.convert_ids_to_tokens
    before, after = decode(ids[max(0, start - 2) : start]), decode(ids[end : end + 2])
    sides = zip(subject.model.prompt.borders, (before[-1:], after[:1]), strict=True)
    bordered = all(token is None or there == [token] for token, there in sides)
    return {
        "clip_id": clip.clip_id,
        "seconds": round(seconds, 3),
        "n_input_ids": len(ids),
        "span_start": start,
        "span_end": end,
        "n_audio": inputs.n_audio,
        "n_audio_expected": expected,
        "tokens_before": before,
        "ids_in_span": sorted(set(ids[start:end])),
        "tokens_after": after,
        "ok": bordered and inputs.n_audio == expected and _text_around(subject, inputs),
    }


def _text_around(subject: Subject, inputs: ClipInput) -> bool:
    """Whether the prompt's ids, and what the model reads of them, stand on both sides of the span and nothing else."""
    before, after, span = subject.model.prompt.before, subject.model.prompt.after, inputs.span
    ids, embeds = inputs.input_ids.tolist(), inputs.inputs_embeds[0]
    with torch.inference_mode():
        text = subject.model.embed([*before, *after])
    return (
        (ids[: span.start], ids[span.stop :]) == (before, after)
        and len(embeds) == len(ids)
        and torch.equal(torch.cat([embeds[: span.start], embeds[span.stop :]]), text)
    )


def self_patch_check(subject: Subject, clips: Sequence[Clip], layers: Sequence[int]) -> dict[str, Any]:
    """Self-patching at `layers` changes nothing, the last layer exactly nothing, and the embeddings give B's readout.

    The last two hold for any causal decoder, whatever its weights. All of it runs as written. Patches of each clip with
    the next one run by the engine too, and must agree.
    """
    engine, patch = subject.engine, load_intervention(main_experiment().name)
    some_layers = sorted({0, engine.n_layers // 2, engine.n_layers - 1})
    difference, agree, last_layer, embeddings, by_engine, largest = 0.0, 0, 0.0, 0.0, 0.0, 0.0
    label_ids = subject.labels.token_ids
    for clip, other in zip(clips, [*clips[1:], clips[0]], strict=True):
        a, b = subject.clips.get(clip), subject.clips.get(other)
        logits = engine.as_written(patch, align(a, a), layers, [{}]).logits
        difference = max(difference, largest_difference(logits[1:], logits[:1]))
        largest = max(largest, largest_logit(subject, logits[:1]))
        answers = logits[:, label_ids].argmax(1)
        agree += int((answers[1:] == answers[0]).sum())
        logits = engine.as_written(patch, align(a, b), some_layers, [{}]).logits
        last_layer = max(last_layer, largest_difference(logits[-1:], logits[:1]))
        found = engine.readouts(patch, align(a, b), some_layers, [{}]).logits
        by_engine = max(by_engine, largest_difference(found, logits))
        embeddings = max(embeddings, embedding_difference(subject, clip, other))
    total, tolerance = len(clips) * len(layers), noise(subject, largest)
    slower = {"tail": "sweep", "sweep": "stepwise"}.get(engine.name, engine.name)
    checks = [
        Check(
            "Self-patching (output of the block) changes nothing",
            agree == total and difference <= tolerance,
            f"{agree / total:.0%} of {total} answers are unchanged; largest |Δlogit| {difference:.2g}, tolerance "
            f"{tolerance:g}",
            {"agreement": agree / total, "max_abs_logit_difference": difference, "tolerance": tolerance},
        ),
        Check(
            "Patching the last layer changes no logit of the readout",
            last_layer == 0,
            f"largest |Δlogit| {last_layer:.2g}, must be exactly 0",
            {"max_abs_logit_difference": last_layer},
        ),
        close(
            "Replacing the span at the embeddings gives B's own logits",
            embeddings,
            tolerance,
            "the model reads the sound past the residual stream, for instance by per-layer inputs",
        ),
        close(
            f"Engine {engine.name} patches as a full forward does",
            by_engine,
            tolerance,
            f"pass --engine {slower}, or declare the engines that are exact with engines= of @family",
        ),
    ]
    return as_stored(checks) | {
        "clips": [clip.clip_id for clip in clips],
        "layers": list(layers),
        "n_predictions": total,
        "prediction_agreement": agree / total,
        "max_abs_delta_logit": difference,
        "tolerance": tolerance,
        "largest_logit": largest,
        "last_layer_max_abs_delta_logit": last_layer,
        "embeddings_max_abs_difference_from_donor": embeddings,
    }


def sound_check(
    clips: Sequence[Clip], max_samples: int | None = None, max_seconds: int = MAX_SECONDS
) -> dict[str, Any]:
    """Whether every clip's sound can be read, before a long run finds out; which are silence, and which are too long.

    A model reads at most `max_samples` of a clip. No clip longer than `max_seconds` is read.
    """
    unreadable, silent, cut = [], [], []
    readers = ThreadPoolExecutor()
    try:
        found_of = readers.map(lambda clip: _facts(clip, max_seconds), clips)
        rows = tqdm(found_of, "reading sounds", len(clips), unit="clip", delay=2, leave=False)
        for clip, found in zip(clips, rows, strict=True):
            if isinstance(found, UserError):
                unreadable.append({"clip_id": clip.clip_id, "reason": str(found)})
                continue
            if found.is_silent:
                silent.append(clip.clip_id)
            if max_samples is not None and found.n_samples > max_samples:
                cut.append(clip.clip_id)
    finally:
        readers.shutdown(cancel_futures=True)
    parts = [
        f"{len(ids)} of {len(clips)} clips {what}: {listing(ids, 8)}"
        for ids, what in (
            ([one["clip_id"] for one in unreadable], "cannot be read"),
            (silent, "are silence"),
            (cut, f"are longer than the {(max_samples or 0) / SAMPLE_RATE:g} s that the model reads of each"),
        )
        if ids
    ]
    text = "; ".join(parts) or f"all {len(clips)} clips were read, and none is silence"
    check = Check("Every clip can be read and holds sound", not unreadable, text, {"n_clips": len(clips)}, bool(parts))
    report = as_stored([check]) | {"n_clips": len(clips), "unreadable": unreadable, "silent": silent}
    return report if max_samples is None else report | {"seconds_heard": max_samples / SAMPLE_RATE, "cut": cut}


def _facts(clip: Clip, max_seconds: int) -> DecodedSound | UserError:
    """Whether the clip is silence and how many samples it has, or why it cannot be read."""
    try:
        return sound_facts(clip.path, max_seconds)
    except UserError as error:
        return error


def usable(subject: Subject, clips: Iterable[Clip], n: int, skip_bad_clips: bool = False) -> tuple[list[Clip], list]:
    """The first `n` clips that the model answers with finite numbers, and why others before them are left out.

    Raises `UserError` for an unreadable clip, unless those are skipped, and where no clip is left.
    """
    good: list[Clip] = []
    left_out: list[dict[str, str]] = []
    for clip in clips:
        if len(good) == n:
            break
        try:
            check_finite(subject.engine, subject.clips.unpatched(clip).logits, [(clip, subject.clips.get(clip))])
            good.append(clip)
        except PairFailed as error:
            if isinstance(error, BadClip) and not skip_bad_clips:
                raise UserError(f"{error} (--on-bad-clip skip leaves its pairs out)") from None
            left_out.append({"clip_id": clip.clip_id, "reason": str(error)})
    if not good:
        raise UserError(f"no clip can be used: {left_out[0]['reason']}")
    return good, left_out


def embedding_difference(subject: Subject, clip: Clip, other: Clip) -> float:
    """Largest |Δlogit| from B of A with all of B's frames written in at the embeddings; both cut to one length."""
    length = min(len(subject.clips.frames(clip)), len(subject.clips.frames(other)))
    a, b = subject.clips.get(clip, length), subject.clips.get(other, length)
    lm = subject.engine.written
    with torch.inference_mode():
        with lm.trace(b):
            donor = nnsight.save(lm.logits)
        with lm.trace(a):
            lm.layers_input[0][:, a.span] = b.inputs_embeds[:, b.span]
            patched = nnsight.save(lm.logits)
    return largest_difference(patched, donor)


def largest_difference(x: torch.Tensor, y: torch.Tensor) -> float:
    """Largest absolute difference of two tensors; the largest float where a value is not a number."""
    # A NaN must fail the check, and max() would drop it; the largest float, as JSON has no infinity.
    largest = torch.finfo(torch.float32).max
    return torch.nan_to_num((x - y).abs(), nan=largest).max().item()
