"""Which figures an experiment gets, and the tidy tables behind them.

    charts_of(run, config, "prosody")           # {"flip_rate_curve_prosody": alt.Chart, …}

Reads the files that `analysis.summary` wrote; the declarations are in `analysis.plots`.
"""

from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from analysis import plots
from analysis.metrics import read_pairs, read_records
from analysis.tables import unpatched
from pairs.shown import shown

# What a curve counts, in words, in the order of the legend. For the last two what matters is that nothing changes.
COUNTED = {
    "patch": ("flip_to_target_rate", "gives B's label: the main experiment"),
    "suffix": ("flip_to_target_rate", "gives B's label: the positions after the span are patched"),
    "no-conflict": ("flip_to_target_rate", "gives B's label: A's words and voice agree"),
    "random": ("flip_to_target_rate", "gives the main pair's target: a random clip is the donor"),
    "non-audio": ("flip_to_target_rate", "gives B's label: prompt text is patched, not the span"),
    "same-label": ("flip_from_base_rate", "leaves its own answer: the donor has A's labels"),
    "self": ("flip_from_base_rate", "leaves its own answer: A is its own donor"),
}
MATRICES = 4
HEAT_MAP_ROWS = 150


def read_metrics(run: Path, name: str) -> pd.DataFrame:
    """`patching_metrics_NAME.csv` of a run."""
    return pd.read_csv(_metrics_file(run, name))


def _metrics_file(run: Path, name: str) -> Path:
    return run / f"patching_metrics_{name}.csv"


def charts_of(run: Path, config: dict[str, Any], name: str) -> dict[str, alt.TopLevelMixin]:
    """File stem → figure, for one experiment of a run and what it makes together with those that are there already."""
    metrics, experiment = read_metrics(run, name), config["experiments"][name]
    title, subtitle = _heading(config, name, metrics)
    full_dose = metrics[metrics["patch_alpha"] == metrics["patch_alpha"].max()]
    charts = {
        f"flip_rate_curve_{name}": plots.flip_rate_curve(full_dose, title, subtitle),
        f"delta_logit_curve_{name}": plots.delta_logit_curve(full_dose, title, subtitle),
    }
    if metrics["patch_alpha"].nunique() > 1:
        charts[f"dose_response_{name}"] = plots.dose_response(
            metrics, title.replace("layer by layer", "dose response"), subtitle
        )
    kind = experiment["kind"]
    if experiment["intervention"] == "patch":
        charts |= _of_main(run, config, name, full_dose, title, subtitle)
    controls = _with_controls(run, config, kind)
    if controls is not None:
        what = f"{kind.capitalize()} pairs: the main curve and its controls"
        charts[f"controls_{kind}"] = plots.control_curves(controls, what, [_of_what(config)])
    both = _both_kinds(run, config)
    if both is not None and experiment["intervention"] == "patch":
        charts["prosody_and_semantic"] = plots.kind_curves(both, "The voice against the words", [_of_what(config)])
    return charts


def _of_main(
    run: Path, config: dict[str, Any], name: str, metrics: pd.DataFrame, title: str, subtitle: list[str]
) -> dict[str, alt.TopLevelMixin]:
    records, pairs = read_records(run / f"patching_records_{name}.jsonl"), read_pairs(run / f"pair_list_{name}.jsonl")
    states, n_pairs = _thinned(_states(records)), records["pair_id"].nunique()
    thinned = [f"{HEAT_MAP_ROWS} of {n_pairs} pairs, evenly spaced in their order"] if n_pairs > HEAT_MAP_ROWS else []
    charts = {f"pair_heat_map_{name}": plots.pair_heat_map(states, title, [*subtitle, *thinned])}
    if metrics["recovery_n"].max() > 0:
        charts[f"recovery_curve_{name}"] = plots.recovery_curve(metrics, title, subtitle)
    label = f"{config['experiments'][name]['kind']}_label_a"
    matrices = _matrices(records.merge(pairs[["pair_id", label]].rename(columns={label: "label_a"})))
    charts[f"label_matrix_{name}"] = plots.label_matrices(
        matrices, f"{title.split(':')[0]}: from label to label", subtitle
    )
    answers, n_clips = _confusion(unpatched(records, pairs))
    charts[f"unpatched_confusion_{name}"] = plots.confusion(
        answers, f"Answers of the {n_clips} clips of the {name} pairs, unpatched", [_of_what(config)]
    )
    return charts


def _states(records: pd.DataFrame) -> pd.DataFrame:
    state = pd.Series("gives a third label", index=records.index)
    state[~records["flip_from_base"]] = "keeps A's own answer"
    state[records["flip_to_target"]] = "gives the target"
    state[~records["eligible"]] = "not eligible: gave the target unpatched"
    flips = records["eligible"] & records["flip_to_target"]
    last = records["layer"].where(flips, -1).groupby(records["pair_id"]).max()
    last[records.groupby("pair_id")["eligible"].first().eq(False)] = -2  # at the foot
    order = {pair: row for row, pair in enumerate(last.sort_values(ascending=False, kind="stable").index)}
    pair = records["clip_a"].map(shown) + " ← " + records["clip_b"].map(shown)  # an SVG holds no control characters
    return pd.DataFrame({"layer": records["layer"], "row": records["pair_id"].map(order), "state": state, "pair": pair})


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
    for factor, words in (("semantic_label", "words' label"), ("prosody_label", "voice's label")):
        n = clips.groupby([factor, "answer"]).size().rename("n").reset_index().rename(columns={factor: "label"})
        share = n["n"] / n.groupby("label")["n"].transform("sum")
        tables.append(n.assign(share=share, factor=words))
    return pd.concat(tables), len(clips)


def _with_controls(run: Path, config: dict[str, Any], kind: str) -> pd.DataFrame | None:
    """The curves of the main experiment and its finished controls, as layer, rate, series, n, intervention."""
    experiments = {
        name: experiment
        for name, experiment in config["experiments"].items()
        if experiment["kind"] == kind and experiment["finished"] and _metrics_file(run, name).exists()
    }
    order, tables = list(COUNTED), []
    for name, experiment in sorted(
        experiments.items(), key=lambda item: order.index(i) if (i := item[1]["intervention"]) in order else len(order)
    ):
        intervention = experiment["intervention"]
        if not experiment["control"] and intervention != "patch":
            continue
        column, words = COUNTED.get(intervention, ("flip_to_target_rate", f"gives the target: {intervention}"))
        metrics = read_metrics(run, name)
        words = f"{words} (n = {metrics['n_pairs'].max()})"
        tables.append(plots.series(metrics, column, words, "n_pairs").assign(intervention=intervention))
    return pd.concat(tables) if kind in experiments and len(tables) > 1 else None


def _both_kinds(run: Path, config: dict[str, Any]) -> pd.DataFrame | None:
    finished = [kind for kind in ("prosody", "semantic") if config["experiments"].get(kind, {}).get("finished")]
    kinds = [kind for kind in finished if _metrics_file(run, kind).exists()]
    if len(kinds) < 2:
        return None
    words = {"prosody": "of the voice: prosody pairs", "semantic": "of the words: semantic pairs"}
    tables = []
    for kind in kinds:
        metrics = read_metrics(run, kind)
        series = f"{words[kind]} (n = {metrics['n_pairs'].max()})"
        tables.append(plots.series(metrics, "flip_to_target_rate", series, "n_pairs").assign(kind=kind))
    return pd.concat(tables)


def _heading(config: dict[str, Any], name: str, metrics: pd.DataFrame) -> tuple[str, list[str]]:
    experiment = config["experiments"][name]
    n_pairs, eligible = int(metrics["n_pairs"].max()), int(metrics["eligible_count"].max())
    kind, intervention = experiment["kind"], experiment["intervention"]
    what = "patching the audio span" if intervention == "patch" else f"intervention “{intervention}”"
    unfinished = "" if experiment["finished"] else ", interrupted: not all pairs are in"
    alpha = metrics["patch_alpha"].max()
    dose = "" if alpha == 1 else f", alpha {alpha:g}"
    return f"{kind.capitalize()} pairs: {what}, layer by layer{dose}", [
        f"n = {n_pairs} pairs, {eligible} of them eligible (A's own answer is not the target){unfinished}",
        _of_what(config),
    ]


def _of_what(config: dict[str, Any]) -> str:
    return f"model {shown(config['model']['name'])}, data {shown(config['data']['name'])}"
