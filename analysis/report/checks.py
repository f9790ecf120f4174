"""The traffic lights: what was checked before and after measuring, with the figures behind each verdict.

for check in checks(run):
    check.light, check.name, check.figures     # "passed", "note" or "failed"
"""

from collections.abc import Iterable, Sized
from dataclasses import dataclass
from typing import Any

from analysis.lens import is_lens, largest_difference
from analysis.metrics import near_tie_margin
from analysis.report.experiments import Experiment, Run
from analysis.tables import lengths_apart
from pairs.clips import spelling_lines
from pairs.shown import shown

# Below this share of the model's probability on the five labels, a restricted 5-way answer says little.
ENOUGH_MASS = 0.5
SELF_PATCH = "Self-patching (output of the block) changes nothing"
MOST_APART = 0.5  # of the longer span; a shorter other one is another sound rather than the same words at another tempo


@dataclass(frozen=True)
class Check:
    """`light` is passed, note (read the figures before you believe a curve), failed, or missing."""

    name: str
    light: str
    figures: str


def checks(run: Run) -> list[Check]:
    """Every check of the run, those that gate an experiment first (SPEC section 7)."""
    return [
        *(Check(f"{name} cannot be shown", "failed", reason(why, most=1200)) for name, why in run.refused.items()),
        *_spans(run),
        *_silence(run),
        _engine(run),
        _sounds(run),
        *_labels(run),
        *_label_mass(run),
        *(check for experiment in run.experiments for check in _self_control(experiment)),
        *_lens(run),
        *_near_ties(run),
        *(check for experiment in run.mains for check in _lengths(experiment)),
        *_pairs(run),
        *_lost(run),
        *_alike(run),
        _data(run),
        *(_unfinished(experiment) for experiment in run.experiments if not experiment.finished),
    ]


def _light(passed: bool, otherwise: str = "failed") -> str:
    return "passed" if passed else otherwise


def _spans(run: Run) -> list[Check]:
    name = "The audio span is where it should be"
    if not run.spans:
        return [Check(name, "missing", "sanity_check_audio_span.json is not there")]
    clips = run.spans["clips"]
    lengths = sorted(clip["n_audio"] for clip in clips)
    good = sum(clip["ok"] for clip in clips)
    return [
        Check(
            name,
            _light(run.spans["passed"]),
            f"{good} of {len(clips)} clips: one span, held against {run.spans.get('held_against', 'its two markers')}, "
            f"{lengths[0]} to {lengths[-1]} positions, as many as the duration asks for",
        )
    ]


def _silence(run: Run) -> list[Check]:
    silent = run.silent
    if not silent:
        return [
            Check(
                SELF_PATCH,
                "missing",
                "sanity_check_self_patch.json is not there",
            )
        ]
    noise = silent["tolerance"]
    return [
        Check(
            SELF_PATCH,
            _light(silent["prediction_agreement"] == 1 and silent["max_abs_delta_logit"] <= noise),
            f"{silent['prediction_agreement']:.0%} of {silent['n_predictions']} answers unchanged; largest |Δlogit| "
            f"{silent['max_abs_delta_logit']:.2g}, tolerance {noise:g}",
        ),
        Check(
            "Patching the last layer changes no logit of the readout",
            _light(silent["last_layer_max_abs_delta_logit"] == 0),
            f"largest |Δlogit| {silent['last_layer_max_abs_delta_logit']:.2g}, must be exactly 0",
        ),
        Check(
            "Replacing the span at the embeddings gives B's own logits",
            _light(silent["embeddings_max_abs_difference_from_donor"] <= noise),
            f"largest difference from B's logits {silent['embeddings_max_abs_difference_from_donor']:.2g}, "
            f"tolerance {noise:g}",
        ),
    ]


def _engine(run: Run) -> Check:
    name = "The engine gives the logits of the reference"
    found = of_experiments(run, run.engines)
    if not found:
        return Check(name, "missing", "sanity_check_engine.json is not there")
    n_pairs = sum(len(entry["pairs"]) for entry in found.values())
    differing = [pair for entry in found.values() for pair in entry["differing_predictions"]]
    figures = (
        f"{_each(map(_way, found.values()))} against {_each(e['reference'] for e in found.values())} "
        f"on {n_pairs} pairs of {_experiments(found)}: largest |Δlogit| "
        f"{max(entry['max_abs_logit_difference'] for entry in found.values()):.2g}, tolerance "
        f"{_each(format(entry['tolerance'], 'g') for entry in found.values())}; {len(differing)} of "
        f"{sum(entry['n_predictions'] for entry in found.values())} answers differ"
    )
    if differing:
        widest = max(pair["stepwise_margin"] for pair in differing)
        figures += f", where the best two labels are at most {widest:.2g} logits apart"
    light = "note" if differing or len(found) < len(run.experiments) else "passed"
    return _by_experiment(Check(name, light, figures), run, found)


def _way(entry: dict[str, Any]) -> str:
    return "as written" if entry.get("as_written") else entry["engine"]


def _sounds(run: Run) -> Check:
    name = "Every clip can be read and holds sound"
    found = of_experiments(run, run.sounds)
    if not found:
        return Check(name, "missing", "sanity_check_sounds.json is not there")
    unreadable = {
        clip["clip_id"]: f"{shown(clip['clip_id'])} ({reason(clip['reason'])})"
        for entry in found.values()
        for clip in entry["unreadable"]
    }
    silent = {clip: shown(clip) for entry in found.values() for clip in entry["silent"]}
    parts = [
        f"{len(clips)} {what}: {', '.join(_first(list(clips.values()), most))}"
        for what, clips, most in (("cannot be read", unreadable, 3), ("digital silence", silent, 8))
        if clips
    ]
    n_clips = [entry["n_clips"] for entry in found.values()]
    all_well = f"all clips of {_experiments(found)} were read ({_range(n_clips)}), none is digital silence"
    light = "note" if parts or len(found) < len(run.experiments) else "passed"
    return _by_experiment(Check(name, light, "; ".join(parts) or all_well), run, found)


def reason(text: str, most: int = 400) -> str:
    """Why a clip or a pair failed, on one line; what went wrong may stand behind a long path."""
    parts = [shown(text[start : start + 100]) for start in range(0, min(len(text), most), 100)]
    return "".join(parts) + ("…" if len(text) > most else "")


def of_experiments(run: Run, entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a check that is made for each experiment found, in the report's order of experiments."""
    return {experiment.name: entries[experiment.name] for experiment in run.experiments if experiment.name in entries}


def _by_experiment(check: Check, run: Run, found: dict[str, dict[str, Any]]) -> Check:
    """The check, red where it failed in an experiment; the experiments where it failed or was not made are named."""
    failed = [name for name, entry in found.items() if not entry["passed"]]
    unchecked = [experiment.name for experiment in run.experiments if experiment.name not in found]
    remarks = [
        f"{what}: {', '.join(names)}" for what, names in (("failed in", failed), ("not checked", unchecked)) if names
    ]
    return Check(check.name, "failed" if failed else check.light, "; ".join([check.figures, *remarks]))


def _experiments(found: Sized) -> str:
    return "1 experiment" if len(found) == 1 else f"{len(found)} experiments"


def _each(values: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(values))


def _range(numbers: list[int]) -> str:
    return str(min(numbers)) if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)} in each"


def _labels(run: Run) -> list[Check]:
    if not run.tokens:
        return [Check("Each label has a token of its own", "missing", "tokenization_report.json is not there")]
    found = run.tokens["first_token_collision"]["found"]
    several = [label for label, entry in run.tokens["labels"].items() if entry["multi_token"]]
    figures = "no two labels start with the same token" if not found else "two labels start with the same token"
    if several:
        figures += f"; {' and '.join(several)} are several tokens, the first stands for them"
    return [Check("Each label has a token of its own", "failed" if found else _light(not several, "note"), figures)]


def _label_mass(run: Run) -> list[Check]:
    masses = [e.records.groupby("clip_a")["label_mass_base"].first() for e in run.experiments if e.records is not None]
    if not masses:
        return []
    mass = max(masses, key=len)
    return [
        Check(
            "The five labels hold the model's probability",
            _light(mass.mean() >= ENOUGH_MASS, "note"),
            f"unpatched they hold {mass.mean():.1%} of it on average and {mass.min():.1%} at least; {len(mass)} clips",
        )
    ]


def _self_control(experiment: Experiment) -> list[Check]:
    if experiment.settings["intervention"] != "self" or experiment.records is None:
        return []
    changed = int(experiment.records["flip_from_base"].sum())
    figures = f"flip from base in {changed} of {len(experiment.records)} patched answers ({experiment.site})"
    return [Check(f"The control {experiment.name} changes no answer", _light(changed == 0), figures)]


def _lens(run: Run) -> list[Check]:
    name, last = "The lens at the last layer is the model's own answer", run.config["model"]["n_layers"] - 1
    found = {
        experiment.name: largest_difference(experiment.records)
        for experiment in run.experiments
        if is_lens(experiment.settings) and experiment.records is not None and experiment.records["layer"].max() == last
    }
    return [
        Check(name, _light(difference == 0), f"{lens}: largest |Δlogit| {difference:.2g}, must be exactly 0")
        for lens, difference in found.items()
    ]


def _near_ties(run: Run) -> list[Check]:
    measured = [experiment for experiment in run.experiments if experiment.near_ties]
    if not measured:
        return []
    counts = [experiment.near_ties for experiment in measured]
    tied, answers = sum(count.tied for count in counts), sum(count.answers for count in counts)
    tied_clips = frozenset().union(*(count.tied_clips for count in counts))
    clips = frozenset().union(*(count.clips for count in counts))
    margin = _each(f"{near_tie_margin(experiment.settings):g}" for experiment in measured)
    return [
        Check(
            "Answers that are near-ties",
            _light(not tied and not tied_clips, "note"),
            f"{len(tied_clips)} of {len(clips)} unpatched and {tied} of {answers} other answers are near-ties "
            f"(best two labels less than {margin} logits apart): rounding in another engine, device or dtype can "
            "choose between the two",
        )
    ]


def _lengths(experiment: Experiment) -> list[Check]:
    """Whether the two spans of each pair are of a size; a pair of which a sliver was written counts like any other."""
    if experiment.records is None:
        return []
    pairs = experiment.records.drop_duplicates("pair_id")
    apart = lengths_apart(pairs).abs()
    unlike = apart > MOST_APART
    figures = f"{unlike.sum()} of {len(pairs)} {experiment.name} pairs have a span less than half as long as the other"
    if unlike.any():
        worst = pairs.loc[apart.idxmax()]
        figures += (
            f", {shown(worst['clip_a'])} ← {shown(worst['clip_b'])} the least alike ({worst['len_a']} and "
            f"{worst['len_b']} positions), and count like any other: see the table by difference in length, and leave "
            "such clips out"
        )
    return [Check(f"The spans of {experiment.name} pairs are of a size", _light(not unlike.any(), "note"), figures)]


def _lost(run: Run) -> list[Check]:
    ran = {experiment.name: experiment.n_measured + len(experiment.lost) for experiment in run.experiments}
    total, lost = sum(ran.values()), sum(len(experiment.lost) for experiment in run.experiments)
    if not total:
        return []
    name = "Every pair gave its records"
    if not lost:
        return [Check(name, "passed", f"all {total} pairs that ran, in {_experiments(ran)}")]
    each = [f"{e.name} {len(e.lost)} of {ran[e.name]}" for e in run.experiments if e.lost]
    figures = f"{lost} of {total} pairs gave no record and are in no curve or table: {', '.join(each)}; reasons below"
    return [Check(name, "note", figures)]


def _alike(run: Run) -> list[Check]:
    name = "Controls ran as the main experiment did"
    if run.left_out:
        return [Check(name, "note", "; ".join(run.left_out))]
    joined = [
        one
        for one in run.others
        if one.settings["control"]
        and one.finished
        and one.settings["kind"] in {main.settings["kind"] for main in run.mains}
    ]
    same = "the same dose, layers, alignment, dtype, sampling of pairs and seed"
    return [Check(name, "passed", f"{_list_of(joined)}: {same}")] if joined else []


def _list_of(experiments: list[Experiment]) -> str:
    return ", ".join(experiment.name for experiment in experiments)


def _pairs(run: Run) -> list[Check]:
    found = []
    for kind, report in run.construction.items():
        remarks = report["warnings"]
        figures = (
            f"{report['pairs_sampled']} drawn of {report['pairs_possible']} possible, from {report['n_clips']} clips"
        )
        found.append(
            Check(f"{kind.capitalize()} pairs", _light(not remarks, "note"), "; ".join([figures, *_first(remarks)]))
        )
    return found


def _data(run: Run) -> Check:
    data = run.config["data"]
    figures = f"{data['name']}: {data['n_clips']} clips, {len(data['warnings'])} warnings"
    of_clips = next(iter(run.construction.values()), {})
    spellings = spelling_lines(of_clips.get("label_spellings", {}))
    lines = [figures, *_first(data["warnings"]), *spellings]
    return Check("Data", _light(not data["warnings"], "note"), "; ".join(lines))


def _first(lines: list[str], most: int = 8) -> list[str]:
    return [*lines[:most], *([f"and {len(lines) - most} more"] if len(lines) > most else [])]


def _unfinished(experiment: Experiment) -> Check:
    lost = f", {len(experiment.lost)} gave no record" if experiment.lost else ""
    figures = f"{experiment.n_measured} of {len(experiment.pairs)} pairs are in{lost}; the same command goes on with it"
    return Check(f"{experiment.name} is not finished", "note", figures)
