"""Maps of cells: pairs by layer, swept values by layer, and labels by labels, each a declaration over a tidy table.

pair_heat_map(tidy, title, subtitle)
"""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from analysis.cells import combinations, option_name
from analysis.figure_style import BLUE, YELLOW, finished, layer_columns, styled

TO_TARGET, FROM_BASE, NO_FLIP = "flip to target", "flip from base to a third label", "no flip: A's own answer"
NOT_ELIGIBLE = "not eligible: A unpatched gives the target"
STATES = {TO_TARGET: BLUE, FROM_BASE: YELLOW, NO_FLIP: "#E5E5E5", NOT_ELIGIBLE: "#BFBFBF"}  # of a pair at a layer
ROW, MOST_HEIGHT = 16, 640  # of a heat map, in pixels


def swept_heat_map(
    metrics: pd.DataFrame, swept: Sequence[str], column: str, title: str, subtitle: Sequence[str]
) -> alt.LayerChart:
    """One metric by layer and swept value, or combination of values; a rate from 0 to 1, a mean around 0."""
    is_rate = column.endswith("_rate")

    def named(table: pd.DataFrame) -> pd.Series:
        return table[swept[0]] if len(swept) == 1 else combinations(table, swept)

    order = named(metrics[list(swept)].drop_duplicates().sort_values(list(swept))).tolist()
    tidy = metrics[["layer", column, "n_pairs", *(["site"] if "site" in metrics else [])]].assign(value=named(metrics))
    what = ", ".join(map(option_name, swept))
    reach = max(tidy[column].abs().max(), 1e-9)
    scale = alt.Scale(scheme="blues", domain=[0, 1]) if is_rate else alt.Scale(scheme="redblue", domain=[-reach, reach])
    chart = (
        alt.Chart(tidy)
        .mark_rect()
        .encode(
            x=layer_columns(tidy),
            y=alt.Y("value:O", title=what, sort=order).axis(labelOverlap=True, labelLimit=160),
            color=alt.Color(f"{column}:Q", title=column, scale=scale).legend(
                orient="right", gradientLength=160, **({"format": "%"} if is_rate else {})
            ),
            tooltip=[
                "layer",
                alt.Tooltip("value:N", title=what),
                alt.Tooltip(f"{column}:Q", format=".1%" if is_rate else ".3f"),
                "n_pairs",
            ],
        )
    )
    height = min(MOST_HEIGHT, max(120, ROW * len(order)))
    return finished(alt.layer(chart), title, subtitle).properties(height=height)


def pair_heat_map(tidy: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.LayerChart:
    """What each pair answers at each layer; `tidy` holds layer, row (the pairs' order), state, pair and site."""
    used = [state for state in STATES if state in set(tidy["state"])]
    chart = (
        alt.Chart(tidy)
        .mark_rect()
        .encode(
            x=layer_columns(tidy),
            y=alt.Y("row:O", title="pairs, by the last layer with a flip to target", axis=None),
            color=alt.Color("state:N", title=None).scale(domain=used, range=[STATES[state] for state in used]),
            tooltip=["pair", "layer", "state"],
        )
    )
    note = "each row a pair, sorted by the last layer with a flip to target"
    return finished(alt.layer(chart), title, [*subtitle, note], legend_columns=2)


def label_matrices(tidy: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.FacetChart:
    """Flip rates from A's label to the target at chosen layers; `tidy` holds layer, label_a, target, rate, n."""
    labels = sorted(set(tidy["label_a"]) | set(tidy["target"]))
    base = alt.Chart(tidy).encode(
        x=alt.X("target:N", title="target (B's label)", scale=alt.Scale(domain=labels)).axis(labelAngle=-40),
        y=alt.Y("label_a:N", title="A's label", scale=alt.Scale(domain=labels)),
        tooltip=["layer", "label_a", "target", alt.Tooltip("rate:Q", format=".0%"), "n"],
    )
    side = 24 * len(labels)
    chart = _counted_cells(base, "rate", "flip_to_target_rate").properties(width=side, height=side)
    faceted = chart.facet(alt.Column("layer:O", title="patched layer (in the cells: n pairs)"))
    return styled(faceted, title, subtitle)


def confusion(tidy: pd.DataFrame, title: str, subtitle: Sequence[str]) -> alt.FacetChart:
    """Unpatched answers against the clips' labels; `tidy` holds factor, label, answer, share, n."""
    base = alt.Chart(tidy).encode(
        x=alt.X("answer:N", title="answer, unpatched").axis(labelAngle=-40),
        y=alt.Y("label:N", title="label"),
        tooltip=["factor", "label", "answer", alt.Tooltip("share:Q", format=".0%"), "n"],
    )
    chart = _counted_cells(base, "share", "share of the label's clips").properties(width=150, height=150)
    return styled(chart.facet(alt.Column("factor:N", title="in the cells: n clips")), title, subtitle)


def _counted_cells(base: alt.Chart, field: str, title: str) -> alt.LayerChart:
    """Cells coloured by a share, with the count `n` it is of written into each."""
    colour = alt.Color(f"{field}:Q", title=title).scale(scheme="blues", domain=[0, 1])
    cells = base.mark_rect().encode(color=colour.legend(format="%", gradientLength=160))
    legible = alt.condition(f"datum.{field} > 0.55", alt.value("white"), alt.value("black"))
    return alt.layer(cells, base.mark_text(fontSize=10).encode(text="n:Q", color=legible))
