"""Curves by layer, by relative depth and by dose, each a declaration over a tidy table.

    flip_rate_curve(metrics, title, subtitle)
    metric_curve(metrics, "entropy_mean", title, subtitle)

Legends and axes have the names of the metrics' columns. Columns `…_low` and `…_high` of a table are drawn as bands.
Every figure of flip rates has two reference lines: how often B and A, unpatched, give the target.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
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
    SOLID,
    figure,
    is_rate,
    layer_axis,
    share,
)

TO_TARGET, TO_TARGET_ELIGIBLE, FROM_BASE = "flip_to_target_rate", "flip_to_target_rate_eligible", "flip_from_base_rate"
B_RATE, A_RATE = "B's own rate (B unpatched)", "A's own rate (A unpatched)"
REFERENCES = {B_RATE: "donor_is_target_rate", A_RATE: "base_is_target_rate"}
REFERENCE_DASHES = {B_RATE: [8, 3], A_RATE: [2, 2]}
REFERENCE_STYLES = {B_RATE: (GREY, REFERENCE_DASHES[B_RATE]), A_RATE: (LIGHT_GREY, REFERENCE_DASHES[A_RATE])}
FLIP_STYLES = {TO_TARGET: (BLUE, SOLID), TO_TARGET_ELIGIBLE: (BLUE, [4, 3]), FROM_BASE: (ORANGE, SOLID)}
KIND_COLOURS = {"prosody": GREEN, "semantic": PINK}
COLOURS = (BLUE, *PALETTE)
NO_UPPER_BOUND = (
    "B's own rate is not an upper bound. A patched A seldom holds exactly B's clip: where the spans' lengths differ, "
    "B's end is cut off, A's own end remains, or B is interpolated. So a patched A can answer the target where B does "
    "not."
)
Styles = Mapping[str, tuple[str, Sequence[int]]]  # series -> colour, dash
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
    return (
        f"0: A unpatched, 1: B unpatched; mean over {n} eligible pairs. {eligible - n} eligible pairs are left out, "
        "because A's and B's logit differences are less than 1 apart"
    )


DELTA_LOGIT, RECOVERY = "delta_logit_target_mean", "normalised_recovery_mean"
METRIC_CURVES = {
    DELTA_LOGIT: MetricCurve(
        "delta_logit_curve",
        "delta_logit_target: patched − unpatched",
        "delta_logit_target by patched layer",
        quartiles=True,
        note=lambda metrics: "line: delta_logit_target_mean; light band: middle half of the pairs",
    ),
    RECOVERY: MetricCurve(
        "recovery_curve", RECOVERY, "Normalised recovery by patched layer", "recovery_n", note=_recovery_note
    ),
}


def metric_declaration(column: str) -> MetricCurve:
    """How the column `NAME_mean` of any metric is drawn."""
    name = column.removesuffix("_mean")
    return METRIC_CURVES.get(column) or MetricCurve(f"{name}_curve", column, f"{name} by patched layer")


def metric_curve(metrics: pd.DataFrame, column: str, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """The mean of any metric at each layer, with its 95 % limits where the metrics have them."""
    declared = metric_declaration(column)
    tidy = series(metrics, column, column, declared.count).dropna(subset="value")
    y = number(declared.axis)
    below = [zero_line(y)]
    if declared.quartiles:
        low, high = (f"{column.removesuffix('_mean')}_{side}" for side in ("q25", "q75"))
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
    return figure(chart, title, subtitle, "Changed answers by layer")


def flip_rate_curve(metrics: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """The rates of flips to the target and from the base prediction at each layer, with both reference lines."""
    counts = {TO_TARGET_ELIGIBLE: "eligible_count"}
    curves = [series(metrics, column, column, counts.get(column, "n_pairs")) for column in FLIP_STYLES]
    tidy = pd.concat([*curves, references(metrics)]).dropna(subset="value")
    chart = layer_curves(tidy, FLIP_STYLES | REFERENCE_STYLES, rate("share of pairs"), [TO_TARGET, FROM_BASE], 2)
    return figure(chart, title, [*subtitle, *no_upper_bound(metrics)], "Flip rates by patched layer")


def control_curves(tidy: pd.DataFrame, main: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """The main curve and its controls with the reference lines of the `main` metrics.

    `tidy` holds the columns of `series`, the main curve first. The same set of controls always has the same colours.
    """
    first, *controls = tidy["series"].unique()
    styles = {first: (BLUE, SOLID)}
    for number_of, name in enumerate(sorted(controls)):
        styles[name] = (PALETTE[number_of % len(PALETTE)], DASHES[number_of % len(DASHES)])
    chart = layer_curves(
        pd.concat([tidy, references(main)]), styles | REFERENCE_STYLES, rate("share of pairs"), [first]
    )
    return figure(chart, title, [*subtitle, *no_upper_bound(main)], "The main experiment and its controls")


def kind_curves(metrics: dict[str, pd.DataFrame], title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """Prosody against semantic pairs, kind → metrics, each with its own reference lines."""
    tables, styles, marked = [], {}, []
    for kind, table in metrics.items():
        colour, name = KIND_COLOURS[kind], f"{kind} pairs: {TO_TARGET} (n = {table['n_pairs'].max()})"
        tables += [series(table, TO_TARGET, name, "n_pairs"), references(table, f"{kind} pairs: ")]
        marked.append(name)
        styles[name] = (colour, SOLID)
        styles |= {f"{kind} pairs: {line}": (colour, dash) for line, dash in REFERENCE_DASHES.items()}
    notes = list(dict.fromkeys(note for table in metrics.values() for note in no_upper_bound(table)))
    chart = layer_curves(pd.concat(tables), styles, rate("share of pairs"), marked)
    return figure(chart, title, [*subtitle, *notes])


def swept_curves(
    metrics: pd.DataFrame, swept: Sequence[str], column: str, title: str, subtitle: Sequence[str]
) -> alt.LayerChart:
    """A rate or a mean at each layer, a line for each of a few combinations of the swept values."""
    names = combinations(metrics, swept)
    tidy, values = series(metrics, column, names, "n_pairs"), list(dict.fromkeys(names))
    styles: dict[str, Any] = {name: (colour, SOLID) for name, colour in zip(values, COLOURS, strict=False)}
    if not is_rate(column):
        y, caption = number(column), metric_declaration(column).caption
        chart = layer_curves(tidy, styles, y, values, 3, bands=False, form=".3f", below=[zero_line(y)])
        return figure(chart, title, subtitle, caption)
    if column != TO_TARGET:  # A's own rate is no part of it
        chart = layer_curves(tidy.dropna(subset="value"), styles, rate(column), values, 2, bands=False)
        caption = "Changed answers by layer" if column == FROM_BASE else "Flip rates by patched layer"
        return figure(chart, title, subtitle, caption)
    tidy = pd.concat([tidy, references(metrics[names == values[0]])])  # unpatched answers depend on no swept option
    chart = layer_curves(tidy, styles | REFERENCE_STYLES, rate(column), values, 2, bands=False)
    return figure(chart, title, [*subtitle, *no_upper_bound(metrics)], "Flip rates by patched layer")


def dose_response(metrics: pd.DataFrame, column: str, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """The rate `column` against alpha, a line a layer; `metrics` hold one row a layer and alpha."""
    layers = [int(layer) for layer in sorted(metrics["layer"].unique())]
    y, dashes = rate(column), list(REFERENCE_DASHES.values())
    x = alt.X("patch_alpha:Q", title="alpha").scale(domain=[0, max(1, metrics["patch_alpha"].max())])
    lines = alt.Chart(metrics).mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=30))
    lines = lines.encode(
        x=x,
        y=y(f"{column}:Q"),
        color=alt.Color("layer:O", title="patched layer", sort=layers).scale(scheme="viridis"),
        tooltip=["layer", "patch_alpha", alt.Tooltip(f"{column}:Q", format=".1%"), "n_pairs"],
    )
    if column != TO_TARGET:  # A's own rate is no part of it
        return figure(alt.layer(lines), title, subtitle, "Dose response: flip rate by alpha")
    dash = alt.StrokeDash("series:N", title=None).scale(domain=list(REFERENCES), range=dashes)
    rules = alt.Chart(references(metrics[:1])).mark_rule(strokeWidth=2, color=GREY)
    chart = alt.layer(lines, rules.encode(y=y("value:Q"), strokeDash=dash))
    return figure(chart, title, [*subtitle, *no_upper_bound(metrics)], "Dose response: flip rate by alpha")


def depth_curves(tidy: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """Several runs on relative depth. `tidy` holds depth in [0, 1], run, and the columns of `series`.

    The series are the flip rate and the two reference lines of each run.
    """
    dashes = {TO_TARGET: SOLID} | REFERENCE_DASHES
    base = alt.Chart(tidy).encode(
        x=alt.X("depth:Q", title="relative depth of the patched layer (0: first, 1: last)").scale(domain=[0, 1]),
        y=share("value:Q", "share of pairs"),
        color=alt.Color("run:N", title="run", sort=None).scale(range=list(COLOURS)),
        tooltip=["run", "series", "layer", alt.Tooltip("value:Q", format=".1%"), "n"],
    )
    dash = alt.StrokeDash("series:N", title=None).scale(domain=list(dashes), range=list(dashes.values()))
    points = base.transform_filter(alt.datum.series == TO_TARGET).mark_point(filled=True, size=30, opacity=1)
    chart = alt.layer(base.mark_line(strokeWidth=2).encode(strokeDash=dash), points)
    return figure(chart, title, [*subtitle, NO_UPPER_BOUND], legend_columns=1)


def series(metrics: pd.DataFrame, column: str, name: str | pd.Series, n: str = "") -> pd.DataFrame:
    """One column of a table by layer as a tidy table: layer, value, low, high, series; n and site where they are known.

    `n` names the column of counts.
    """
    bounds = {side: metrics.get(f"{column}_{side}") for side in ("low", "high")}
    known = {"n": metrics[n]} if n else {}
    known |= {"site": metrics["site"]} if "site" in metrics else {}
    return pd.DataFrame({"layer": metrics["layer"], "value": metrics[column], **bounds, **known}).assign(series=name)


def references(metrics: pd.DataFrame, prefix: str = "") -> pd.DataFrame:
    """How often B and A, unpatched, give the target, as a tidy table of the two series."""
    return pd.concat([series(metrics, column, f"{prefix}{name}", "n_pairs") for name, column in REFERENCES.items()])


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
) -> alt.LayerChart:
    """The series of `tidy` as lines by layer; the `marked` ones have points, and bands where they have limits.

    `below` is drawn first. All are layers of one chart, since Altair copies charts within charts many times.
    """
    x = layer_axis(tidy)
    x = x.title(x_title) if x_title else x
    colour, dash = (
        channel("series:N", legend=_legend(styles, legend_columns)).scale(domain=list(styles), range=list(values))
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
    return alt.layer(*below, *layers, hover)


def rate(title: str) -> Axis:
    """A y axis of shares between 0 and 1."""
    return lambda field: share(field, title)


def number(title: str, form: str | None = None) -> Axis:
    """A y axis of any numbers."""
    return lambda field: alt.Y(field, title=title, **({"axis": alt.Axis(format=form)} if form else {}))


def zero_line(y: Axis) -> alt.Chart:
    """A horizontal line at 0."""
    return alt.Chart(pd.DataFrame({"zero": [0]})).mark_rule(color=LIGHT_GREY).encode(y=y("zero:Q"))


def _legend(styles: Styles, columns: int) -> alt.Legend | None:
    return alt.Legend(title=None, orient="bottom", columns=columns, labelLimit=400) if len(styles) > 1 else None


def has_interval(tidy: pd.DataFrame) -> bool:
    """Whether any value of a table of `series` has limits."""
    return "low" in tidy and tidy["low"].notna().any()
