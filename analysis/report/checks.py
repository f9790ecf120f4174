"""The traffic lights: what was checked before and after measuring, with the figures behind each verdict.

for check in checks(run):
    check.light, check.name, check.figures     # "passed", "note" or "failed"
"""

from dataclasses import dataclass

from analysis.report.experiments import Experiment, Run

# Below this share of the model's probability on the five labels, a restricted 5-way answer says little.
ENOUGH_MASS = 0.5


@dataclass(frozen=True)
class Check:
    """`light` is passed, note (read the figures before you believe a curve), failed, or missing."""

    name: str
    light: str
    figures: str


def checks(run: Run) -> list[Check]:
    """Every check of the run, those that gate an experiment first (SPEC section 7)."""
    return [
        *_spans(run),
        *_silence(run),
        *_labels(run),
        *_label_mass(run),
        *(check for experiment in run.experiments for check in _self_control(experiment)),
        *_pairs(run),
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
            f"{good} of {len(clips)} clips: one span between its two markers, {lengths[0]} to {lengths[-1]} positions, "
            "as many as the duration asks for",
        )
    ]


def _silence(run: Run) -> list[Check]:
    silent = run.silent
    if not silent:
        return [
            Check("A clip patched with itself changes nothing", "missing", "sanity_check_self_patch.json is not there")
        ]
    noise = silent["tolerance"]
    return [
        Check(
            "A clip patched with itself changes nothing",
            _light(silent["prediction_agreement"] == 1 and silent["max_abs_delta_logit"] <= noise),
            f"{silent['prediction_agreement']:.0%} of {silent['n_predictions']} answers unchanged; largest |Δlogit| "
            f"{silent['max_abs_delta_logit']:.2g}, tolerance {noise:g}",
        ),
        Check(
            "Floor: patching the last layer comes too late",
            _light(silent["last_layer_max_abs_delta_logit"] == 0),
            f"largest |Δlogit| {silent['last_layer_max_abs_delta_logit']:.2g}, must be exactly 0",
        ),
        Check(
            "Ceiling: replacing the span at the embeddings gives B's own answer",
            _light(silent["embeddings_max_abs_difference_from_donor"] <= noise),
            f"largest difference from B's logits {silent['embeddings_max_abs_difference_from_donor']:.2g}, "
            f"tolerance {noise:g}",
        ),
    ]


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
    figures = f"{changed} of {len(experiment.records)} patched answers differ from A's own"
    return [Check(f"The control {experiment.name} is silent", _light(changed == 0), figures)]


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
    return Check("Data", _light(not data["warnings"], "note"), "; ".join([figures, *_first(data["warnings"])]))


def _first(lines: list[str], most: int = 8) -> list[str]:
    return [*lines[:most], *([f"and {len(lines) - most} more"] if len(lines) > most else [])]


def _unfinished(experiment: Experiment) -> Check:
    figures = f"{experiment.n_measured} of {len(experiment.pairs)} pairs are in; the same command goes on with it"
    return Check(f"{experiment.name} is not finished", "note", figures)
