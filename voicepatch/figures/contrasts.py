"""The difference between the curves of prosody and semantic pairs, by layer.

charts(results, subtitle)      # {"contrast_prosody_vs_semantic": alt.Chart}
"""

import altair as alt
import pandas as pd

from voicepatch.analysis.contrasts import ALL, ELIGIBLE, Contrast
from voicepatch.analysis.results import Results
from voicepatch.analysis.words_and_voice import RING, STEM, contrast_of, overriding
from voicepatch.figures.curves import layer_curves, number, zero_line
from voicepatch.figures.figure_style import BLUE, GREY, SOLID, figure, layer_axis

NAMES = {ELIGIBLE: "eligible pairs", ALL: "all pairs"}
STYLES = {NAMES[ELIGIBLE]: (BLUE, SOLID), NAMES[ALL]: (GREY, [5, 3])}


def charts(results: Results, subtitle: list[str]) -> dict[str, alt.LayerChart]:
    """The difference of the two curves by layer, by its file's stem; none where there is no contrast."""
    found = results.cached(contrast_of)
    if not isinstance(found, Contrast):
        return {}
    return {STEM: difference_by_layer(found.table, [*overriding(results), *subtitle])}


def difference_by_layer(table: pd.DataFrame, subtitle: list[str]) -> alt.LayerChart:
    """Prosody − semantic in flip_to_target_rate with 95 % bands; a ring where p_max is below 0.05."""
    tidy = table.assign(series=table["pairs"].map(NAMES)).rename(columns={"difference": "value"})
    y = number("share that answers with B's label: prosody − semantic", "+%")
    p_values = [alt.Tooltip(f"{column}:Q", format=".3f") for column in ("p", "p_max")]
    chart = layer_curves(tidy, STYLES, y, list(STYLES), 2, form="+.1%", tooltip=p_values, below=[zero_line(y)])
    significant = tidy[tidy["p_max"] < RING]
    if len(significant):  # Vega-Lite fails on an empty table
        rings = alt.Chart(significant).mark_point(size=130, color=GREY, opacity=1)
        chart = alt.layer(chart, rings.encode(x=layer_axis(tidy), y=y("value:Q")))
    notes = [*filter(None, subtitle), "bands: 95 % intervals; a ring: p_max below 0.05, corrected for all layers"]
    return figure(chart, "Prosody pairs − semantic pairs", notes, "Prosody − semantic by layer")
