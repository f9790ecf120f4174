"""An experiment by a column of the data: a small panel for each value, with the curve of all pairs in grey.

charts(results, results.experiment("prosody"), title, notes, "B's label")   # flip_rate_curve_prosody_by_text_type
"""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from voicepatch.analysis.breakdown import MOST_VALUES, breakdown, breakdown_columns, breakdown_file, largest, ordered
from voicepatch.analysis.cells import at_highest_dose
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.results import Results
from voicepatch.figures.controls import COLUMNS, SIDE
from voicepatch.figures.curves import TO_TARGET_ELIGIBLE, band_note, series
from voicepatch.figures.figure_style import BLUE, LIGHT_GREY, layer_axis, same_tops, share, styled
from voicepatch.figures.headings import count_of_pairs
from voicepatch.figures.wording import axis_title, words
from voicepatch.text import escape, listing


def charts(
    results: Results, experiment: ExperimentResults, title: str, notes: Sequence[str], target: str
) -> dict[str, alt.FacetChart]:
    """File stem → figure, for each column with several values, where the rate has a value."""
    found = {}
    columns = breakdown_columns(results, experiment)
    for column in columns:
        table = at_highest_dose(results.cached(breakdown, experiment.name, column))
        if table[column].nunique() > 1 and table[experiment.rate].notna().any():
            stem = f"flip_rate_curve_{breakdown_file(experiment.name, column)}"
            unit = f"{experiment.unit}s"
            found[stem] = panels(table, column, experiment.curve, experiment.rate, title, notes, target, unit)
    return found


def panels(
    table: pd.DataFrame,
    column: str,
    whole: pd.DataFrame,
    rate: str,
    title: str,
    notes: Sequence[str],
    target: str = "the target",
    unit: str = "pairs",
) -> alt.FacetChart:
    """The `rate` by layer in a panel for each value of `column` with many pairs, beside that of the `whole`.

    `unit` is what is counted, "pairs" or "clips". A value without any that is eligible has no panel; a note names it.
    """
    whole_name, own_name = f"all {unit}", f"{unit} of the panel"
    count = "eligible_count" if rate == TO_TARGET_ELIGIBLE else "n_pairs"
    shown, tables, names, empty = largest(table, column), [], [], []
    for value in ordered(shown[column]):
        mine = shown[shown[column] == value]
        if not mine[count].max():
            empty.append(f"{value} ({count_of_pairs(mine)})")
            continue
        eligible = f" {int(mine[count].max())} eligible" if count == "eligible_count" else ""
        names.append(f"{escape(value)}, {count_of_pairs(mine)}{',' * bool(eligible)}{eligible}")
        curves = [series(whole, rate, whole_name, count), series(mine, rate, own_name, count)]
        tables.append(pd.concat(curves).assign(panel=names[-1]))
    tidy = pd.concat(tables, ignore_index=True).dropna(subset="value")
    x, y = layer_axis(tidy).title("patched layer"), share("value:Q", f"share of {unit}")
    colour = alt.Color("series:N", legend=alt.Legend(title=None, orient="bottom"))
    colour = colour.scale(domain=[whole_name, own_name], range=[LIGHT_GREY, BLUE])
    tooltip = ["panel", "series", "layer", alt.Tooltip("value:Q", format=".1%"), alt.Tooltip("n:Q")]
    band = alt.Chart().transform_filter(alt.datum.series == own_name).mark_area(opacity=0.2, color=BLUE)
    layers = [
        same_tops(f"share of {unit}"),
        band.encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        alt.Chart().mark_line(strokeWidth=2).encode(x=x, y=y, color=colour),
        alt.Chart().mark_point(size=80, opacity=0).encode(x=x, y=y, tooltip=tooltip),
    ]
    facet = alt.Facet("panel:N", title=words(escape(column)), sort=names)
    n_columns = min(COLUMNS, len(names))
    chart = (
        alt.layer(*layers, data=tidy).properties(**SIDE).facet(facet, columns=n_columns).resolve_axis(x="independent")
    )
    n_values = table[column].nunique()
    more = [f"the {MOST_VALUES} values of {n_values} with the most {unit}"] if n_values > MOST_VALUES else []
    more += [f"without an eligible {unit[:-1]}, so without a panel: {listing(empty)}"] if empty else []
    notes = [*notes, f"drawn: {axis_title(rate, target, unit)}", *band_note(tidy), *more]
    return styled(chart, title, notes, f"Flip rates by patched layer and {words(escape(column))}")
