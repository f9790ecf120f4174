"""Maps of cells: pairs by layer, swept values by layer, and labels by labels.

pair_heat_map(records, title, subtitle)
heat_map(tidy, x, y, colour_of("entropy_mean", tidy), tooltip)
"""

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from voicepatch.analysis.cells import combinations, option_name
from voicepatch.figures.figure_style import BLUE, WIDTH, YELLOW, figure, is_rate, layer_columns, styled
from voicepatch.figures.wording import axis_title
from voicepatch.text import escape

TO_TARGET, FROM_BASE, NO_FLIP = "flip to target", "flip from base to a third label", "no flip: A's own answer"
NOT_ELIGIBLE = "not eligible: A unpatched gives the target"
STATES = {TO_TARGET: BLUE, FROM_BASE: YELLOW, NO_FLIP: "#E5E5E5", NOT_ELIGIBLE: "#BFBFBF"}  # of a pair at a layer
ROW, MOST_HEIGHT = 16, 640  # of a heat map, in pixels
MOST_PAIRS = 150  # rows of the heat map of pairs
MATRICES, RATE = 4, "share of the pairs that answer with the target"


def heat_map(
    tidy: pd.DataFrame, x: alt.X, y: alt.Y, colour: alt.Color, tooltip: Sequence[str | alt.Tooltip]
) -> alt.Chart:
    """Coloured cells, one for each row of a table."""
    return alt.Chart(tidy).mark_rect().encode(x=x, y=y, color=colour, tooltip=list(tooltip))


def with_marks(cells: alt.Chart, tidy: pd.DataFrame, x: alt.X, y: alt.Y) -> alt.LayerChart:
    """A map with a dot in each cell whose row has a true `marked`; the white rim shows on dark colours."""
    marked = tidy[tidy["marked"]]
    if marked.empty:  # Vega-Lite fails on an empty table
        return alt.layer(cells)
    dots = alt.Chart(marked).mark_point(filled=True, size=30, opacity=1, color="black", stroke="white", strokeWidth=1)
    return alt.layer(cells, dots.encode(x=x, y=y))


def colour_of(
    column: str,
    tidy: pd.DataFrame,
    *,
    form: str = "",
    length: int = 160,
    most: float = 1,
    reach: float = 0,
    title: str = "",
) -> alt.Color:
    """The colours of a rate, from 0 to `most`, or of a mean, around 0, to at least `reach` on both sides."""
    if is_rate(column):
        scale, form = alt.Scale(scheme="blues", domain=[0, most]), form or "%"
    else:
        reach = max(tidy[column].abs().max(), reach, 1e-9)
        scale = alt.Scale(scheme="redblue", domain=[-reach, reach])
    legend = alt.Legend(orient="top", gradientLength=length, titleLimit=WIDTH, **({"format": form} if form else {}))
    return alt.Color(f"{column}:Q", title=title or axis_title(column), scale=scale, legend=legend)


def swept_heat_map(
    metrics: pd.DataFrame,
    swept: Sequence[str],
    column: str,
    title: str,
    subtitle: Sequence[str],
    caption: str = "",
    reach: float = 0,
    colour_title: str = "",
) -> alt.LayerChart:
    """One metric by layer and swept value, or combination of values.

    Cells with a true `marked` have a dot; colours of a mean reach at least from −`reach` to `reach`. Without a
    `colour_title` they have that of the column.
    """

    def named(table: pd.DataFrame) -> pd.Series:
        return table[swept[0]] if len(swept) == 1 else combinations(table, swept)

    # `groupby` orders numbers before texts, which cannot be compared.
    order = named(metrics.groupby(list(swept)).size().reset_index()).tolist()
    further = [name for name in ("site", "marked") if name in metrics]
    tidy = metrics[["layer", column, "n_pairs", *further]].assign(value=named(metrics))
    what, form = ", ".join(map(option_name, swept)), ".1%" if is_rate(column) else ".3f"
    x, y = layer_columns(tidy), alt.Y("value:O", title=what, sort=order).axis(labelOverlap=True, labelLimit=160)
    tooltip = ["layer", alt.Tooltip("value:N", title=what), alt.Tooltip(f"{column}:Q", format=form), "n_pairs"]
    cells = heat_map(tidy, x, y, colour_of(column, tidy, reach=reach, title=colour_title), tooltip)
    chart = with_marks(cells, tidy, x, y) if "marked" in tidy else alt.layer(cells)
    height = min(MOST_HEIGHT, max(120, ROW * len(order)))
    return figure(chart, title, subtitle, caption).properties(height=height)


def pair_heat_map(records: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """What each pair answers at each layer; of many pairs, some that are evenly spaced in their order."""
    tidy, n_pairs = _states(records), records["pair_id"].nunique()
    notes = [*subtitle, "each row is a pair, sorted by the last layer with a flip to target"]
    if n_pairs > MOST_PAIRS:
        rows = np.linspace(0, n_pairs - 1, MOST_PAIRS).round().astype(int)
        tidy = tidy[tidy["row"].isin(rows)]
        notes.append(f"{MOST_PAIRS} of {n_pairs} pairs, evenly spaced in this order")
    used = [state for state in STATES if state in set(tidy["state"])]
    colour = alt.Color("state:N", title=None).scale(domain=used, range=[STATES[state] for state in used])
    y = alt.Y("row:O", title="pairs, by their last layer with a flip to target").axis(labels=False, ticks=False)
    cells = heat_map(tidy, layer_columns(tidy), y, colour, ["pair", "layer", "state"])
    return figure(alt.layer(cells), title, notes, "Each pair by patched layer", legend_columns=2)


def _states(records: pd.DataFrame) -> pd.DataFrame:
    """The state of each pair at each layer as layer, row, state, pair and site."""
    state = pd.Series(FROM_BASE, index=records.index)
    state[~records["flip_from_base"]] = NO_FLIP
    state[records["flip_to_target"]] = TO_TARGET
    state[~records["eligible"]] = NOT_ELIGIBLE
    flips = records["eligible"] & records["flip_to_target"]
    last = records["layer"].where(flips, -1).groupby(records["pair_id"]).max()
    last[records.groupby("pair_id")["eligible"].first().eq(False)] = -2  # the lowest rows
    order = {pair: row for row, pair in enumerate(last.sort_values(ascending=False, kind="stable").index)}
    pair = records["clip_a"].map(escape) + " ← " + records["clip_b"].map(escape)
    site = ["site"] if "site" in records else []
    return records[["layer", *site]].assign(row=records["pair_id"].map(order), state=state, pair=pair)


def label_matrices(
    records: pd.DataFrame, labels_a: pd.Series, labels: Sequence[str], title: str, subtitle: Sequence[str]
) -> alt.FacetChart:
    """Flip rates from A's label to the target at a few layers; `labels_a` gives A's label for each pair_id."""
    layers = sorted(records["layer"].unique())
    chosen = sorted({layers[round(i * (len(layers) - 1) / (MATRICES - 1))] for i in range(MATRICES)})
    mine = records[records["layer"].isin(chosen)].assign(label_a=records["pair_id"].map(labels_a))
    groups = mine.groupby(["layer", "label_a", "target"])["flip_to_target"]
    tidy = groups.agg(flip_to_target_rate="mean", n="size").reset_index()
    used = [label for label in labels if label in {*tidy["label_a"], *tidy["target"]}]
    x = alt.X("target:N", title="target (B's label)", scale=alt.Scale(domain=used)).axis(labelAngle=-40)
    y = alt.Y("label_a:N", title="A's label", scale=alt.Scale(domain=used))
    cells = _counted_cells(tidy, x, y, "flip_to_target_rate", ["layer", "label_a", "target"], 24 * len(used), RATE)
    faceted = cells.facet(alt.Facet("layer:O", title="patched layer (in the cells: n pairs)"), columns=MATRICES)
    return styled(faceted, title, subtitle, "Flip rates from label to label")


def confusion(
    clips: pd.DataFrame, factors: Sequence[str], labels: Sequence[str], title: str, subtitle: Sequence[str]
) -> alt.FacetChart:
    """Unpatched answers against the clips' labels. `factors` are the columns of `clips` that hold labels."""
    tables = []
    for factor in factors:
        n = clips.groupby([factor, "answer"]).size().rename("n").reset_index().rename(columns={factor: "label"})
        share = n["n"] / n.groupby("label")["n"].transform("sum")
        tables.append(n.assign(share=share, factor=factor.replace("_", " ")))
    tidy = pd.concat(tables)
    x = alt.X("answer:N", title="answer, unpatched", sort=list(labels)).axis(labelAngle=-40)
    y = alt.Y("label:N", title="label", sort=list(labels))
    tooltip, side = ["factor", "label", "answer"], max(150, 24 * len(labels))
    cells = _counted_cells(tidy, x, y, "share", tooltip, side, "share of the label's clips")
    faceted = cells.facet(alt.Facet("factor:N", title="in the cells: n clips"), columns=MATRICES)
    return styled(faceted, title, subtitle, "Unpatched answers against the clips' labels")


def _counted_cells(
    tidy: pd.DataFrame, x: alt.X, y: alt.Y, column: str, tooltip: list[str], side: int, title: str = ""
) -> alt.LayerChart:
    """Cells coloured by a share, each with the number `n` of its pairs or clips as text."""
    legend = alt.Legend(format="%", gradientLength=160, orient="top", titleLimit=WIDTH)
    colour = alt.Color(f"{column}:Q", title=title or axis_title(column), legend=legend).scale(
        scheme="blues", domain=[0, 1]
    )
    shown = [*tooltip, alt.Tooltip(f"{column}:Q", format=".0%"), "n"]
    legible = alt.condition(alt.datum[column] > 0.55, alt.value("white"), alt.value("black"))
    text = alt.Chart(tidy).mark_text(fontSize=10).encode(x=x, y=y, text="n:Q", color=legible, tooltip=shown)
    return alt.layer(heat_map(tidy, x, y, colour, shown), text).properties(width=side, height=side)
