"""The words above an experiment's figures.

title, subtitle = heading(results, experiment)
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from voicepatch.analysis.breakdown import single_values
from voicepatch.analysis.cells import DOSE, value_name
from voicepatch.analysis.experiment_results import TO_TARGET_ELIGIBLE, ExperimentResults
from voicepatch.analysis.results import Results
from voicepatch.analysis.samples import speakers_note
from voicepatch.text import escape

ESTIMATES = "estimates: the model was not run with these changes"


def heading(results: Results, experiment: ExperimentResults) -> tuple[str, list[str]]:
    """The title of an experiment's figures, and lines on its pairs, model and data."""
    settings, metrics = experiment.settings, experiment.metrics
    intervention = "" if experiment.is_main else f", {settings['intervention']}"
    n_listed, n_failed = len(experiment.pairs), len(experiment.failed)
    n_open = n_listed - experiment.n_measured - n_failed
    missing = [f"{n_failed} gave no record"] * (n_failed > 0) + [f"{n_open} are not measured yet"] * (n_open > 0)
    of = f" of {n_listed} ({', '.join(missing)})" if missing else ""
    who = "A unpatched does" if experiment.pairs_of_clips else "the unpatched clips do"
    eligible = f"{int(metrics['eligible_count'].max())} of them eligible ({who} not give the target)"
    dose = "".join(f", {note}" for note in dose_note(experiment) if metrics[DOSE].nunique() == 1)
    units = f"{count_of_pairs(metrics)} {experiment.unit}{'s' if metrics['n_pairs'].max() > 1 else ''}{of}"
    units += f", {eligible}" if experiment.rate == TO_TARGET_ELIGIBLE else ""
    units += dose if experiment.has_donor else ""
    pairs = f"{experiment.kind} pairs" if experiment.pairs_of_clips else f"clips of {experiment.kind} pairs"
    return f"{pairs.capitalize()}{intervention}: {experiment.what}", [
        units + ("" if experiment.finished else "; not finished"),
        model_and_data(results.config),
        *filter(None, [options_note(experiment)]),
        *([ESTIMATES] if experiment.is_estimate else []),
        *(no_interval(experiment) or filter(None, [speakers_note(experiment.pairs)])),
        *congruence_note(experiment),
        *single_values(results, experiment),
    ]


def model_and_data(config: dict[str, Any]) -> str:
    """The names of a run's model and data, and which clips and pairs of these count."""
    return "; ".join([names_of(config), *selection(config["experiments"].values())])


def names_of(config: dict[str, Any]) -> str:
    """The names of a run's model and data, for what is of other clips than those of the selected pairs."""
    return f"model {escape(config['model']['name'])}, data {escape(config['data']['name'])}"


def selection(experiments: Iterable[Mapping[str, Any]]) -> list[str]:
    """The conditions on clips and pairs that experiments with these settings ran with, in words; none for all."""
    conditions = list(dict.fromkeys(one for settings in experiments for one in settings["where"]))
    found = [f"only {', '.join(map(escape, conditions))}"] if conditions else []
    answered = any(settings["only"] == "answered" for settings in experiments)
    return [*found, *(["only pairs whose clips the unpatched model answers with their own labels"] if answered else [])]


def count_of_pairs(metrics: pd.DataFrame) -> str:
    """The number of pairs behind a curve: "n = 12", or "n = 10 to 12 by layer,"."""
    fewest, most = int(metrics["n_pairs"].min()), int(metrics["n_pairs"].max())
    return f"n = {most}" if fewest == most else f"n = {fewest} to {most} by layer,"


def dose_note(experiment: ExperimentResults) -> list[str]:
    """The dose of an experiment's curve, where it is not 1."""
    dose = experiment.records[DOSE].max()
    return [] if dose == 1 else [value_name(DOSE, dose)]


def congruence_note(experiment: ExperimentResults) -> list[str]:
    """How many pairs of a semantic main experiment are compared with other curves, where some are not."""
    return [experiment.congruence_note] if experiment.congruence_note else []


def options_note(experiment: ExperimentResults) -> str:
    """The experiment's own options that were not swept, as "k 9, readers after"; the title names the positions."""
    options = experiment.settings["options"].items()
    shown = [value_name(name, value) for name, value in options if name not in ("at", *experiment.swept)]
    return f"options: {escape(', '.join(shown))}" if shown else ""


def layers_of_band(options: Mapping[str, Any]) -> str:
    """The layers at which an experiment with the options `k` and `band` acts, as "9 layers from layer l on"."""
    where = {"from": "from layer l on", "to": "up to layer l", "around": "around layer l"}[options["band"]]
    return "layer l" if options["k"] == 1 else f"{options['k']} layers {where}"


def band_notes(options: Mapping[str, Any], n_layers: int) -> list[str]:
    """Sentences on a window that is cut at the ends of the model, or that is wide."""
    return [*filter(None, [cut_band(options, n_layers), wide_band(options, n_layers)])]


def cut_band(options: Mapping[str, Any], n_layers: int) -> str:
    """Where the window of `layers_of_band` has fewer layers, in a sentence; "" with a window of one layer."""
    k, band = options["k"], options["band"]
    if k == 1:
        return ""
    cuts = []
    if band != "from":
        before = k - 1 if band == "to" else k // 2
        cuts.append(f"up to l = {min(before, n_layers) - 1} at the first layer")
    if band != "to":
        after = k if band == "from" else k - k // 2
        cuts.append(f"from l = {max(n_layers - after + 1, 0)} on at the last layer")
    return f"The window of {k} layers is cut {' and '.join(cuts)} of the model."


def wide_band(options: Mapping[str, Any], n_layers: int) -> str:
    """A warning where the window of `layers_of_band` is half of the model's layers or more; else ""."""
    if 2 * options["k"] < n_layers:
        return ""
    return (
        f"Warning: the window of {options['k']} layers is half of the model's {n_layers} layers or more; --k chooses a "
        "narrower one."
    )


def no_interval(experiment: ExperimentResults) -> list[str]:
    """The reason why an experiment has no intervals, where it has none."""
    if experiment.metrics["flip_to_target_rate_low"].notna().any():
        return []
    pairs = experiment.measured_pairs
    n_texts = len({*pairs["text_id_a"], *pairs["text_id_b"]})
    texts = f"{n_texts} text{'s' if n_texts > 1 else ''}"
    return [f"no 95 % interval: whole texts are resampled for it, and these pairs have {texts}"]
