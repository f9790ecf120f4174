"""The main experiment and its controls: a small panel for each control, with the main curve in grey.

control_curves({"random (n = 30)": curve}, {"random (n = 30)": [TO_TARGET_ELIGIBLE, FROM_BASE]}, main, title, notes)
"""

from collections.abc import Mapping, Sequence

import altair as alt
import pandas as pd

from voicepatch.analysis.sites import site_name
from voicepatch.figures.curves import FROM_BASE, TO_TARGET, TO_TARGET_ELIGIBLE, series
from voicepatch.figures.figure_style import BLUE, GREY, LIGHT_GREY, ORANGE, SOLID, layer_axis, same_tops, share, styled

SIDE, COLUMNS = {"width": 150, "height": 130}, 3  # of a panel, in pixels
MAIN, CONTROL = "main experiment", "control"
ANSWERS = {TO_TARGET_ELIGIBLE: "answer is the target", FROM_BASE: "answer changes"}
STYLES = {
    f"{MAIN}: {ANSWERS[TO_TARGET_ELIGIBLE]}": (GREY, SOLID),
    f"{MAIN}: {ANSWERS[FROM_BASE]}": (LIGHT_GREY, [6, 2, 2, 2]),
    f"{CONTROL}: {ANSWERS[TO_TARGET_ELIGIBLE]}": (BLUE, [6, 3]),
    f"{CONTROL}: {ANSWERS[FROM_BASE]}": (ORANGE, [2, 2]),
}
NOTE = (
    "The answer that is the target is counted among eligible pairs (A unpatched does not give it), the answer that "
    "changes among all"
)


def control_curves(
    controls: Mapping[str, tuple[pd.DataFrame, Sequence[str]]], main: pd.DataFrame, title: str, notes: Sequence[str]
) -> alt.FacetChart:
    """A panel for each control: its rates, and those of the `main` metrics.

    `controls` gives the metrics of each control and the rates by which it is compared. The order of the controls
    changes nothing.
    """
    tables = []
    for panel in sorted(controls):
        metrics, compared = controls[panel]
        for column in [TO_TARGET_ELIGIBLE if rate == TO_TARGET else rate for rate in compared]:
            for one, whose in ((main, MAIN), (metrics, CONTROL)):
                n = "eligible_count" if column == TO_TARGET_ELIGIBLE else "n_pairs"
                curve = series(one, column, f"{whose}: {ANSWERS[column]}", n).dropna(subset="value")
                tables.append(curve.assign(panel=panel))
    tidy = pd.concat(tables, ignore_index=True)
    used = {name: style for name, style in STYLES.items() if name in set(tidy["series"])}
    x, y = layer_axis(tidy).title("patched layer"), share("value:Q", "share of pairs")
    legend = alt.Legend(title=None, orient="bottom", columns=2)
    colours, dashes = zip(*used.values(), strict=True)
    colour = alt.Color("series:N", legend=legend).scale(domain=list(used), range=list(colours))
    dash = alt.StrokeDash("series:N", legend=legend).scale(domain=list(used), range=list(dashes))
    tooltip = ["panel", "series", "layer", alt.Tooltip("value:Q", format=".1%"), "n"]
    lines = alt.Chart().mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, strokeDash=dash)
    hover = alt.Chart().mark_point(size=80, opacity=0).encode(x=x, y=y, tooltip=tooltip)
    panels = alt.layer(same_tops("share of pairs"), lines, hover, data=tidy).properties(**SIDE)
    chart = panels.facet(alt.Facet("panel:N", title=None), columns=COLUMNS).resolve_axis(x="independent")
    notes = [*notes, NOTE, f"written in the main experiment: {site_name(main)}"]
    return styled(chart, title, notes, "The main experiment and its controls")
