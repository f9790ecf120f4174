"""Curves by layer, by relative depth and by dose, each a declaration over a tidy table.

    flip_rate_curve(metrics, title, subtitle)
    metric_curve(metrics, "entropy_mean", title, subtitle)

Lines are named at their ends, in the words of `figures.wording`. Columns `…_low` and `…_high` of a table are drawn as
bands. Rates over all pairs have two reference lines: how often B and A, unpatched, give the target.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from voicepatch.analysis.cells import combinations
from voicepatch.figures.figure_style import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    LIGHT_GREY,
    ORANGE,
    PALETTE,
    PINK,
    SKY,
    SOLID,
    figure,
    is_rate,
    layer_axis,
    share,
)
from voicepatch.figures.line_labels import MOST_LABELS, line_labels
from voicepatch.figures.wording import (
    DELTA_LOGIT,
    FROM_BASE,
    RECOVERY,
    TARGET,
    TO_TARGET,
    TO_TARGET_ELIGIBLE,
    axis_title,
    words,
)

B_RATE, A_RATE = "B's own rate", "A's own rate"
OWN_RATES = f"{B_RATE} and {A_RATE} are how often B and A, unpatched, give the target"
REFERENCES = {B_RATE: "donor_is_target_rate", A_RATE: "base_is_target_rate"}
# A and B are one clip under two questions.
OF_QUESTIONS = {"other question, unpatched": REFERENCES[B_RATE], "own question, unpatched": REFERENCES[A_RATE]}
REFERENCE_DASHES = {B_RATE: [8, 3], A_RATE: [2, 2]}
REFERENCE_STYLES = {B_RATE: (GREY, REFERENCE_DASHES[B_RATE]), A_RATE: (LIGHT_GREY, REFERENCE_DASHES[A_RATE])}
FLIP_STYLES = {TO_TARGET_ELIGIBLE: (BLUE, SOLID), TO_TARGET: (SKY, [4, 3]), FROM_BASE: (ORANGE, [6, 2, 2, 2])}
KIND_STYLES = {"prosody": (GREEN, SOLID), "semantic": (PINK, [8, 3])}  # both are seen where they coincide
KIND_COLOURS = {kind: colour for kind, (colour, _) in KIND_STYLES.items()}
KIND_LINES = {"prosody": "prosody pairs (B's\u00a0voice)", "semantic": "semantic pairs (B's\u00a0words)"}
COLOURS = (BLUE, *PALETTE)
NO_UPPER_BOUND = (
    "B's own rate is not an upper bound. A patched A seldom holds exactly B's clip: where the spans' lengths differ, "
    "B's end is cut off, A's own end remains, or B is interpolated. So a patched A can answer the target where B does "
    "not."
)
Style = tuple[str, Sequence[int]]  # colour, dash
Styles = Mapping[str, Style]  # by series
Axis = Callable[[str], alt.Y]  # the y axis for a field


@dataclass(frozen=True)
class MetricCurve:
    """How the mean of a metric is drawn by layer.

    `stem` begins the file's name, `axis` is the title of the y axis, `caption` names the figure in the report, `count`
    is the column that counts the values behind a mean, and `note` is a line below the title. `quartiles` adds a band
    between the columns `…_q25` and `…_q75`.
    """

    stem: str
    axis: str
    caption: str
    count: str = "n_pairs"
    quartiles: bool = False
    note: Callable[[pd.DataFrame], str] = lambda metrics: ""


def _recovery_note(metrics: pd.DataFrame) -> str:
    n, eligible = int(metrics["recovery_n"].max()), int(metrics["eligible_count"].max())
    note = f"0: A unpatched, 1: B unpatched; mean over {n} eligible pairs"
    if n == eligible:
        return note
    return (
        f"{note}. Of the {eligible} eligible pairs the others are left out, because A's and B's logit differences are "
        "less than 1 apart"
    )


METRIC_CURVES = {
    DELTA_LOGIT: MetricCurve(
        "delta_logit_curve",
        axis_title(DELTA_LOGIT),
        "Change of the target's logit by patched layer",
        quartiles=True,
        note=lambda metrics: "line: mean of patched − unpatched; light band: middle half of the pairs",
    ),
    RECOVERY: MetricCurve(
        "recovery_curve",
        axis_title(RECOVERY),
        "Normalised recovery by patched layer",
        "recovery_n",
        note=_recovery_note,
    ),
}


def metric_declaration(column: str, target: str = TARGET) -> MetricCurve:
    """How the column `NAME_mean` of any metric is drawn."""
    if column in METRIC_CURVES:
        return replace(METRIC_CURVES[column], axis=axis_title(column, target))
    name = column.removesuffix("_mean")
    caption = f"{name.replace('_', ' ').capitalize()} by patched layer"
    return MetricCurve(f"{name}_curve", axis_title(column), caption)


def metric_curve(
    metrics: pd.DataFrame, column: str, title: str, subtitle: Sequence[str], target: str = TARGET
) -> alt.LayerChart:
    """The mean of any metric at each layer, with its 95 % limits where the metrics have them."""
    declared = metric_declaration(column, target)
    tidy = series(metrics, column, column, declared.count).dropna(subset="value")
    low, high = (f"{column.removesuffix('_mean')}_{side}" for side in ("q25", "q75"))
    y, _ = y_axis(pd.concat([tidy[["value", "low", "high"]], metrics.get([low, high])], axis=1), number(declared.axis))
    below = [zero_line(y)]
    if declared.quartiles:
        half = alt.Chart(metrics).mark_area(opacity=0.12, color=BLUE)
        below.insert(0, half.encode(x=layer_axis(metrics), y=y(f"{low}:Q"), y2=high))
    chart = layer_curves(tidy, {column: (BLUE, SOLID)}, y, [column], form=".3f", below=below)
    interval = "; band at the line: 95 % interval" if has_interval(tidy) else ""
    note = f"{declared.note(metrics)}{interval}".removeprefix("; ")
    return figure(chart, title, [*subtitle, *filter(None, [note])], declared.caption)


def changed_answers_curve(
    metrics: pd.DataFrame, title: str, subtitle: Sequence[str], unit: str = "pairs"
) -> alt.LayerChart:
    """How many answers change at each layer, for an experiment that is not judged by flips to a target."""
    tidy, styles = series(metrics, FROM_BASE, FROM_BASE, "n_pairs"), {FROM_BASE: FLIP_STYLES[FROM_BASE]}
    chart = layer_curves(tidy, styles, rate(f"share of {unit} whose answer changes"), [FROM_BASE])
    return figure(chart, title, [*subtitle, *band_note(tidy)], "Changed answers by layer")


def flip_rate_curve(
    metrics: pd.DataFrame, title: str, subtitle: Sequence[str], target: str = TARGET, unit: str = "pairs"
) -> alt.LayerChart:
    """The rates of flips to the target and from the base prediction at each layer, with both reference lines.

    `unit` "clips" is for an experiment whose A and B are one clip under two questions.
    """
    counts, of_pairs = {TO_TARGET_ELIGIBLE: "eligible_count"}, unit == "pairs"
    names = {column: words(column, target, unit) for column in FLIP_STYLES}
    curves = [series(metrics, column, name, counts.get(column, "n_pairs")) for column, name in names.items()]
    unpatched = REFERENCES if of_pairs else OF_QUESTIONS
    tidy = pd.concat([*curves, references(metrics, unpatched)]).dropna(subset="value")
    styles = {names[column]: style for column, style in FLIP_STYLES.items()}
    styles |= dict(zip(unpatched, REFERENCE_STYLES.values(), strict=True))
    chart = layer_curves(tidy, styles, rate(f"share of {unit}"), [names[TO_TARGET_ELIGIBLE]], 2)
    about = [OWN_RATES, *no_upper_bound(metrics)] if of_pairs else [f"unpatched: the answers that are {target}"]
    notes = [*subtitle, *band_note(tidy), *about, *same_lines(tidy)]
    return figure(chart, title, notes, "Flip rates by patched layer")


def kind_curves(metrics: dict[str, pd.DataFrame], title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """Prosody against semantic pairs, kind → metrics: the eligible pairs that answer with B's label."""
    names = {kind: KIND_LINES[kind] for kind in metrics}
    tables = [series(table, TO_TARGET_ELIGIBLE, names[kind], "eligible_count") for kind, table in metrics.items()]
    styles = {name: KIND_STYLES[kind] for kind, name in names.items()}
    y = rate(axis_title(TO_TARGET_ELIGIBLE, "B's label"))
    tidy = pd.concat(tables).dropna(subset="value")
    chart = layer_curves(tidy, styles, y, list(styles))
    counts = " and ".join(f"{table['eligible_count'].max()} {kind}" for kind, table in metrics.items())
    notes = [f"n = {counts} pairs that are eligible (A unpatched does not give B's label)", *band_note(tidy)]
    notes += same_lines(tidy)
    return figure(chart, title, [*subtitle, *notes], "Flip rates in both kinds of pairs")


def swept_curves(
    metrics: pd.DataFrame,
    swept: Sequence[str],
    column: str,
    title: str,
    subtitle: Sequence[str],
    target: str = TARGET,
) -> alt.LayerChart:
    """A rate or a mean at each layer, a line for each of a few combinations of the swept values."""
    names = combinations(metrics, swept)
    tidy, values = series(metrics, column, names, "n_pairs"), list(dict.fromkeys(names))
    styles: dict[str, Any] = dict(zip(values, zip(cycle(COLOURS), cycle((SOLID, *DASHES)), strict=False), strict=False))
    y_title, notes = axis_title(column, target), [*subtitle, *same_lines(tidy)]
    if not is_rate(column):
        y, caption = number(y_title), metric_declaration(column).caption
        chart = layer_curves(tidy, styles, y, values, 3, bands=False, form=".3f", below=[zero_line(y)])
        return figure(chart, title, notes, caption)
    if column != TO_TARGET:  # A's own rate is no part of it
        chart = layer_curves(tidy.dropna(subset="value"), styles, rate(y_title), values, 2, bands=False)
        caption = "Changed answers by layer" if column == FROM_BASE else "Flip rates by patched layer"
        return figure(chart, title, notes, caption)
    tidy = pd.concat([tidy, references(metrics[names == values[0]])])  # unpatched answers depend on no swept option
    chart = layer_curves(tidy, styles | REFERENCE_STYLES, rate(y_title), values, 2, bands=False)
    return figure(chart, title, [*notes, OWN_RATES, *no_upper_bound(metrics)], "Flip rates by patched layer")


def dose_response(
    metrics: pd.DataFrame, column: str, title: str, subtitle: Sequence[str], target: str = TARGET
) -> alt.LayerChart:
    """The rate `column` against alpha, a line a layer; `metrics` hold one row a layer and alpha."""
    layers = [int(layer) for layer in sorted(metrics["layer"].unique())]
    y, dashes = rate(axis_title(column, target)), list(REFERENCE_DASHES.values())
    x = alt.X("patch_alpha:Q", title="dose (alpha)").scale(domain=[0, max(1, metrics["patch_alpha"].max())])
    lines = alt.Chart(metrics).mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=30))
    lines = lines.encode(
        x=x,
        y=y(f"{column}:Q"),
        color=alt.Color("layer:O", title="patched layer", sort=layers).scale(scheme="viridis"),
        tooltip=["layer", "patch_alpha", alt.Tooltip(f"{column}:Q", format=".1%"), "n_pairs"],
    )
    if column != TO_TARGET:  # A's own rate is no part of it
        return figure(alt.layer(lines), title, subtitle, "Flip rate by dose")
    dash = alt.StrokeDash("series:N", title=None).scale(domain=list(REFERENCES), range=dashes)
    rules = alt.Chart(references(metrics[:1])).mark_rule(strokeWidth=2, color=GREY)
    chart = alt.layer(lines, rules.encode(y=y("value:Q"), strokeDash=dash))
    return figure(chart, title, [*subtitle, OWN_RATES, *no_upper_bound(metrics)], "Flip rate by dose")


def depth_curves(tidy: pd.DataFrame, rate: str, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """Several curves on relative depth. `tidy` holds depth in [0, 1], run, and the columns of `series`.

    The series are the `rate` and, of flips to the target, the two reference lines of each curve.
    """
    name = words(rate, "B's label")
    tidy, dashes = tidy.replace({"series": {rate: name}}), {name: SOLID}
    if rate == TO_TARGET:
        dashes |= REFERENCE_DASHES
    base = alt.Chart(tidy).encode(
        x=alt.X("depth:Q", title="relative depth of the patched layer (0: first, 1: last)").scale(domain=[0, 1]),
        y=share("value:Q", "share of pairs"),
        color=alt.Color("run:N", title=None).scale(domain=list(tidy["run"].unique()), range=list(COLOURS)),
        tooltip=["run", "series", "layer", alt.Tooltip("value:Q", format=".1%"), "n"],
    )
    dash = alt.StrokeDash("series:N", title=None).scale(domain=list(dashes), range=list(dashes.values()))
    points = base.transform_filter(alt.datum.series == name).mark_point(filled=True, size=30, opacity=1)
    chart = alt.layer(base.mark_line(strokeWidth=2).encode(strokeDash=dash), points)
    about = [NO_UPPER_BOUND] if rate == TO_TARGET else []
    return figure(chart, title, [*subtitle, *about], legend_columns=1)


def series(metrics: pd.DataFrame, column: str, name: str | pd.Series, n: str = "") -> pd.DataFrame:
    """One column of a table by layer as a tidy table: layer, value, low, high, series; n and site where they are known.

    `n` names the column of counts.
    """
    bounds = {side: metrics.get(f"{column}_{side}") for side in ("low", "high")}
    known = {"n": metrics[n]} if n else {}
    known |= {"site": metrics["site"]} if "site" in metrics else {}
    return pd.DataFrame({"layer": metrics["layer"], "value": metrics[column], **bounds, **known}).assign(series=name)


def references(metrics: pd.DataFrame, named: Mapping[str, str] = REFERENCES) -> pd.DataFrame:
    """How often B and A, unpatched, give the target, as a tidy table of the two series."""
    return pd.concat([series(metrics, column, name, "n_pairs") for name, column in named.items()])


def no_upper_bound(metrics: pd.DataFrame) -> list[str]:
    """The note for a figure in which a flip rate is above B's own rate."""
    return [NO_UPPER_BOUND] if (metrics[TO_TARGET] > metrics["donor_is_target_rate"] + 1e-9).any() else []


def layer_curves(
    tidy: pd.DataFrame,
    styles: Styles,
    y: Axis,
    marked: Sequence[str],
    legend_columns: int = 1,
    *,
    bands: bool = True,
    form: str = ".1%",
    x_title: str = "",
    tooltip: Sequence[alt.Tooltip] = (),
    below: Sequence[alt.Chart] = (),
    named_at_ends: bool = True,
) -> alt.LayerChart:
    """The series of `tidy` as lines by layer; the `marked` ones have points, and bands where they have limits.

    A few lines have their names at their ends; many have a legend of `legend_columns`, and so have those that are not
    `named_at_ends`. `below` is drawn first. All are layers of one chart, since Altair copies charts within charts many
    times.
    """
    x = layer_axis(tidy)
    x = x.title(x_title) if x_title else x
    named_at_ends = named_at_ends and 1 < len(styles) <= MOST_LABELS
    y, domain = y_axis(tidy[[column for column in ("value", "low", "high") if column in tidy]], y)
    legend_columns = 0 if named_at_ends or len(styles) < 2 else legend_columns
    colour, dash = (
        channel("series:N", legend=_legend(legend_columns)).scale(domain=list(styles), range=list(values))
        for channel, values in zip((alt.Color, alt.StrokeDash), zip(*styles.values(), strict=True), strict=True)
    )
    layers = [alt.Chart(tidy).mark_line(strokeWidth=2).encode(x=x, y=y("value:Q"), color=colour, strokeDash=dash)]
    opacity = 0.15 if len(styles) > 1 else 0.25
    for name in marked:
        # Points and bands have fixed colours of their own, so that the legend shows the lines and their dashes.
        mine, fixed = alt.Chart(tidy[tidy["series"] == name]).encode(x=x), styles[name][0]
        if bands and has_interval(tidy):
            layers.insert(0, mine.mark_area(opacity=opacity, color=fixed).encode(y=y("low:Q"), y2="high:Q"))
        layers.append(mine.mark_point(filled=True, size=36, opacity=1, color=fixed).encode(y=y("value:Q")))
    limits = ["low", "high"] if has_interval(tidy) else []
    shown = [
        alt.Tooltip("layer:Q"),
        alt.Tooltip("series:N", title="curve"),
        alt.Tooltip("value:Q", format=form),
        *(alt.Tooltip(f"{side}:Q", format=form, title=f"95 % interval, {side}") for side in limits),
        *([alt.Tooltip("n:Q")] if "n" in tidy else []),
        *tooltip,
    ]
    hover = alt.Chart(tidy).mark_point(size=120, opacity=0).encode(x=x, y=y("value:Q"), tooltip=shown)
    names = line_labels(tidy, styles, y, domain) if named_at_ends else []
    return alt.layer(*below, *layers, *names, hover)


def y_axis(values: pd.DataFrame, y: Axis) -> tuple[Axis, list[float]]:
    """The y axis with its limits, and these; one without limits reaches from the least to the largest of `values`."""
    declared = y("value:Q").to_dict().get("scale", {}).get("domain")
    if declared:
        return y, declared
    low, high = (float(getattr(np, f"nan{end}")([0.0, *values.to_numpy(float).ravel()])) for end in ("min", "max"))
    margin = 0.05 * (high - low) or 1
    domain = [low - margin * (low < 0), high + margin * (high > 0 or low == 0)]
    return lambda field: y(field).scale(domain=domain, nice=False), domain


def rate(title: str) -> Axis:
    """A y axis of shares between 0 and 1."""
    return lambda field: share(field, title)


def number(title: str, form: str | None = None) -> Axis:
    """A y axis of any numbers."""
    return lambda field: alt.Y(field, title=title, **({"axis": alt.Axis(format=form)} if form else {}))


def zero_line(y: Axis) -> alt.Chart:
    """A horizontal line at 0."""
    return alt.Chart(pd.DataFrame({"zero": [0]})).mark_rule(color=LIGHT_GREY).encode(y=y("zero:Q"))


def _legend(columns: int) -> alt.Legend | None:
    return alt.Legend(title=None, orient="bottom", columns=columns, labelLimit=400) if columns else None


def band_note(tidy: pd.DataFrame) -> list[str]:
    """What the bands are, where there are any."""
    return ["bands: 95 % intervals"] if has_interval(tidy) else []


def same_lines(tidy: pd.DataFrame) -> list[str]:
    """The note on lines that have the same values at all layers, where there are any."""
    names: dict[tuple[Any, ...], list[str]] = {}
    for name, mine in tidy.groupby("series", sort=False):
        names.setdefault(tuple(mine.sort_values("layer")[["layer", "value"]].itertuples(index=False)), []).append(name)
    return [f"the same line: {' = '.join(same)}" for same in names.values() if len(same) > 1]


def has_interval(tidy: pd.DataFrame) -> bool:
    """Whether any value of a table of `series` has limits."""
    return "low" in tidy and tidy["low"].notna().any()
