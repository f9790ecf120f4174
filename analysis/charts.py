"""Which figures an experiment gets, and the tidy tables behind them.

    charts_of(run, config, "prosody")           # {"flip_rate_curve_prosody": alt.Chart, …}

Reads the files that `analysis.summary` wrote; the declarations are in `analysis.curves` and `analysis.maps`.
"""

import inspect
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from analysis import curves, lens, maps, timeline, words_and_voice
from analysis.cells import DOSE, at_highest_dose, combinations, is_one_curve, swept_columns
from analysis.metrics import main_rate, read_pairs, read_records
from analysis.sites import site_name
from analysis.tables import unpatched
from pairs.shown import shown

MATRICES = 4
HEAT_MAP_ROWS = 150
MOST_LINES = 6  # of a sweep; more values are a heat map
Charts = dict[str, alt.TopLevelMixin]


def read_metrics(run: Path, name: str) -> pd.DataFrame:
    """`patching_metrics_NAME.csv` of a run; a swept value may read "None" or "NA", only an empty cell is none."""
    return pd.read_csv(_metrics_file(run, name), keep_default_na=False, na_values=[""])


def _metrics_file(run: Path, name: str) -> Path:
    return run / f"patching_metrics_{name}.csv"


def charts_of(run: Path, config: dict[str, Any], name: str) -> Charts:
    """File stem → figure, for one experiment of a run and what it makes together with those that are there already."""
    metrics, experiment = read_metrics(run, name), config["experiments"][name]
    title, subtitle = _heading(config, name, metrics)
    if lens.is_lens(experiment):
        return lens.charts(run, config, name, title, subtitle)
    swept = swept_columns(experiment, metrics)
    draw = _of_sweep if swept else _of_one_combination
    charts = draw(metrics, swept, main_rate(experiment["intervention"]), name, title, subtitle)
    charts |= timeline.charts(run, metrics, name, experiment, title, subtitle)
    kind = experiment["kind"]
    if experiment["intervention"] == "patch" and is_one_curve(swept):
        charts |= _of_main(run, config, name, at_highest_dose(metrics), title, subtitle)
    controls = _with_controls(run, config, kind)
    if controls is not None:
        main = at_highest_dose(read_metrics(run, kind))
        what = f"{kind.capitalize()} pairs: the main experiment and its controls"
        charts[f"controls_{kind}"] = curves.control_curves(controls, main, what, [_of_what(config)])
    both = _both_kinds(run, config)
    if both is not None and experiment["intervention"] == "patch":
        answer = [*filter(None, [words_and_voice.sentence(run, config)]), _of_what(config)]
        charts["prosody_and_semantic"] = curves.kind_curves(both, "Prosody and semantic pairs", answer)
        charts |= words_and_voice.charts(run, config, [_of_what(config)])
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


def _of_main(
    run: Path, config: dict[str, Any], name: str, metrics: pd.DataFrame, title: str, subtitle: list[str]
) -> Charts:
    records = at_highest_dose(read_records(run / f"patching_records_{name}.jsonl"))
    pairs = read_pairs(run / f"pair_list_{name}.jsonl")
    states, n_pairs = _thinned(_states(records)), records["pair_id"].nunique()
    thinned = [f"{HEAT_MAP_ROWS} of {n_pairs} pairs, evenly spaced in their order"] if n_pairs > HEAT_MAP_ROWS else []
    charts = {f"pair_heat_map_{name}": maps.pair_heat_map(states, title, [*subtitle, *thinned])}
    if metrics["recovery_n"].max() > 0:
        charts[f"recovery_curve_{name}"] = curves.recovery_curve(metrics, title, subtitle)
    label = f"{config['experiments'][name]['kind']}_label_a"
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


def _with_controls(run: Path, config: dict[str, Any], kind: str) -> pd.DataFrame | None:
    """The curves of the main experiment and its finished controls, as layer, rate, series, n, site, intervention.

    A control that swept another option than its dose is no curve and is left out.
    """
    order, tables = list(curves.CONTROL_STYLES), []
    finished = [
        (experiment["intervention"], name)
        for name, experiment in config["experiments"].items()
        if experiment["kind"] == kind
        and experiment["finished"]
        and _metrics_file(run, name).exists()
        and (experiment["control"] or name == kind)
    ]
    for intervention, name in sorted(
        finished, key=lambda item: order.index(item[0]) if item[0] in order else len(order)
    ):
        metrics = read_metrics(run, name)
        if not is_one_curve(swept_columns(config["experiments"][name], metrics)):
            continue
        rate = main_rate(intervention)
        words = f"{intervention}: {rate} (n = {metrics['n_pairs'].max()})"
        curve = curves.series(at_highest_dose(metrics), rate, words, "n_pairs")
        tables.append(curve.assign(intervention=intervention))
    is_there = tables and tables[0]["intervention"].iloc[0] == "patch"
    return pd.concat(tables) if is_there and len(tables) > 1 else None


def _both_kinds(run: Path, config: dict[str, Any]) -> dict[str, pd.DataFrame] | None:
    """Kind → metrics at the highest dose, where both main experiments are finished and each is one curve."""
    tables = {}
    for kind in ("prosody", "semantic"):
        experiment = config["experiments"].get(kind, {})
        if experiment.get("finished") and _metrics_file(run, kind).exists():
            metrics = read_metrics(run, kind)
            if is_one_curve(swept_columns(experiment, metrics)):
                tables[kind] = at_highest_dose(metrics)
    return tables if len(tables) == 2 else None


def _heading(config: dict[str, Any], name: str, metrics: pd.DataFrame) -> tuple[str, list[str]]:
    experiment = config["experiments"][name]
    n_pairs, eligible = int(metrics["n_pairs"].max()), int(metrics["eligible_count"].max())
    unfinished = "" if experiment["finished"] else "; interrupted: not all pairs are in"
    doses = metrics[DOSE].unique()
    alpha = f", alpha {doses[0]:g}" if len(doses) == 1 and doses[0] != 1 else ""
    intervention = f", {experiment['intervention']}" if experiment.get("doc") else ""
    return f"{experiment['kind'].capitalize()} pairs{intervention}: {description(experiment)}", [
        f"n = {n_pairs} pairs, {eligible} of them eligible (A unpatched does not give the target){alpha}{unfinished}",
        _of_what(config),
    ]


def _of_what(config: dict[str, Any]) -> str:
    return f"model {shown(config['model']['name'])}, data {shown(config['data']['name'])}"
