"""One experiment from its pairs to its records.

    run_experiment(subject, dataset, run, load_intervention("patch"), sample, settings)

Says what it costs, runs the checks that gate it, then the pairs that are not done yet.
"""

import platform
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from engine.failures import PairFailed
from engine.pair_input import ALIGNMENTS, check_alignment
from engine.subject import Subject
from errors import BAD_USAGE, CHECK_FAILED, UserError
from models.labels import LABELS
from models.opens2s_io import PROMPT, SYSTEM
from pairs import Clip, Dataset, Pair, PairSample, dataset_identity, pair_row, pairs_from_rows
from pairs.clips import listing
from pairs.shown import shown
from registry.intervention import ALL, Intervention
from runs.checks import N_SELF_PATCHED, NOISE, engine_check, moves, self_patch_check, sound_check, span_check, usable
from runs.directory import RunDir
from runs.failures import NEAR_TIE, Failures
from runs.fewer_rows import with_fewer_rows
from runs.inputs import Inputs
from runs.interrupt import after_this_pair
from runs.pair_loop import run_pairs, runs_as_written
from runs.say import Say, once
from runs.sweep import combinations, option_values, swept

LIBRARIES = ("torch", "nnsight", "transformers", "numpy", "pandas", "altair", "soundfile", "soxr")
N_CHECK_CLIPS = 5
MAIN = "patch"
# Settings of the sampling, under their names here and in the run's configuration.
DRAWN = (("seed", "pair_sampling_seed"), ("same_speaker", "same_speaker"), ("both_directions", "both_directions"))
SAMPLING = tuple(recorded for _, recorded in DRAWN)


@dataclass(frozen=True)
class Settings:
    """What an experiment runs with; `layers` None means all. `options` are its own: a value, several, or `ALL`."""

    kind: str
    max_pairs: int = 100
    seed: int = 42
    layers: tuple[int, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    align: str = ALIGNMENTS[0]
    same_speaker: bool = True
    both_directions: bool = False
    overwrite: bool = False
    skip_bad_clips: bool = False
    max_failed: float = 0.01


def experiment_name(experiment: Intervention, kind: str) -> str:
    """NAME in the files of a run: the pair kind, or a control's name with it; `self` stands alone (SPEC section 8)."""
    return {MAIN: kind, "self": "self"}.get(experiment.name, f"{experiment.name}-{kind}")


def run_experiment(
    subject: Subject,
    dataset: Dataset,
    run: RunDir,
    experiment: Intervention,
    sample: PairSample,
    settings: Settings,
    say: Say = print,
) -> str:
    """Check, then run what is not done yet of one experiment; gives its NAME.

    `sample` holds the main experiment's pairs. Where the run has that experiment already, every other one shadows it as
    it ran: its pairs, and the settings that they were sampled with.

    Raises `UserError` for layers that the model lacks, for a directory of another run, and, with status 3, when a
    check fails; then no record has been written.
    """
    said: set[str] = set()
    say = once(say, said)
    name = experiment_name(experiment, settings.kind)
    layers = layers_of(subject, settings.layers)
    values = option_values(experiment, settings.options, subject.engine.written)
    chosen = combinations(values)
    check_alignment(settings.align)
    claim(subject, dataset, run)
    main = run.config()["experiments"].get(settings.kind)
    shadows = experiment.name != MAIN and main
    if shadows:
        settings = replace(
            settings, max_pairs=main[f"max_pairs_{settings.kind}"], **{new: main[old] for new, old in DRAWN}
        )
        report = sample.report | {"max_pairs": settings.max_pairs} | {new: main[old] for new, old in DRAWN}
        sample = PairSample(pairs_from_rows(run.read_pairs(settings.kind), dataset.clips), report)
    pairs = experiment.pairs(sample, dataset.clips) if experiment.pairs else sample.pairs
    done = run.begin(
        name, _recorded(subject, experiment, settings, layers, values), [pair_row(p) for p in pairs], settings.overwrite
    )
    if not shadows:
        run.update_json("pair_construction_report.json", settings.kind, sample.report)
    if done == len(pairs):
        _finish(run, name, done)  # once more, where it was interrupted between its last pair and this mark
        say(f"{name}: all {done} pairs are done already; --overwrite runs them again")
        return name
    say(cost(len(pairs) - done, len(layers), len(chosen), subject))
    _check_sounds(sound_check(_clips_of(pairs)), name, run, settings, say)
    run_checks(subject, dataset, run, settings.seed, layers, say, settings.skip_bad_clips)
    how = {"layers": layers, "align_how": settings.align, "seed": settings.seed, "clips": dataset.clips}
    compared = with_fewer_rows(subject, lambda: engine_check(subject, experiment, pairs, options=chosen, **how), say)
    _check_engine(*compared, experiment, name, run, say)
    if not (experiment.silent or any(map(moves, compared[1]))):
        _check_moves(subject, experiment, pairs, chosen, name, **how)
    failures = Failures(run, name, len(pairs), settings.max_failed, settings.skip_bad_clips)
    rows = run_pairs(
        subject, experiment, pairs[done:], **how, options=values, say=once(tqdm.write, said), failed=failures.note
    )
    with after_this_pair() as pause:
        for records in tqdm(rows, desc=name, unit="pair", initial=done, total=len(pairs)):
            if records:
                run.append(name, records)
            pause()
    n_failed = _finish(run, name, len(pairs))
    if n_failed == len(pairs):
        raise UserError(f"{name}: none of the {n_failed} pairs gave a record; see {run.failures_file(name)}")
    if n_failed:
        say(f"warning: {n_failed} of {len(pairs)} pairs gave no record: {run.failures_file(name)}")
    return name


def refuse_early(
    run: RunDir, dataset: Dataset, experiment: Intervention, settings: Settings, given: Mapping[str, Any]
) -> None:
    """Raise `UserError` for what can be refused before a model is loaded.

    That is data of another run, and an experiment that was begun with other settings. `given` are the options of the
    command, of which engine, device and dtype count where they are named.
    """
    check_alignment(settings.align)
    run.check({"data": dataset_identity(dataset)})
    if settings.overwrite:
        return
    values = {**experiment.options, **settings.options}
    known = known_settings(experiment, settings, {name: chosen for name, chosen in values.items() if chosen is not ALL})
    known |= {key: given[key] for key in ("engine", "dtype") if given.get(key) not in (None, "auto")}
    if settings.layers is not None:
        known["layers_to_patch"] = list(settings.layers)
    if given.get("device"):
        known["device"] = given["device"].partition(":")[0]
    if experiment.name != MAIN and settings.kind in run.experiments():  # it shadows the main experiment
        known = {key: value for key, value in known.items() if key not in (*SAMPLING, f"max_pairs_{settings.kind}")}
    run.refuse_other_settings(experiment_name(experiment, settings.kind), known)


def _finish(run: RunDir, name: str, n_pairs: int) -> int:
    n_failed = len(run.failures(name))
    run.finish(name, {"n_pairs": n_pairs, "n_failed": n_failed})
    return n_failed


def _clips_of(pairs: Sequence[Pair]) -> list[Clip]:
    return list({clip.clip_id: clip for pair in pairs for clip in (pair.a, pair.b)}.values())


def _check_sounds(found: dict[str, Any], name: str, run: RunDir, settings: Settings, say: Say) -> None:
    run.update_json("sanity_check_sounds.json", name, found)
    unreadable, silent = found["unreadable"], found["silent"]
    if silent:
        say(f"warning: {len(silent)} of {found['n_clips']} clips are silence: {listing(silent)}")
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
    clips, left_out = usable(subject, _in_random_order(dataset, seed), N_CHECK_CLIPS, skip_bad_clips)
    spans = span_check(subject, clips) | {"left_out": left_out}
    run.write_json("sanity_check_audio_span.json", spans)
    table = pd.DataFrame(spans["clips"]).drop(columns=["ids_in_span"])
    table["clip_id"] = table["clip_id"].map(shown)
    say("audio spans, in positions of the expanded sequence:\n" + table.to_string(index=False))
    _gate(spans["passed"], "an audio span is not where it should be", run, "sanity_check_audio_span.json")
    silent = with_fewer_rows(subject, lambda: self_patch_check(subject, clips[:N_SELF_PATCHED], layers), say)
    run.write_json("sanity_check_self_patch.json", silent)
    say(
        f"self-patch: {silent['prediction_agreement']:.0%} of {silent['n_predictions']} answers unchanged, largest "
        f"|Δlogit| {silent['max_abs_delta_logit']:.2g}; last layer {silent['last_layer_max_abs_delta_logit']:.2g} "
        f"(must be 0); embeddings {silent['embeddings_max_abs_difference_from_donor']:.2g} from B "
        f"(noise up to {silent['tolerance']:g})"
    )
    _gate(
        silent["passed"],
        "patching a clip with itself, or the floor or ceiling, is off",
        run,
        "sanity_check_self_patch.json",
    )


def _check_engine(
    found: dict[str, Any], readouts: list[Any], experiment: Intervention, name: str, run: RunDir, say: Say
) -> None:
    run.update_json("sanity_check_engine.json", name, found)
    say(
        f"engine {found['engine']}, held against stepwise on {len(found['pairs'])} pairs: largest |Δlogit| "
        f"{found['max_abs_logit_difference']:.2g} (noise up to {found['tolerance']:g}), "
        f"{found['n_differing_predictions']} of {found['n_predictions']} answers differ"
    )
    if found["as_written"]:
        say(runs_as_written(experiment, found["as_written"]))
    if found["max_abs_logit_difference_when_repeated"] > found["tolerance"]:
        what = f"{experiment.name} gives other logits when it runs again; draw its random numbers from pair.rng"
    else:
        what = "the engine does not compute what stepwise does"
    _gate(found["passed"], what, run, "sanity_check_engine.json")


def _check_moves(
    subject: Subject,
    experiment: Intervention,
    pairs: Sequence[Pair],
    chosen: Sequence[Mapping[str, Any]],
    name: str,
    layers: Sequence[int],
    align_how: str,
    seed: int,
    clips: Sequence[Clip],
) -> None:
    """Status 3 for an experiment that leaves every stream of every pair as it is: it would measure nothing."""
    inputs = Inputs(subject, experiment.name, clips, align_how, seed)
    with subject.clips.serving(pairs):
        for pair in tqdm(pairs, desc=f"{name}: does it write anything new?", unit="pair", delay=2, leave=False):
            try:
                if moves(subject.engine.readouts(experiment, inputs.of(pair), layers, chosen)):
                    return
            except PairFailed:
                continue
            finally:
                subject.clips.done(pair)
    raise UserError(
        f"check failed: {name} changes no value of any pair: it writes what stands there; nothing was measured. "
        "Look at the positions and options that it writes with",
        CHECK_FAILED,
    )


def _in_random_order(dataset: Dataset, seed: int) -> list[Clip]:
    clips = sorted(dataset.clips, key=lambda clip: clip.clip_id)
    return random.Random(f"{seed}:checks").sample(clips, len(clips))


def _gate(passed: bool, what: str, run: RunDir, filename: str) -> None:
    if not passed:
        raise UserError(f"check failed: {what}; nothing was measured. See {run.path / filename}", CHECK_FAILED)


def layers_of(subject: Subject, layers: Sequence[int] | None) -> list[int]:
    """The layers to patch in order, all of the model's for None; `UserError` for one that it lacks."""
    n = subject.engine.n_layers
    chosen = sorted(set(range(n) if layers is None else layers))
    if not chosen or chosen[0] < 0 or chosen[-1] >= n:
        raise UserError(f"--layers {','.join(map(str, chosen))}: the model has layers 0-{n - 1}", BAD_USAGE)
    return chosen


def claim(subject: Subject, dataset: Dataset, run: RunDir) -> None:
    """Record in the run's configuration what it is a run of."""
    run.claim(
        {
            "model": {
                "name": subject.name,
                "sha256": subject.sha256,
                "n_layers": subject.engine.n_layers,
                "hidden_size": subject.model.llm_model.config.hidden_size,
            },
            "data": dataset_identity(dataset),
            "prompt": {"system": SYSTEM, "user": PROMPT, "text": subject.io.prompt_text()},
            "labels": {"order": list(LABELS), "token_ids": subject.labels.token_ids},
        }
    )


def _recorded(
    subject: Subject, experiment: Intervention, settings: Settings, layers: list[int], values: Mapping[str, tuple]
) -> dict[str, Any]:
    model = subject.model.llm_model
    return {
        **known_settings(experiment, settings, values),
        "layers_to_patch": layers,
        "patch_all_layers": len(layers) == subject.engine.n_layers,
        "swept": swept(values),
        "engine": subject.engine.name,
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "use_cache": False,
        "engine_tolerance": NOISE[subject.model.llm_model.dtype],
        "near_tie_margin": NEAR_TIE[subject.model.llm_model.dtype],
    }


def known_settings(experiment: Intervention, settings: Settings, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an experiment that are known before the model is."""
    single = {name: _single(chosen) for name, chosen in values.items()}
    return {
        "intervention": experiment.name,
        "doc": experiment.doc,
        "code_sha256": experiment.code_hash(),
        "control": experiment.control,
        "kind": settings.kind,
        "patch_alpha": single.pop("alpha", 1.0),
        "options": single,
        "align": settings.align,
        f"max_pairs_{settings.kind}": settings.max_pairs,
        "pair_sampling_seed": settings.seed,
        "same_speaker": settings.same_speaker,
        "both_directions": settings.both_directions,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
    }


def _single(chosen: Any) -> Any:
    """One value as itself, several as a list."""
    if not isinstance(chosen, (tuple, list)):
        return chosen
    return chosen[0] if len(chosen) == 1 else list(chosen)


def cost(n_pairs: int, n_layers: int, n_combinations: int, subject: Subject) -> str:
    """What is ahead, in forward passes as the textbook procedure counts them, and what the engine makes of it."""
    times = f" × {n_combinations}" if n_combinations > 1 else ""
    n = n_layers * n_combinations + 2
    line = f"{n_pairs} pairs × ({n_layers}{times} + 2) = {n_pairs * n:,} forward passes by the textbook procedure"
    how = {
        "tail": "does a pair in one growing forward, over the positions that the patch can change",
        "sweep": "does a pair in one growing forward",
        "stepwise": "runs each trace as it is written",
    }
    return f"{line}; engine {subject.engine.name} {how[subject.engine.name]}"
