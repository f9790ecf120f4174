"""Rates and means of an experiment that has one row for all layers, such as sets of heads that name their layers.

by_combination(metrics, combinations(metrics, swept), "delta_logit_target_mean", title, subtitle)
"""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from voicepatch.figures.curves import has_interval, metric_declaration, series
from voicepatch.figures.figure_style import BLUE, LIGHT_GREY, figure, is_rate
from voicepatch.figures.wording import axis_title


def by_combination(
    metrics: pd.DataFrame, names: pd.Series, column: str, title: str, subtitle: Sequence[str]
) -> alt.LayerChart:
    """A rate or a mean of each combination of swept values, for an experiment with one row for all layers."""
    tidy = series(metrics, column, names.where(names != "", "all layers"), "n_pairs").dropna(subset="value")
    if is_rate(column):
        x, form, caption = (
            alt.X("value:Q", title=axis_title(column)).scale(domain=[0, 1]).axis(format="%"),
            ".1%",
            "Flip rates",
        )
    else:
        declared = metric_declaration(column)
        x, form, caption = alt.X("value:Q", title=declared.axis), ".3f", declared.caption.partition(" by ")[0]
    y = alt.Y("series:N", title=None, sort=None).axis(labelLimit=300)
    base = alt.Chart(tidy).encode(y=y)
    tooltip = ["series", alt.Tooltip("value:Q", format=form), "n"]
    chart = alt.layer(
        base.mark_rule(color=BLUE).encode(x="low:Q", x2="high:Q"),
        base.mark_point(filled=True, size=50, opacity=1, color=BLUE).encode(x=x, tooltip=tooltip),
    )
    zero = alt.Chart(pd.DataFrame({"zero": [0]})).mark_rule(color=LIGHT_GREY).encode(x="zero:Q")
    chart = chart if is_rate(column) else zero + chart
    interval = ["lines: 95 % intervals"] if has_interval(tidy) else []
    return figure(chart, title, [*subtitle, *interval], caption).properties(height=max(80, 18 * len(tidy)))
