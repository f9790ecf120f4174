"""Curves by layer, by relative depth and by dose, each a declaration over a tidy table.

    flip_rate_curve(metrics, title, subtitle)

Legends and axes have the names of the metrics' columns. Columns `…_low` and `…_high` of a table are drawn as bands.
Every figure of flip rates has two reference lines: how often B and A, unpatched, give the target.
"""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from analysis.cells import combinations
from analysis.figure_style import (
    BLUE,
    GREEN,
    GREY,
    LIGHT_GREY,
    ORANGE,
    PINK,
    SKY,
    YELLOW,
    finished,
    layer_axis,
    share,
)

TO_TARGET, TO_TARGET_ELIGIBLE, FROM_BASE = "flip_to_target_rate", "flip_to_target_rate_eligible", "flip_from_base_rate"
B_RATE, A_RATE = "B's own rate (B unpatched)", "A's own rate (A unpatched)"
REFERENCES = {B_RATE: ("donor_is_target_rate", [8, 3]), A_RATE: ("base_is_target_rate", [2, 2])}  # column, dash
REFERENCE_COLOURS = {B_RATE: GREY, A_RATE: LIGHT_GREY}
FLIP_STYLES = {  # column: colour, dash
    TO_TARGET: (BLUE, [1, 0]),
    TO_TARGET_ELIGIBLE: (BLUE, [4, 3]),
    FROM_BASE: (ORANGE, [1, 0]),
}
CONTROL_STYLES = {  # intervention: colour, dash
    "patch": (BLUE, [1, 0]),
    "suffix": (SKY, [8, 3]),
    "no-conflict": ("#8C6D31", [2, 2]),
    "random": (YELLOW, [6, 2, 2, 2]),
    "non-audio": (PINK, [6, 2]),
    "same-label": (GREEN, [4, 4]),
    "self": (ORANGE, [1, 2]),
}
OTHER_CONTROL = ("#7F7F7F", [3, 1])
KIND_COLOURS = {"prosody": GREEN, "semantic": PINK}
RUN_COLOURS = [BLUE, ORANGE, GREEN, PINK, YELLOW, SKY]
NO_UPPER_BOUND = (
    "B's own rate is no upper bound: what stands in a patched A is seldom exactly B's clip (where the spans' lengths "
    "differ, B is cut off at its end, A's own tail stays, or B is interpolated), so a patched A can answer the target "
    "where B does not."
)
Styles = dict[str, tuple[str, list[int]]]


def flip_rate_curve(metrics: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """The rates of flips to the target and from the base prediction at each layer, with both reference lines."""
    counts = {TO_TARGET_ELIGIBLE: "eligible_count"}
    curves = [series(metrics, column, column, counts.get(column, "n_pairs")) for column in FLIP_STYLES]
    tidy = pd.concat([*curves, references(metrics)]).dropna(subset="rate")
    chart = _curves(tidy, FLIP_STYLES | _reference_styles(), columns=2, marked=[TO_TARGET, FROM_BASE])
    return finished(chart, title, [*subtitle, *no_upper_bound(metrics)])


def control_curves(tidy: pd.DataFrame, main: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """The main curve and its controls with the reference lines of the `main` metrics.

    `tidy` holds layer, rate, series, n, site and intervention, the main curve first.
    """
    named = tidy.drop_duplicates("series")
    styles = {
        series: CONTROL_STYLES.get(intervention, OTHER_CONTROL)
        for series, intervention in zip(named["series"], named["intervention"], strict=True)
    }
    tidy = pd.concat([tidy, references(main)])
    chart = _curves(tidy, styles | _reference_styles(), columns=1, marked=named["series"][:1])
    return finished(chart, title, [*subtitle, *no_upper_bound(main)])


def kind_curves(metrics: dict[str, pd.DataFrame], title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """Prosody against semantic pairs, kind → metrics, each with its own reference lines."""
    tables, styles, marked = [], {}, []
    for kind, table in metrics.items():
        name = f"{kind} pairs: {TO_TARGET} (n = {table['n_pairs'].max()})"
        tables += [series(table, TO_TARGET, name, "n_pairs"), references(table, f"{kind} pairs: ")]
        marked.append(name)
        styles |= {name: (KIND_COLOURS[kind], [1, 0])}
        styles |= {f"{kind} pairs: {line}": (KIND_COLOURS[kind], dash) for line, (_, dash) in REFERENCES.items()}
    notes = list(dict.fromkeys(note for table in metrics.values() for note in no_upper_bound(table)))
    return finished(_curves(pd.concat(tables), styles, columns=1, marked=marked), title, [*subtitle, *notes])


def swept_flip_curves(
    metrics: pd.DataFrame, swept: Sequence[str], column: str, title: str, subtitle: Sequence[str]
) -> alt.LayerChart:
    """The rate `column` at each layer, a line for each of a few combinations of the swept values."""
    names = combinations(metrics, swept)
    values = list(dict.fromkeys(names))
    curves = [series(metrics[names == name], column, name, "n_pairs") for name in values]
    first = metrics[names == values[0]]  # nothing that is unpatched depends on what is swept
    styles = {name: (colour, [1, 0]) for name, colour in zip(values, RUN_COLOURS, strict=False)}
    tidy = pd.concat([*curves, references(first)])
    chart = _curves(tidy, styles | _reference_styles(), columns=2, marked=values, y_title=column, bands=False)
    return finished(chart, title, [*subtitle, *no_upper_bound(metrics)])


def swept_logit_curves(
    metrics: pd.DataFrame, swept: Sequence[str], title: str, subtitle: Sequence[str]
) -> alt.LayerChart:
    """The mean of `delta_logit_target` at each layer, a line for each of a few combinations of the swept values."""
    y_title = "delta_logit_target_mean"
    tidy = series(metrics, y_title, combinations(metrics, swept), "n_pairs")
    values = list(dict.fromkeys(tidy["series"]))
    color = alt.Color("series:N", title=None, sort=values).scale(domain=values, range=RUN_COLOURS[: len(values)])
    lines = (
        alt.Chart(tidy)
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=30))
        .encode(x=layer_axis(tidy), y=alt.Y("rate:Q", title=y_title), color=color, tooltip=_tooltip(tidy, ".3f"))
    )
    return finished(_zero_line(y_title) + lines, title, subtitle, legend_columns=3)


def delta_logit_curve(metrics: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """How far patching at each layer moves the target's logit: mean over pairs, with the middle half of them."""
    y_title = "delta_logit_target: patched − unpatched"
    half = (
        alt.Chart(metrics)
        .mark_area(opacity=0.12, color=BLUE)
        .encode(
            x=layer_axis(metrics), y=alt.Y("delta_logit_target_q25:Q", title=y_title), y2="delta_logit_target_q75:Q"
        )
    )
    tidy = series(metrics, "delta_logit_target_mean", "delta_logit_target_mean", "n_pairs")
    bands = "line: delta_logit_target_mean; light band: middle half of the pairs" + _interval_note(tidy)
    return finished(_zero_line(y_title) + half + _mean_curve(tidy, y_title), title, [*subtitle, bands])


def recovery_curve(metrics: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """Normalised recovery: the patched logit difference target − A's answer between A's (0) and B's (1)."""
    column = "normalised_recovery_mean"
    tidy = series(metrics, column, column, "recovery_n").dropna(subset="rate")
    n, eligible = int(metrics["recovery_n"].max()), int(metrics["eligible_count"].max())
    note = (
        f"0: A unpatched, 1: B unpatched; over {n} eligible pairs, {eligible - n} are left out since A's and B's logit "
        "differences are less than 1 apart"
    )
    y_title = column
    chart = _zero_line(y_title) + _mean_curve(tidy, y_title)
    return finished(chart, title, [*subtitle, note + _interval_note(tidy)])


def dose_response(metrics: pd.DataFrame, column: str, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """The rate `column` against alpha, a line a layer; `metrics` hold one row a layer and alpha."""
    layers = [int(layer) for layer in sorted(metrics["layer"].unique())]
    lines = (
        alt.Chart(metrics)
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=30))
        .encode(
            x=alt.X("patch_alpha:Q", title="alpha").scale(domain=[0, max(1, metrics["patch_alpha"].max())]),
            y=share(f"{column}:Q", column),
            color=alt.Color("layer:O", title="patched layer", sort=layers).scale(scheme="viridis"),
            tooltip=["layer", "patch_alpha", alt.Tooltip(f"{column}:Q", format=".1%"), "n_pairs"],
        )
    )
    rules = (
        alt.Chart(references(metrics[:1]))
        .mark_rule(strokeWidth=2, color=GREY)
        .encode(
            y=share("rate:Q", column),
            strokeDash=alt.StrokeDash("series:N", title=None).scale(
                domain=list(REFERENCES), range=[dash for _, dash in REFERENCES.values()]
            ),
        )
    )
    return finished(alt.layer(lines, rules), title, [*subtitle, *no_upper_bound(metrics)])


def depth_curves(tidy: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """Several runs on relative depth; `tidy` holds depth in [0, 1], rate, run, layer, n and series.

    The series are the flip rate and the two reference lines of each run.
    """
    dashes = {TO_TARGET: [1, 0]} | {name: dash for name, (_, dash) in REFERENCES.items()}
    base = alt.Chart(tidy).encode(
        x=alt.X("depth:Q", title="relative depth of the patched layer (0: first, 1: last)").scale(domain=[0, 1]),
        y=share("rate:Q", "share of pairs"),
        color=alt.Color("run:N", title="run", sort=None).scale(range=RUN_COLOURS),
        tooltip=["run", "series", "layer", alt.Tooltip("rate:Q", format=".1%"), "n"],
    )
    dash = alt.StrokeDash("series:N", title=None).scale(domain=list(dashes), range=list(dashes.values()))
    points = base.transform_filter(alt.datum.series == TO_TARGET).mark_point(filled=True, size=30, opacity=1)
    chart = alt.layer(base.mark_line(strokeWidth=2).encode(strokeDash=dash), points)
    return finished(chart, title, [*subtitle, NO_UPPER_BOUND], legend_columns=1)


def series(metrics: pd.DataFrame, column: str, name: str | pd.Series, n: str) -> pd.DataFrame:
    """One column of the metrics as a tidy table: layer, rate, low, high, n, series; `n` names the column of counts."""
    bounds = {side: metrics.get(f"{column}_{side}") for side in ("low", "high")}
    values = {"layer": metrics["layer"], "rate": metrics[column], **bounds, "n": metrics[n]}
    return pd.DataFrame(values | ({"site": metrics["site"]} if "site" in metrics else {})).assign(series=name)


def references(metrics: pd.DataFrame, prefix: str = "") -> pd.DataFrame:
    """How often B and A, unpatched, give the target, as a tidy table of the two series."""
    lines = [series(metrics, column, f"{prefix}{name}", "n_pairs") for name, (column, _) in REFERENCES.items()]
    return pd.concat(lines)


def no_upper_bound(metrics: pd.DataFrame) -> list[str]:
    """What to say where a flip rate is above B's own."""
    return [NO_UPPER_BOUND] if (metrics[TO_TARGET] > metrics["donor_is_target_rate"] + 1e-9).any() else []


def _reference_styles() -> Styles:
    return {name: (REFERENCE_COLOURS[name], dash) for name, (_, dash) in REFERENCES.items()}


def _curves(
    tidy: pd.DataFrame,
    styles: Styles,
    columns: int,
    marked: Sequence[str],
    y_title: str = "share of pairs",
    bands: bool = True,
) -> alt.LayerChart:
    """Lines of rates by layer, with points, and bands where there are intervals, on the `marked` series."""
    names = list(styles)
    legend = alt.Legend(title=None, orient="bottom", columns=columns, labelLimit=400)
    x, y = layer_axis(tidy), share("rate:Q", y_title)
    lines = (
        alt.Chart(tidy)
        .mark_line(strokeWidth=2)
        .encode(
            x=x,
            y=y,
            color=alt.Color("series:N", legend=legend).scale(domain=names, range=[c for c, _ in styles.values()]),
            strokeDash=alt.StrokeDash("series:N", legend=legend).scale(
                domain=names, range=[d for _, d in styles.values()]
            ),
        )
    )
    layers = [lines]
    for name in marked:
        # Points and bands have fixed colours of their own, so that the legend shows the lines and their dashes.
        mine = alt.Chart(tidy[tidy["series"] == name]).encode(x=x)
        if bands and _has_interval(tidy):
            band = mine.mark_area(opacity=0.15, color=styles[name][0])
            layers.insert(0, band.encode(y=share("low:Q", y_title), y2="high:Q"))
        layers.append(mine.mark_point(filled=True, size=36, opacity=1, color=styles[name][0]).encode(y=y))
    hover = alt.Chart(tidy).mark_point(size=120, opacity=0).encode(x=x, y=y, tooltip=_tooltip(tidy))
    return alt.layer(*layers, hover)


def _mean_curve(tidy: pd.DataFrame, y_title: str) -> alt.LayerChart:
    x = layer_axis(tidy)
    line = (
        alt.Chart(tidy)
        .mark_line(color=BLUE, strokeWidth=2, point={"color": BLUE, "size": 36})
        .encode(x=x, y=alt.Y("rate:Q", title=y_title), tooltip=_tooltip(tidy, ".3f"))
    )
    if not _has_interval(tidy):
        return alt.layer(line)
    band = alt.Chart(tidy).mark_area(opacity=0.25, color=BLUE).encode(x=x, y=alt.Y("low:Q", title=y_title), y2="high:Q")
    return band + line


def _zero_line(y_title: str) -> alt.Chart:
    return alt.Chart(pd.DataFrame({"zero": [0]})).mark_rule(color=LIGHT_GREY).encode(y=alt.Y("zero:Q", title=y_title))


def _has_interval(tidy: pd.DataFrame) -> bool:
    return "low" in tidy and tidy["low"].notna().any()


def _interval_note(tidy: pd.DataFrame) -> str:
    return "; band at the line: 95 % interval" if _has_interval(tidy) else ""


def _tooltip(tidy: pd.DataFrame, form: str = ".1%") -> list[alt.Tooltip]:
    bounds = ["low", "high"] if _has_interval(tidy) else []
    return [
        alt.Tooltip("layer:Q"),
        alt.Tooltip("series:N", title="curve"),
        alt.Tooltip("rate:Q", format=form, title="value"),
        *(alt.Tooltip(f"{side}:Q", format=form, title=f"95 % interval, {side}") for side in bounds),
        alt.Tooltip("n:Q"),
    ]
