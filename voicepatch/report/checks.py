"""The traffic lights: what was checked before and after measuring, with the numbers behind each.

for card in cards(run):
    card.light, card.name, card.text     # "passed", "note", "failed" or "missing"
"""

from collections.abc import Iterable, Sized
from dataclasses import dataclass
from typing import Any

from voicepatch.analysis.tables import lengths_apart
from voicepatch.report.experiments import Experiment, Run
from voicepatch.text import escape
from voicepatch.types.dataset import spelling_lines

ENOUGH_MASS = 0.5  # with less of the model's probability on the labels, the restricted answer means little
MOST_APART = 0.5  # of the longer span; with a shorter other span the two clips are hardly the same words
SELF_PATCH = "Self-patching (output of the block) changes nothing"
SPANS = "The audio span is in the right place"
ENGINE = "The engine gives the logits of the reference"
SOUNDS = "Every clip can be read and holds sound"
LABELS = "Each label has a token of its own"


@dataclass(frozen=True)
class Card:
    """One check on the page. `light` is passed, note (read the numbers first), failed, or missing."""

    name: str
    light: str
    text: str


def cards(run: Run) -> list[Card]:
    """Every check of the run, first those that must pass before an experiment starts (SPEC section 7)."""
    return [
        *(Card(f"{name} cannot be shown", "failed", reason(why, most=1200)) for name, why in run.invalid.items()),
        _spans(run),
        *_self_patch(run),
        _engine(run),
        _sounds(run),
        _labels(run),
        *_label_mass(run),
        *(card for experiment in run.experiments for card in _of_experiment(experiment)),
        *_near_ties(run),
        *(card for experiment in run.mains for card in _lengths(experiment)),
        *_pairs(run),
        *_failed_pairs(run),
        *_controls(run),
        _data(run),
        *(_unfinished(experiment) for experiment in run.experiments if not experiment.finished),
    ]


def _light(passed: bool, otherwise: str = "failed") -> str:
    return "passed" if passed else otherwise


def _missing(name: str, file: str) -> Card:
    return Card(name, "missing", f"{file} is missing")


def _spans(run: Run) -> Card:
    if not run.spans:
        return _missing(SPANS, "sanity_check_audio_span.json")
    clips = run.spans["clips"]
    lengths, good = sorted(clip["n_audio"] for clip in clips), sum(clip["ok"] for clip in clips)
    text = (
        f"{good} of {len(clips)} clips have one span, compared with {run.spans['held_against']}, of {lengths[0]} to "
        f"{lengths[-1]} positions, the number that the duration gives"
    )
    return Card(SPANS, _light(run.spans["passed"]), text)


def _self_patch(run: Run) -> list[Card]:
    found = run.self_patch
    if not found:
        return [_missing(SELF_PATCH, "sanity_check_self_patch.json")]
    noise, difference = found["tolerance"], found["max_abs_delta_logit"]
    last, embeddings = found["last_layer_max_abs_delta_logit"], found["embeddings_max_abs_difference_from_donor"]
    return [
        Card(
            SELF_PATCH,
            _light(found["prediction_agreement"] == 1 and difference <= noise),
            f"{found['prediction_agreement']:.0%} of {found['n_predictions']} answers unchanged; largest |Δlogit| "
            f"{difference:.2g}, tolerance {noise:g}",
        ),
        Card(
            "Patching the last layer changes no logit of the readout",
            _light(last == 0),
            f"largest |Δlogit| {last:.2g}, must be exactly 0",
        ),
        Card(
            "Replacing the span at the embeddings gives B's own logits",
            _light(embeddings <= noise),
            f"largest difference from B's logits {embeddings:.2g}, tolerance {noise:g}",
        ),
    ]


def _engine(run: Run) -> Card:
    found = of_experiments(run, run.engines)
    if not found:
        return _missing(ENGINE, "sanity_check_engine.json")
    entries = found.values()
    differing = [pair for entry in entries for pair in entry["differing_predictions"]]
    ways = _each("as written" if entry.get("as_written") else entry["engine"] for entry in entries)
    text = (
        f"{ways} against {_each(entry['reference'] for entry in entries)} on {sum(len(e['pairs']) for e in entries)} "
        f"pairs of {_experiments(found)}: largest |Δlogit| {max(e['max_abs_logit_difference'] for e in entries):.2g}, "
        f"tolerance {_each(format(entry['tolerance'], 'g') for entry in entries)}; {len(differing)} of "
        f"{sum(entry['n_predictions'] for entry in entries)} answers differ"
    )
    if differing:
        widest = max(pair["stepwise_margin"] for pair in differing)
        text += f", where the best two labels are at most {widest:.2g} logits apart"
    return _by_experiment(run, ENGINE, found, text, note=bool(differing))


def _sounds(run: Run) -> Card:
    found = of_experiments(run, run.sounds)
    if not found:
        return _missing(SOUNDS, "sanity_check_sounds.json")
    unreadable = {
        clip["clip_id"]: f"{escape(clip['clip_id'])} ({reason(clip['reason'])})"
        for entry in found.values()
        for clip in entry["unreadable"]
    }
    silent = {clip: escape(clip) for entry in found.values() for clip in entry["silent"]}
    parts = [
        f"{len(clips)} {what}: {', '.join(_first(list(clips.values()), most))}"
        for what, clips, most in (("cannot be read", unreadable, 3), ("digital silence", silent, 8))
        if clips
    ]
    counts = [entry["n_clips"] for entry in found.values()]
    n = str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)} in each"
    all_well = f"all clips of {_experiments(found)} were read ({n}), none is digital silence"
    return _by_experiment(run, SOUNDS, found, "; ".join(parts) or all_well, note=bool(parts))


def _by_experiment(run: Run, name: str, found: dict[str, dict[str, Any]], text: str, note: bool) -> Card:
    """A check that each experiment makes. The text names the experiments where it failed or was not made."""
    failed = [experiment for experiment, entry in found.items() if not entry["passed"]]
    unchecked = [experiment.name for experiment in run.experiments if experiment.name not in found]
    light = "failed" if failed else _light(not (note or unchecked), "note")
    remarks = [f"{what}: {', '.join(x)}" for what, x in (("failed in", failed), ("not checked", unchecked)) if x]
    return Card(name, light, "; ".join([text, *remarks]))


def of_experiments(run: Run, entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The results of a check that each experiment makes, in the report's order of experiments."""
    return {experiment.name: entries[experiment.name] for experiment in run.experiments if experiment.name in entries}


def reason(text: str, most: int = 400) -> str:
    """Why a clip or a pair failed, on one line of at most `most` characters."""
    parts = [escape(text[start : start + 100]) for start in range(0, min(len(text), most), 100)]
    return "".join(parts) + ("…" if len(text) > most else "")


def _labels(run: Run) -> Card:
    if not run.tokens:
        return _missing(LABELS, "tokenization_report.json")
    collision = run.tokens["first_token_collision"]["found"]
    several = [label for label, entry in run.tokens["labels"].items() if entry["multi_token"]]
    text = f"{'two' if collision else 'no two'} labels start with the same token"
    if several:
        text += f"; {' and '.join(several)} are several tokens, of which the first is read"
    return Card(LABELS, "failed" if collision else _light(not several, "note"), text)


def _label_mass(run: Run) -> list[Card]:
    masses = [e.records.groupby("clip_a")["label_mass_base"].first() for e in run.experiments if e.records is not None]
    if not masses:
        return []
    mass = max(masses, key=len)
    text = f"unpatched they hold {mass.mean():.1%} of it on average and {mass.min():.1%} at least; {len(mass)} clips"
    return [Card("The labels hold the model's probability", _light(mass.mean() >= ENOUGH_MASS, "note"), text)]


def _of_experiment(experiment: Experiment) -> list[Card]:
    """The checks of an experiment's own module, and of one that must change nothing."""
    found = [Card(check.name, _light(check.passed), check.text) for check in experiment.own.checks]
    if experiment.own.missing:
        found.append(Card(f"The figures of {experiment.name}", "note", experiment.own.missing))
    if experiment.settings["must_change_nothing"] and experiment.records is not None:
        changed = int(experiment.records["flip_from_base"].sum())
        text = f"flip from base in {changed} of {len(experiment.records)} patched answers ({experiment.site})"
        found.append(Card(f"The control {experiment.name} changes no answer", _light(changed == 0), text))
    return found


def _near_ties(run: Run) -> list[Card]:
    measured = [experiment for experiment in run.experiments if experiment.near_ties]
    if not measured:
        return []
    counts = [experiment.near_ties for experiment in measured]
    tied, answers = sum(count.tied for count in counts), sum(count.answers for count in counts)
    tied_clips = frozenset().union(*(count.tied_clips for count in counts))
    clips = frozenset().union(*(count.clips for count in counts))
    margin = _each(f"{experiment.settings['near_tie_margin']:g}" for experiment in measured)
    text = (
        f"{len(tied_clips)} of {len(clips)} unpatched and {tied} of {answers} other answers are near-ties (best two "
        f"labels less than {margin} logits apart); with another engine, device or dtype, rounding can change them"
    )
    return [Card("Answers that are near-ties", _light(not tied and not tied_clips, "note"), text)]


def _lengths(experiment: Experiment) -> list[Card]:
    """Whether the two spans of each pair have similar lengths."""
    if experiment.records is None:
        return []
    pairs = experiment.records.drop_duplicates("pair_id")
    apart = lengths_apart(pairs).abs()
    unlike = apart > MOST_APART
    text = f"{unlike.sum()} of {len(pairs)} {experiment.name} pairs have a span less than half as long as the other"
    if unlike.any():
        worst = pairs.loc[apart.idxmax()]
        text += (
            f". They count like any other pair. The lengths differ most in {escape(worst['clip_a'])} ← "
            f"{escape(worst['clip_b'])} ({worst['len_a']} and {worst['len_b']} positions). See the table by difference "
            "in length, and leave such clips out"
        )
    return [Card(f"The spans of {experiment.name} pairs have similar lengths", _light(not unlike.any(), "note"), text)]


def _pairs(run: Run) -> list[Card]:
    found = []
    for kind, report in run.construction.items():
        drawn = (
            f"{report['pairs_sampled']} drawn of {report['pairs_possible']} possible, from {report['n_clips']} clips"
        )
        text = "; ".join([drawn, *_first(report["warnings"])])
        found.append(Card(f"{kind.capitalize()} pairs", _light(not report["warnings"], "note"), text))
    return found


def _failed_pairs(run: Run) -> list[Card]:
    ran = {experiment.name: experiment.n_measured + len(experiment.failed) for experiment in run.experiments}
    total, failed = sum(ran.values()), sum(len(experiment.failed) for experiment in run.experiments)
    name = "Every pair gave its records"
    if not failed:
        return [Card(name, "passed", f"all {total} pairs that ran, in {_experiments(ran)}")] if total else []
    each = ", ".join(f"{e.name} {len(e.failed)} of {ran[e.name]}" for e in run.experiments if e.failed)
    text = f"{failed} of {total} pairs gave no record and are in no curve or table: {each}; the reasons are below"
    return [Card(name, "note", text)]


def _controls(run: Run) -> list[Card]:
    name, kinds = "Controls ran with the settings of the main experiment", {main.kind for main in run.mains}
    if run.left_out:
        return [Card(name, "note", "; ".join(run.left_out))]
    joined = [one.name for one in run.others if one.settings["control"] and one.finished and one.kind in kinds]
    same = "the same dose, layers, alignment, dtype, sampling of pairs and seed"
    return [Card(name, "passed", f"{', '.join(joined)}: {same}")] if joined else []


def _data(run: Run) -> Card:
    data = run.config["data"]
    of_clips: dict[str, Any] = next(iter(run.construction.values()), {})
    count = f"{data['name']}: {data['n_clips']} clips, {len(data['warnings'])} warnings"
    lines = [count, *_first(data["warnings"]), *spelling_lines(of_clips.get("label_spellings", {}))]
    return Card("Data", _light(not data["warnings"], "note"), "; ".join(lines))


def _unfinished(experiment: Experiment) -> Card:
    failed = f", {len(experiment.failed)} gave no record" if experiment.failed else ""
    text = f"{experiment.n_measured} of {len(experiment.pairs)} pairs are measured{failed}; the same command continues"
    return Card(f"{experiment.name} is not finished", "note", text)


def _experiments(found: Sized) -> str:
    return "1 experiment" if len(found) == 1 else f"{len(found)} experiments"


def _each(values: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(values))


def _first(lines: list[str], most: int = 8) -> list[str]:
    return [*lines[:most], *([f"and {len(lines) - most} more"] if len(lines) > most else [])]
