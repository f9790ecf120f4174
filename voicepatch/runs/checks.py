"""The preflight checks: what must hold before anything is measured (SPEC section 7).

    span_check(subject, clips)                  # sanity_check_audio_span.json
    self_patch_check(subject, clips, layers)    # sanity_check_self_patch.json
    engine_check(job, pairs)                    # sanity_check_engine.json
    sound_check(clips, model.max_samples)       # sanity_check_sounds.json

Each gives what its file stores, with the numbers and, under `checks`, one `Check` in words for each question: is the
span where it should be, does a clip patched with itself stay as it is, does the last layer change nothing, do the
embeddings give B's own answer, does the engine compute what the experiment does as it is written?
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import nnsight
import torch
from tqdm import tqdm

from voicepatch.audio.cache import DecodedSound, sound_facts
from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.audio.limits import MAX_SECONDS
from voicepatch.engine.engine import Readouts
from voicepatch.engine.failures import BadClip, PairFailed
from voicepatch.engine.not_finite import check_finite
from voicepatch.engine.pair_input import align
from voicepatch.engine.subject import Subject
from voicepatch.errors import UserError
from voicepatch.models.speech_lm import ClipInput
from voicepatch.registry.catalogue import load_intervention, main_experiment
from voicepatch.runs.job import Job
from voicepatch.text import listing
from voicepatch.types.check import Check
from voicepatch.types.clip import Clip
from voicepatch.types.pair import Pair

N_ENGINE_PAIRS = 2
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
    report = _report([check]) | {"held_against": compared}
    return report | ({"span": prompt.span} if prompt.span else {}) | {"clips": rows}


def _report(checks: Sequence[Check]) -> dict[str, Any]:
    return {"passed": all(check.passed for check in checks), "checks": [msgspec.to_builtins(one) for one in checks]}


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

    The last two hold for any causal decoder, whatever its weights. All of it runs as written, whatever the engine.
    """
    engine, patch = subject.engine, load_intervention(main_experiment().name)
    difference, agree, last_layer, embeddings, largest = 0.0, 0, 0.0, 0.0, 0.0
    label_ids = subject.labels.token_ids
    for clip, other in zip(clips, [*clips[1:], clips[0]], strict=True):
        a, b = subject.clips.get(clip), subject.clips.get(other)
        logits = engine.as_written(patch, align(a, a), layers, [{}]).logits
        difference = max(difference, largest_difference(logits[1:], logits[:1]))
        largest = max(largest, largest_logit(subject, logits[:1]))
        answers = logits[:, label_ids].argmax(1)
        agree += int((answers[1:] == answers[0]).sum())
        logits = engine.as_written(patch, align(a, b), [engine.n_layers - 1], [{}]).logits
        last_layer = max(last_layer, largest_difference(logits[1:], logits[:1]))
        embeddings = max(embeddings, embedding_difference(subject, clip, other))
    total, tolerance = len(clips) * len(layers), noise(subject, largest)
    within = f"tolerance {tolerance:g} where logits are up to {largest:.3g}"
    checks = [
        Check(
            "Self-patching (output of the block) changes nothing",
            agree == total and difference <= tolerance,
            f"{agree / total:.0%} of {total} answers are unchanged; largest |Δlogit| {difference:.2g}, {within}",
            {"agreement": agree / total, "difference": difference, "tolerance": tolerance},
        ),
        Check(
            "Patching the last layer changes no logit of the readout",
            last_layer == 0,
            f"largest |Δlogit| {last_layer:.2g}, must be exactly 0",
            {"difference": last_layer},
        ),
        Check(
            "Replacing the span at the embeddings gives B's own logits",
            embeddings <= tolerance,
            f"largest difference from B's logits {embeddings:.2g}, {within}",
            {"difference": embeddings, "tolerance": tolerance},
        ),
    ]
    return _report(checks) | {
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

    A model that hears only so many samples does not hear what comes after. No clip longer than `max_seconds` is read.
    """
    unreadable, silent, cut = [], [], []
    readers = ThreadPoolExecutor()
    try:
        found_of = readers.map(lambda clip: _facts(clip, max_seconds), clips)
        heard = tqdm(found_of, "reading sounds", len(clips), unit="clip", delay=2, leave=False)
        for clip, found in zip(clips, heard, strict=True):
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
        f"{len(ids)} of {len(clips)} clips {what}: {listing(ids)}"
        for ids, what in (
            ([one["clip_id"] for one in unreadable], "cannot be read"),
            (silent, "are silence"),
            (cut, f"are longer than the {(max_samples or 0) / SAMPLE_RATE:g} s that the model hears of each"),
        )
        if ids
    ]
    text = "; ".join(parts) or f"all {len(clips)} clips were read, and none is silence"
    check = Check("Every clip can be read and holds sound", not unreadable, text, {"n_clips": len(clips)})
    report = _report([check]) | {"n_clips": len(clips), "unreadable": unreadable, "silent": silent}
    if max_seconds != MAX_SECONDS:
        report["max_seconds"] = max_seconds
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
    text = (
        f"engine {engine.name}, compared with stepwise on {len(compared)} pairs: largest |Δlogit| {difference:.2g}, "
        f"tolerance {tolerance:g} where logits are up to {largest:.3g}; {len(differing)} of {total} answers differ"
    )
    if repeated > tolerance:
        text += f"; {job.experiment.name} gives other logits when it runs again; draw its random numbers from pair.rng"
    check = Check(
        "The engine computes what stepwise does",
        difference <= tolerance,
        text,
        {"difference": difference, "tolerance": tolerance, "n_differing": len(differing), "n_predictions": total},
    )
    report = _report([check]) | {
        "engine": engine.name,
        "reference": "stepwise",
        "as_written": next((found.as_written for found in readouts if found.as_written), None),
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
    moved, own = any(note.shift > 0 for note in readouts.notes), readouts.logits[:1]
    return moved or largest_difference(readouts.logits, own) > noise(subject, largest_logit(subject, own))


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
