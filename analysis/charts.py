"""Which figures an experiment gets, and the tidy tables behind them.

    charts_of(results, "prosody")               # {"flip_rate_curve_prosody": alt.Chart, …}

The declarations are in `analysis.curves` and `analysis.maps`.
"""

import inspect
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from analysis import curves, lens, maps, timeline, words_and_voice
from analysis.cells import DOSE, at_highest_dose, combinations, is_one_curve, value_name
from analysis.metrics import main_rate
from analysis.results import KINDS, Measured, Results
from analysis.sites import site_name
from analysis.tables import unpatched
from pairs.shown import shown

MATRICES = 4
HEAT_MAP_ROWS = 150
MOST_LINES = 6  # of a sweep; more values are a heat map
Charts = dict[str, alt.TopLevelMixin]


def charts_of(results: Results, name: str) -> Charts:
    """File stem → figure, for one experiment of a run and what it makes together with those that are there already."""
    return results.once(_charts_of, name)


def _charts_of(results: Results, name: str) -> Charts:
    experiment, config = results.experiment(name), results.config
    metrics, swept, kind = experiment.metrics, experiment.swept, experiment.kind
    title, subtitle = _heading(config, experiment)
    if lens.is_lens(experiment.settings):
        return lens.charts(results, experiment, title, [_of_what(config)])
    draw = _of_sweep if swept else _of_one_combination
    charts = draw(metrics, swept, main_rate(experiment.settings["intervention"]), name, title, subtitle)
    if timeline.is_map(experiment.settings):
        charts |= timeline.charts(results, experiment, title, subtitle)
    if experiment.is_main and is_one_curve(swept):
        charts |= _of_main(config, experiment, title, subtitle)
    controls = _with_controls(results, kind)
    if controls is not None:
        main = results.main(kind)
        what = f"{kind.capitalize()} pairs: the main experiment and its controls"
        notes = [_of_what(config), *_dose_note(main)]
        charts[f"controls_{kind}"] = curves.control_curves(controls, main.curve, what, notes)
    both = {kind: results.main(kind) for kind in KINDS}
    if experiment.is_main and all(both.values()):
        doses = {main.curve[DOSE].iloc[0] for main in both.values()}
        alphas = [f"{kind} pairs at {value_name(DOSE, main.curve[DOSE].iloc[0])}" for kind, main in both.items()]
        tables = {kind: main.curve for kind, main in both.items()}
        answer = [*words_and_voice.headline(results), _of_what(config)]
        notes = [*answer, *([", ".join(alphas)] if doses != {1} else [])]
        charts["prosody_and_semantic"] = curves.kind_curves(tables, "Prosody and semantic pairs", notes)
        charts |= words_and_voice.charts(results, [_of_what(config)])
    return charts


def description(experiment: dict[str, Any]) -> str:
    """What an experiment does, in the first paragraph of its docstring; its name where the run keeps none."""
    words = inspect.cleandoc(experiment.get("doc") or "").split("\n\n")[0].split()
    return " ".join(map(shown, words)) or f'intervention "{shown(experiment["intervention"])}"'


def _of_one_combination(
    metrics: pd.DataFrame, _: list[str], __: str, name: str, title: str, subtitle: list[str]
) -> Charts:
    return {
        f"flip_rate_curve_{name}": curves.flip_rate_curve(metrics, title, subtitle),
        f"delta_logit_curve_{name}": curves.delta_logit_curve(metrics, title, subtitle),
    }


def _of_sweep(metrics: pd.DataFrame, swept: list[str], rate: str, name: str, title: str, subtitle: list[str]) -> Charts:
    logit = "delta_logit_target_mean"
    if combinations(metrics, swept).nunique() <= MOST_LINES:
        flips = curves.swept_flip_curves(metrics, swept, rate, title, subtitle)
        logits = curves.swept_logit_curves(metrics, swept, title, subtitle)
    else:
        own = (f"{line} {metrics[column].mean():.0%}" for line, (column, _) in curves.REFERENCES.items())
        notes = [*subtitle, "; ".join(own), *curves.no_upper_bound(metrics)]
        flips = maps.swept_heat_map(metrics, swept, rate, title, notes)
        logits = maps.swept_heat_map(metrics, swept, logit, title, subtitle)
    charts = {f"flip_rate_curve_{name}": flips, f"delta_logit_curve_{name}": logits}
    if swept == [DOSE]:
        site = f"written: {site_name(metrics)}"
        charts[f"dose_response_{name}"] = curves.dose_response(metrics, rate, title, [*subtitle, site])
    return charts


def _of_main(config: dict[str, Any], experiment: Measured, title: str, subtitle: list[str]) -> Charts:
    name, metrics, pairs = experiment.name, experiment.curve, experiment.pairs
    records = at_highest_dose(experiment.records)
    states, n_pairs = _thinned(_states(records)), records["pair_id"].nunique()
    thinned = [f"{HEAT_MAP_ROWS} of {n_pairs} pairs, evenly spaced in their order"] if n_pairs > HEAT_MAP_ROWS else []
    charts = {f"pair_heat_map_{name}": maps.pair_heat_map(states, title, [*subtitle, *thinned])}
    if metrics["recovery_n"].max() > 0:
        charts[f"recovery_curve_{name}"] = curves.recovery_curve(metrics, title, subtitle)
    label = f"{experiment.kind}_label_a"
    matrices = _matrices(records.merge(pairs[["pair_id", label]].rename(columns={label: "label_a"})))
    charts[f"label_matrix_{name}"] = maps.label_matrices(matrices, title, [*subtitle, f"written: {site_name(metrics)}"])
    answers, n_clips = _confusion(unpatched(records, pairs))
    charts[f"unpatched_confusion_{name}"] = maps.confusion(
        answers, f"Unpatched answers of the {n_clips} clips of the {name} pairs", [_of_what(config)]
    )
    return charts


def _states(records: pd.DataFrame) -> pd.DataFrame:
    state = pd.Series(maps.FROM_BASE, index=records.index)
    state[~records["flip_from_base"]] = maps.NO_FLIP
    state[records["flip_to_target"]] = maps.TO_TARGET
    state[~records["eligible"]] = maps.NOT_ELIGIBLE
    flips = records["eligible"] & records["flip_to_target"]
    last = records["layer"].where(flips, -1).groupby(records["pair_id"]).max()
    last[records.groupby("pair_id")["eligible"].first().eq(False)] = -2  # at the foot
    order = {pair: row for row, pair in enumerate(last.sort_values(ascending=False, kind="stable").index)}
    pair = records["clip_a"].map(shown) + " ← " + records["clip_b"].map(shown)  # an SVG holds no control characters
    columns = {"row": records["pair_id"].map(order), "state": state, "pair": pair}
    return records[["layer", *(["site"] if "site" in records else [])]].assign(**columns)


def _thinned(states: pd.DataFrame) -> pd.DataFrame:
    """At most `HEAT_MAP_ROWS` pairs, evenly spaced in their order, so that a row can still be seen."""
    rows = states["row"].unique()
    if len(rows) <= HEAT_MAP_ROWS:
        return states
    kept = np.linspace(0, rows.max(), HEAT_MAP_ROWS).round().astype(int)
    return states[states["row"].isin(kept)]


def _matrices(records: pd.DataFrame) -> pd.DataFrame:
    layers = sorted(records["layer"].unique())
    chosen = sorted({layers[round(i * (len(layers) - 1) / (MATRICES - 1))] for i in range(MATRICES)})
    groups = records[records["layer"].isin(chosen)].groupby(["layer", "label_a", "target"])["flip_to_target"]
    return groups.agg(rate="mean", n="size").reset_index()


def _confusion(clips: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    tables = []
    for factor, words in (("semantic_label", "semantic label"), ("prosody_label", "prosody label")):
        n = clips.groupby([factor, "answer"]).size().rename("n").reset_index().rename(columns={factor: "label"})
        share = n["n"] / n.groupby("label")["n"].transform("sum")
        tables.append(n.assign(share=share, factor=words))
    return pd.concat(tables), len(clips)


def _with_controls(results: Results, kind: str) -> pd.DataFrame | None:
    """The curves of the main experiment and the controls that ran alike, as layer, rate, series, n, site, intervention.

    None where there is no such control.
    """
    order, (alike, _) = list(curves.CONTROL_STYLES), results.controls(kind)
    if not alike:
        return None
    main, tables = results.main(kind), []
    places = {name: number for number, name in enumerate(order)}
    alike = sorted(alike, key=lambda one: places.get(one.settings["intervention"], len(order)))
    for one in (main, *alike):
        intervention = one.settings["intervention"]
        rate = main_rate(intervention)
        words = f"{intervention}: {rate} ({_n(one.curve)})"
        tables.append(curves.series(one.curve, rate, words, "n_pairs").assign(intervention=intervention))
    return pd.concat(tables)


def _n(metrics: pd.DataFrame) -> str:
    """How many pairs a curve is of: "n = 12", or "n = 10 to 12 by layer"."""
    least, most = int(metrics["n_pairs"].min()), int(metrics["n_pairs"].max())
    return f"n = {most}" if least == most else f"n = {least} to {most} by layer,"


def _heading(config: dict[str, Any], experiment: Measured) -> tuple[str, list[str]]:
    settings, metrics = experiment.settings, experiment.metrics
    eligible, n_listed = int(metrics["eligible_count"].max()), len(experiment.pairs)
    n_lost, n_open = len(experiment.lost), n_listed - experiment.n_measured - len(experiment.lost)
    missing = [f"{n_lost} gave no record"] * (n_lost > 0) + [f"{n_open} are not in yet"] * (n_open > 0)
    of = f" of {n_listed} ({', '.join(missing)})" if missing else ""
    unfinished = "" if experiment.finished else "; not finished"
    dose = "".join(f", {note}" for note in _dose_note(experiment) if metrics[DOSE].nunique() == 1)
    intervention = f", {settings['intervention']}" if settings.get("doc") else ""
    can = f"{eligible} of them eligible (A unpatched does not give the target)"
    return f"{experiment.kind.capitalize()} pairs{intervention}: {description(settings)}", [
        f"{_n(metrics)} pair{'s' if metrics['n_pairs'].max() > 1 else ''}{of}, {can}{dose}{unfinished}",
        _of_what(config),
        *no_interval(experiment),
    ]


def _dose_note(experiment: Measured) -> list[str]:
    """The dose of its curve, where it is not 1."""
    dose = experiment.records[DOSE].max()
    return [] if dose == 1 else [value_name(DOSE, dose)]


def no_interval(experiment: Measured) -> list[str]:
    """Why no interval is given, where none is."""
    if experiment.metrics["flip_to_target_rate_low"].notna().any():
        return []
    pairs = experiment.measured_pairs
    n_texts = len({*pairs["text_id_a"], *pairs["text_id_b"]})
    of = f"{n_texts} text{'s' if n_texts > 1 else ''}"
    return [f"no 95 % interval: whole texts are resampled for it, and the pairs are of {of}"]


def _of_what(config: dict[str, Any]) -> str:
    return f"model {shown(config['model']['name'])}, data {shown(config['data']['name'])}"
