"""Every figure, each a declaration over a tidy table.

    save(flip_rate_curve(metrics, title, subtitle), Path("flip_rate_curve_prosody"))

A figure states its n; its legend and axes are in words. Columns `…_low` and `…_high` of a table are drawn as bands.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import altair as alt
import pandas as pd

from files import write_whole

# Okabe and Ito's colours, which colour-blind readers tell apart; the same thing has the same one in every figure.
BLUE, ORANGE, GREY, LIGHT_GREY = "#0072B2", "#D55E00", "#595959", "#A6A6A6"
TO_TARGET = "gives the target, B's label (all pairs)"
TO_TARGET_ELIGIBLE = "gives the target (eligible pairs)"
FROM_BASE = "leaves A's own answer (all pairs)"
CEILING = "ceiling: B itself, unpatched, gives it"
FLOOR = "floor: A itself, unpatched, gives it"
FLIP_STYLES = {  # series: column, colour, dash
    TO_TARGET: ("flip_to_target_rate", BLUE, [1, 0]),
    TO_TARGET_ELIGIBLE: ("flip_to_target_rate_eligible", BLUE, [4, 3]),
    FROM_BASE: ("flip_from_base_rate", ORANGE, [1, 0]),
    CEILING: ("donor_is_target_rate", GREY, [8, 3]),
    FLOOR: ("base_is_target_rate", LIGHT_GREY, [2, 2]),
}
CONTROL_STYLES = {  # intervention: colour, dash
    "patch": (BLUE, [1, 0]),
    "suffix": ("#56B4E9", [8, 3]),
    "no-conflict": (GREY, [2, 2]),
    "random": ("#E69F00", [6, 2, 2, 2]),
    "non-audio": ("#CC79A7", [6, 2]),
    "same-label": ("#009E73", [4, 4]),
    "self": (ORANGE, [1, 2]),
}
OTHER_CONTROL = (LIGHT_GREY, [3, 1])
KIND_STYLES = {"prosody": ("#009E73", [1, 0]), "semantic": ("#CC79A7", [1, 0])}
STATES = {  # of a pair at a layer
    "gives the target": BLUE,
    "gives a third label": "#E69F00",
    "keeps A's own answer": "#E5E5E5",
    "not eligible: gave the target unpatched": "#BFBFBF",
}
WIDTH, HEIGHT = 460, 280
PIXELS_PER_INCH = 200
SHARE = alt.Axis(format="%")


def flip_rate_curve(metrics: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """How often A's patched answer is the target, or is no longer A's own, at each layer."""
    counts = {TO_TARGET_ELIGIBLE: "eligible_count"}
    tidy = pd.concat(
        [series(metrics, column, name, counts.get(name, "n_pairs")) for name, (column, _, _) in FLIP_STYLES.items()]
    ).dropna(subset="rate")
    styles = {name: (colour, dash) for name, (_, colour, dash) in FLIP_STYLES.items()}
    chart = _curves(tidy, styles, "A, patched at that layer,", columns=2, marked=[TO_TARGET, FROM_BASE])
    return _finish(chart, title, subtitle)


def control_curves(tidy: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """The main curve and its controls; `tidy` holds layer, rate, series, n and intervention, the main curve first."""
    named = tidy.drop_duplicates("series")
    styles = {
        series: CONTROL_STYLES.get(intervention, OTHER_CONTROL)
        for series, intervention in zip(named["series"], named["intervention"], strict=True)
    }
    legend = "share of pairs in which A, patched at that layer,"
    return _finish(_curves(tidy, styles, legend, columns=1, marked=named["series"][:1]), title, subtitle)


def kind_curves(tidy: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """Prosody against semantic pairs; `tidy` holds layer, rate, series, n and kind."""
    named = tidy.drop_duplicates("series")
    styles = {series: KIND_STYLES[kind] for series, kind in zip(named["series"], named["kind"], strict=True)}
    return _finish(_curves(tidy, styles, "gives the target", columns=1, marked=named["series"]), title, subtitle)


def delta_logit_curve(metrics: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """How far patching at each layer moves the target's logit: mean over pairs, with the middle half of them."""
    y_title = "target's logit, patched − unpatched"
    half = (
        alt.Chart(metrics)
        .mark_area(opacity=0.12, color=BLUE)
        .encode(
            x=_layer_axis(metrics), y=alt.Y("delta_logit_target_q25:Q", title=y_title), y2="delta_logit_target_q75:Q"
        )
    )
    tidy = series(metrics, "delta_logit_target_mean", "mean", "n_pairs")
    chart = _zero_line(y_title) + half + _mean_curve(tidy, y_title)
    bands = "line: mean over pairs; light band: middle half of the pairs" + _interval_note(tidy)
    return _finish(chart, title, [*subtitle, bands])


def recovery_curve(metrics: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """Normalised recovery: how much of the way from A's to B's margin (target − A's answer) the patch goes."""
    y_title = "normalised recovery (0: as A, 1: as B)"
    tidy = series(metrics, "normalised_recovery_mean", "recovery", "recovery_n").dropna(subset="rate")
    n = int(metrics["recovery_n"].max())
    left_out = int(metrics["eligible_count"].max()) - n
    note = f"over {n} eligible pairs; {left_out} left out, as their margin hardly differs from B's" + _interval_note(
        tidy
    )
    return _finish(_zero_line(y_title) + _mean_curve(tidy, y_title), title, [*subtitle, note])


def dose_response(metrics: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """How often the answer is the target, against the dose, a line a layer."""
    layers = [int(layer) for layer in sorted(metrics["layer"].unique())]
    chart = (
        alt.Chart(metrics)
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=30))
        .encode(
            x=alt.X("patch_alpha:Q", title="dose alpha: (1 − alpha) · A + alpha · B", scale=alt.Scale(domain=[0, 1])),
            y=_share("flip_to_target_rate:Q", "gives the target, share of pairs"),
            color=alt.Color("layer:O", title="layer", sort=layers).scale(scheme="viridis"),
            tooltip=["layer", "patch_alpha", alt.Tooltip("flip_to_target_rate:Q", format=".1%"), "n_pairs"],
        )
    )
    return _finish(alt.layer(chart), title, subtitle)


def pair_heat_map(tidy: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """What each pair answers at each layer; `tidy` holds layer, row (the pairs' order), state and pair."""
    used = [state for state in STATES if state in set(tidy["state"])]
    layers = [int(layer) for layer in sorted(tidy["layer"].unique())]
    shown = layers[:: max(1, len(layers) // 12)]
    chart = (
        alt.Chart(tidy)
        .mark_rect()
        .encode(
            x=alt.X("layer:O", title="decoder layer patched (output of the block)").axis(values=shown, labelAngle=0),
            y=alt.Y("row:O", title="pairs, by the last layer at which they give the target", axis=None),
            color=alt.Color("state:N", title="A, patched at that layer,").scale(
                domain=used, range=[STATES[state] for state in used]
            ),
            tooltip=["pair", "layer", "state"],
        )
    )
    return _finish(alt.layer(chart), title, [*subtitle, "each row a pair, sorted by its hand-over"], legend_columns=2)


def label_matrices(tidy: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.FacetChart:
    """Flip rates from A's label to the target at chosen layers; `tidy` holds layer, label_a, target, rate, n."""
    labels = sorted(set(tidy["label_a"]) | set(tidy["target"]))
    base = alt.Chart(tidy).encode(
        x=alt.X("target:N", title="target (B's label)", scale=alt.Scale(domain=labels)).axis(labelAngle=-40),
        y=alt.Y("label_a:N", title="A's label", scale=alt.Scale(domain=labels)),
        tooltip=["layer", "label_a", "target", alt.Tooltip("rate:Q", format=".0%"), "n"],
    )
    side = 24 * len(labels)
    chart = _counted_cells(base, "rate", "gives the target").properties(width=side, height=side)
    faceted = chart.facet(alt.Column("layer:O", title="layer (in the cells: n pairs)"))
    return _styled(faceted, title, subtitle)


def confusion(tidy: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.FacetChart:
    """Unpatched answers against the words' and the voice's label; `tidy` holds factor, label, answer, share, n."""
    base = alt.Chart(tidy).encode(
        x=alt.X("answer:N", title="answer, unpatched").axis(labelAngle=-40),
        y=alt.Y("label:N", title="label"),
        tooltip=["factor", "label", "answer", alt.Tooltip("share:Q", format=".0%"), "n"],
    )
    chart = _counted_cells(base, "share", "share of the label's clips").properties(width=150, height=150)
    return _styled(chart.facet(alt.Column("factor:N", title="in the cells: n clips")), title, subtitle)


def depth_curves(tidy: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """Several runs on relative depth; `tidy` holds depth in [0, 1], rate, run, layer and n."""
    chart = (
        alt.Chart(tidy)
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=30))
        .encode(
            x=alt.X("depth:Q", title="relative depth (0: first layer, 1: last)", scale=alt.Scale(domain=[0, 1])),
            y=_share("rate:Q", "gives the target, share of pairs"),
            color=alt.Color("run:N", title="run").scale(range=[BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", GREY]),
            strokeDash=alt.StrokeDash("run:N", title="run"),
            tooltip=["run", "layer", alt.Tooltip("rate:Q", format=".1%"), "n"],
        )
    )
    return _finish(alt.layer(chart), title, subtitle)


def series(metrics: pd.DataFrame, column: str, name: str, n: str) -> pd.DataFrame:
    """One column of the metrics as a tidy table: layer, rate, low, high, n, series; `n` names the column of counts."""
    bounds = {side: metrics.get(f"{column}_{side}") for side in ("low", "high")}
    values = {"layer": metrics["layer"], "rate": metrics[column], **bounds, "n": metrics[n]}
    return pd.DataFrame(values).assign(series=name)


def _curves(
    tidy: pd.DataFrame,
    styles: dict[str, tuple[str, list[int]]],
    legend_title: str,
    columns: int,
    marked: Sequence[str],
) -> alt.LayerChart:
    """Lines of rates by layer, with bands and points on the `marked` series."""
    names = list(styles)
    legend = alt.Legend(title=legend_title, titleLimit=400, orient="bottom", columns=columns, labelLimit=400)
    x, y = _layer_axis(tidy), _share("rate:Q", "share of pairs")
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
        if _has_interval(tidy):
            band = mine.mark_area(opacity=0.15, color=styles[name][0])
            layers.insert(0, band.encode(y=_share("low:Q", "share of pairs"), y2="high:Q"))
        layers.append(mine.mark_point(filled=True, size=36, opacity=1, color=styles[name][0]).encode(y=y))
    hover = alt.Chart(tidy).mark_point(size=120, opacity=0).encode(x=x, y=y, tooltip=_tooltip(tidy))
    return alt.layer(*layers, hover)


def _counted_cells(base: alt.Chart, field: str, title: str) -> alt.LayerChart:
    """Cells coloured by a share, with the count `n` it is of written into each."""
    colour = alt.Color(f"{field}:Q", title=title).scale(scheme="blues", domain=[0, 1])
    cells = base.mark_rect().encode(color=colour.legend(format="%", gradientLength=160))
    legible = alt.condition(f"datum.{field} > 0.55", alt.value("white"), alt.value("black"))
    return alt.layer(cells, base.mark_text(fontSize=10).encode(text="n:Q", color=legible))


def _mean_curve(tidy: pd.DataFrame, y_title: str) -> alt.LayerChart:
    x = _layer_axis(tidy)
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


def _share(field: str, title: str) -> alt.Y:
    return alt.Y(field, title=title, scale=alt.Scale(domain=[0, 1]), axis=SHARE)


def _layer_axis(table: pd.DataFrame) -> alt.X:
    low, high = int(table["layer"].min()), int(table["layer"].max())
    step = max(1, (high - low + 1) // 12)
    axis = alt.Axis(values=list(range(low, high + 1, step)), format="d", grid=False)
    return alt.X("layer:Q", title="decoder layer patched (output of the block)", axis=axis).scale(
        domain=[low, max(high, low + 1)], nice=False, padding=8
    )


def _finish(chart: alt.LayerChart, title: str, subtitle: Sequence[str], legend_columns: int = 0) -> alt.LayerChart:
    chart = _styled(chart.properties(width=WIDTH, height=HEIGHT), title, subtitle)
    return chart.configure_legend(orient="bottom", columns=legend_columns, **LEGEND) if legend_columns else chart


LEGEND = dict(
    labelFontSize=12, titleFontSize=12, titleFontWeight="normal", symbolSize=200, symbolStrokeWidth=2, labelLimit=400
)


def _styled(chart: alt.TopLevelMixin, title: str, subtitle: Sequence[str]) -> alt.TopLevelMixin:
    heading = alt.TitleParams(title, subtitle=list(subtitle), anchor="start", subtitleColor=GREY, offset=10)
    return (
        chart.properties(title=heading, background="white")
        .configure(font="sans-serif")
        .configure_axis(labelFontSize=12, titleFontSize=13, titleFontWeight="normal", gridOpacity=0.5)
        .configure_legend(**LEGEND)
        .configure_title(fontSize=14, subtitleFontSize=12)
        .configure_header(labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
        .configure_view(stroke=None)
    )


def save(chart: alt.TopLevelMixin, path: Path) -> list[Path]:
    """Write `path`.png at print resolution and `path`.svg, each as a whole or not at all; gives the two."""
    png, svg = io.BytesIO(), io.StringIO()
    chart.save(png, format="png", ppi=PIXELS_PER_INCH)
    chart.save(svg, format="svg")
    contents = {"png": png.getvalue(), "svg": _renumbered(svg.getvalue())}
    return [write_whole(path.with_name(f"{path.name}.{form}"), content) for form, content in contents.items()]


def _renumbered(svg: str) -> str:
    """The SVG with its ids counted from 1: Vega counts on from figure to figure, but a chart should give one file."""
    ids: dict[str, str] = {}
    return re.sub(r"\b(gradient_|clip)\d+\b", lambda m: ids.setdefault(m[0], f"{m[1]}{len(ids) + 1}"), svg)
