"""The gates that an experiment passes before its first pair; one that fails ends it with status 3.

check_sounds(subject, clips, name, run, settings, say)  # every clip can be read
run_checks(subject, dataset, run, seed, layers, say)    # the span, and the analytic facts
check_engine(job, pairs, name, run, say)                # the engine computes what is written, and it changes something
"""

import random
from collections.abc import Sequence

import pandas as pd
from tqdm import tqdm

from engine.engine import Readouts
from engine.failures import PairFailed
from engine.subject import Subject
from errors import CHECK_FAILED, UserError
from pairs import Clip, Dataset, Pair
from pairs.clips import listing
from pairs.shown import shown
from runs.checks import N_ENGINE_PAIRS, engine_check, moves, self_patch_check, sound_check, span_check, usable
from runs.directory import RunDir
from runs.fewer_rows import with_fewer_rows
from runs.job import Job
from runs.pair_loop import runs_as_written
from runs.say import Say
from runs.settings import Settings

N_CHECK_CLIPS = 5
N_SELF_PATCHED = 2  # of them; each is patched at every layer, two traces a layer


def check_sounds(subject: Subject, clips: Sequence[Clip], name: str, run: RunDir, settings: Settings, say: Say) -> None:
    """Say which clips are silence, too long for the model, or unreadable.

    `UserError` for unreadable ones, unless they are to be skipped.
    """
    found = sound_check(clips, subject.model.max_samples, settings.max_seconds)
    run.update_json("sanity_check_sounds.json", name, found)
    unreadable, silent = found["unreadable"], found["silent"]
    if silent:
        say(f"warning: {len(silent)} of {found['n_clips']} clips are silence: {listing(silent)}")
    if found.get("cut"):
        say(
            f"warning: {len(found['cut'])} of {found['n_clips']} clips are longer than the "
            f"{found['seconds_heard']:g} s that the model hears of each: {listing(found['cut'])}"
        )
    if not unreadable:
        return
    what = f"{len(unreadable)} of {found['n_clips']} clips cannot be read: clip {shown(unreadable[0]['clip_id'])}: "
    what += f"{unreadable[0]['reason']}; all are in {run.path / 'sanity_check_sounds.json'}"
    if not settings.skip_bad_clips or len(unreadable) == found["n_clips"]:
        raise UserError(f"{what} (--on-bad-clip skip leaves their pairs out)")
    say(f"warning: {what}; their pairs are left out")


def run_checks(
    subject: Subject,
    dataset: Dataset,
    run: RunDir,
    seed: int,
    layers: Sequence[int],
    say: Say = print,
    skip_bad_clips: bool = False,
) -> None:
    """The checks of SPEC section 7 on some clips, into their files and as a table; status 3 when one fails."""
    run.write_json("tokenization_report.json", subject.labels.report())
    drawn = _in_random_order(dataset, seed)
    with subject.clips.ahead_of(drawn[:N_CHECK_CLIPS]):
        clips, left_out = usable(subject, drawn, N_CHECK_CLIPS, skip_bad_clips)
    spans = span_check(subject, clips) | {"left_out": left_out}
    run.write_json("sanity_check_audio_span.json", spans)
    table = pd.DataFrame(spans["clips"]).drop(columns=["ids_in_span"])
    table["clip_id"] = table["clip_id"].map(shown)
    say(
        f"audio spans, in positions of the expanded sequence (span_end is the first one after it), held against "
        f"{spans['held_against']}:\n{table.to_string(index=False)}"
    )
    _gate(spans["passed"], "an audio span is not where it should be", run, "sanity_check_audio_span.json")
    silent = with_fewer_rows(subject, lambda: self_patch_check(subject, clips[:N_SELF_PATCHED], layers), say)
    run.write_json("sanity_check_self_patch.json", silent)
    say(
        f"self-patch: {silent['prediction_agreement']:.0%} of {silent['n_predictions']} answers unchanged, largest "
        f"|Δlogit| {silent['max_abs_delta_logit']:.2g}; last layer {silent['last_layer_max_abs_delta_logit']:.2g} "
        f"(must be 0); embeddings {silent['embeddings_max_abs_difference_from_donor']:.2g} from B "
        f"(noise up to {silent['tolerance']:g}, where logits are up to {silent['largest_logit']:.3g})"
    )
    _gate(
        silent["passed"],
        "patching a clip with itself changes it, or the last layer or the embeddings do not give what they must",
        run,
        "sanity_check_self_patch.json",
    )


def check_engine(job: Job, pairs: Sequence[Pair], name: str, run: RunDir, say: Say) -> None:
    """Hold the engine against the experiment as it is written; status 3 where they differ, or where nothing moves.

    An experiment that leaves every value of every pair as it is would measure nothing; `silent` ones may.
    """
    first = [clip for pair in pairs[:N_ENGINE_PAIRS] for clip in (pair.a, pair.b)]
    with job.subject.clips.ahead_of(first):
        found, readouts = with_fewer_rows(job.subject, lambda: engine_check(job, pairs), say)
    run.update_json("sanity_check_engine.json", name, found)
    say(
        f"engine {found['engine']}, held against stepwise on {len(found['pairs'])} pairs: largest |Δlogit| "
        f"{found['max_abs_logit_difference']:.2g} (noise up to {found['tolerance']:g}, where logits are up to "
        f"{found['largest_logit']:.3g}), "
        f"{found['n_differing_predictions']} of {found['n_predictions']} answers differ"
    )
    if found["as_written"]:
        say(runs_as_written(job.experiment, found["as_written"]))
    what = "the engine does not compute what stepwise does"
    if found["max_abs_logit_difference_when_repeated"] > found["tolerance"]:
        what = f"{job.experiment.name} gives other logits when it runs again; draw its random numbers from pair.rng"
    _gate(found["passed"], what, run, "sanity_check_engine.json")
    if not (job.experiment.silent or _any_moves(job, readouts) or _moves_later(job, pairs)):
        raise UserError(
            f"check failed: {name} changes no value of any pair: it writes what stands there; nothing was measured. "
            "Look at the positions and options that it writes with",
            CHECK_FAILED,
        )


def _any_moves(job: Job, readouts: Sequence[Readouts]) -> bool:
    return any(moves(job.subject, found) for found in readouts)


def _moves_later(job: Job, pairs: Sequence[Pair]) -> bool:
    inputs, clips = job.inputs(), job.subject.clips
    with clips.serving(pairs):
        for pair in tqdm(pairs, desc="does it change anything?", unit="pair", delay=2, leave=False):
            try:
                if _any_moves(job, [job.readouts(inputs.of(pair))]):
                    return True
            except PairFailed:
                continue
            finally:
                clips.done(pair)
    return False


def _in_random_order(dataset: Dataset, seed: int) -> list[Clip]:
    clips = sorted(dataset.clips, key=lambda clip: clip.clip_id)
    return random.Random(f"{seed}:checks").sample(clips, len(clips))


def _gate(passed: bool, what: str, run: RunDir, filename: str) -> None:
    if not passed:
        raise UserError(f"check failed: {what}; nothing was measured. See {run.path / filename}", CHECK_FAILED)
