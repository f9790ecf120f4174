"""Every figure, each a declaration over the table of `layer_metrics`.

    save(flip_rate_curve(metrics, title, subtitle), Path("flip_rate_curve_prosody.png"))

A figure states its n; its legend and axes are in words.
"""

from collections.abc import Sequence
from pathlib import Path

import altair as alt
import pandas as pd

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
WIDTH, HEIGHT = 460, 280
PIXELS_PER_INCH = 200


def flip_rate_curve(metrics: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.Chart:
    """How often A's patched answer is the target, or is no longer A's own, at each layer."""
    names = list(FLIP_STYLES)
    columns = {column: name for name, (column, _, _) in FLIP_STYLES.items()}
    tidy = metrics.melt("layer", list(columns), "column", "rate").dropna()
    tidy["series"] = tidy["column"].map(columns)
    legend = alt.Legend(title="A, patched at that layer,", orient="bottom", columns=2, labelLimit=400)
    lines = alt.Chart(tidy).encode(
        x=_layer_axis(metrics),
        y=alt.Y("rate:Q", title="share of pairs", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
        color=alt.Color("series:N", legend=legend).scale(domain=names, range=[FLIP_STYLES[n][1] for n in names]),
        strokeDash=alt.StrokeDash("series:N", legend=legend).scale(
            domain=names, range=[FLIP_STYLES[n][2] for n in names]
        ),
    )
    # Points have fixed colours of their own, so that the legend shows the lines and their dashes.
    points = [
        alt.Chart(tidy[tidy["series"] == name])
        .mark_point(filled=True, size=36, opacity=1, color=FLIP_STYLES[name][1])
        .encode(x=_layer_axis(metrics), y="rate:Q")
        for name in (TO_TARGET, FROM_BASE)
    ]
    chart = alt.layer(lines.mark_line(strokeWidth=2), *points)
    return _finish(chart, title, subtitle)


def delta_logit_curve(metrics: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.Chart:
    """How far patching at each layer moves the target's logit: mean over pairs, with the middle half of them."""
    y_title = "target's logit, patched − unpatched"
    x = _layer_axis(metrics)
    zero = alt.Chart(pd.DataFrame({"zero": [0]})).mark_rule(color=LIGHT_GREY).encode(y=alt.Y("zero:Q", title=y_title))
    band = (
        alt.Chart(metrics)
        .mark_area(opacity=0.2, color=BLUE)
        .encode(x=x, y=alt.Y("delta_logit_target_q25:Q", title=y_title), y2="delta_logit_target_q75:Q")
    )
    mean = (
        alt.Chart(metrics)
        .mark_line(color=BLUE, strokeWidth=2, point={"color": BLUE, "size": 36})
        .encode(x=x, y=alt.Y("delta_logit_target_mean:Q", title=y_title))
    )
    return _finish(zero + band + mean, title, [*subtitle, "line: mean over pairs; band: middle half of the pairs"])


def control_curves(tidy: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.Chart:
    """The main curve and its controls; `tidy` holds layer, rate, series and intervention, the main curve first."""
    named = tidy.drop_duplicates("series")
    names = list(named["series"])
    styles = [CONTROL_STYLES.get(name, OTHER_CONTROL) for name in named["intervention"]]
    title_of_legend = "share of pairs in which A, patched at that layer,"
    legend = alt.Legend(title=title_of_legend, titleLimit=400, orient="bottom", columns=1, labelLimit=400)
    lines = (
        alt.Chart(tidy)
        .mark_line(strokeWidth=2)
        .encode(
            x=_layer_axis(tidy),
            y=alt.Y("rate:Q", title="share of pairs", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
            color=alt.Color("series:N", legend=legend).scale(domain=names, range=[colour for colour, _ in styles]),
            strokeDash=alt.StrokeDash("series:N", legend=legend).scale(
                domain=names, range=[dash for _, dash in styles]
            ),
        )
    )
    main = (
        alt.Chart(tidy[tidy["series"] == names[0]])
        .mark_point(filled=True, size=36, opacity=1, color=BLUE)
        .encode(x=_layer_axis(tidy), y="rate:Q")
    )
    return _finish(lines + main, title, subtitle)


def dose_response(metrics: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.Chart:
    """How often the answer is the target, against the dose, a line a layer."""
    layers = [int(layer) for layer in sorted(metrics["layer"].unique())]
    chart = (
        alt.Chart(metrics)
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=30))
        .encode(
            x=alt.X("patch_alpha:Q", title="dose alpha: (1 − alpha) · A + alpha · B", scale=alt.Scale(domain=[0, 1])),
            y=alt.Y(
                "flip_to_target_rate:Q",
                title="gives the target, share of pairs",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="%"),
            ),
            color=alt.Color("layer:O", title="layer", sort=layers).scale(scheme="viridis"),
        )
    )
    return _finish(alt.layer(chart), title, subtitle)


def _layer_axis(metrics: pd.DataFrame) -> alt.X:
    low, high = int(metrics["layer"].min()), int(metrics["layer"].max())
    step = max(1, (high - low + 1) // 12)
    axis = alt.Axis(values=list(range(low, high + 1, step)), format="d", grid=False)
    return alt.X("layer:Q", title="decoder layer patched (output of the block)", axis=axis).scale(
        domain=[low, max(high, low + 1)], nice=False, padding=8
    )


def _finish(chart: alt.LayerChart, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    heading = alt.TitleParams(title, subtitle=list(subtitle), anchor="start", subtitleColor=GREY, offset=10)
    return (
        chart.properties(width=WIDTH, height=HEIGHT, title=heading, background="white")
        .configure(font="sans-serif")
        .configure_axis(labelFontSize=12, titleFontSize=13, titleFontWeight="normal", gridOpacity=0.5)
        .configure_legend(
            labelFontSize=12, titleFontSize=12, titleFontWeight="normal", symbolSize=200, symbolStrokeWidth=2
        )
        .configure_title(fontSize=14, subtitleFontSize=12)
        .configure_view(stroke=None)
    )


def save(chart: alt.LayerChart, path: Path) -> None:
    """Write a PNG at print resolution, as a whole or not at all."""
    temporary = path.with_name(path.name + ".partial")
    chart.save(temporary, format="png", ppi=PIXELS_PER_INCH)
    temporary.replace(path)
