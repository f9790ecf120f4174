"""Figure of `check --natural`: how many patched readout states lie outside the unpatched ones, by layer.

chart(table, "model M, data D")                  # natural.png, natural.svg
"""

import altair as alt
import pandas as pd

from voicepatch.figures.curves import layer_curves, rate
from voicepatch.figures.figure_style import BLUE, GREY, ORANGE, SOLID, figure

LIMIT = (
    "Inside does not mean natural, since only the main directions are compared. Outside does not mean that the model "
    "cannot read the state."
)


def chart(table: pd.DataFrame, model_and_data: str) -> alt.LayerChart:
    """The shares by layer of each kind and of what was written; unpatched clips have one share at all layers."""
    patched = table.dropna(subset="layer")
    own = (
        table[table["layer"].isna()]
        .drop(columns="layer")
        .merge(patched[["kind", "layer"]].drop_duplicates(), on="kind")
    )
    tidy = pd.concat([patched, own], ignore_index=True).rename(columns={"outside_rate": "value"})
    tidy = tidy.astype({"layer": int}).assign(series=tidy["kind"] + ", written: " + tidy["written"], site="nothing")
    dashes = {"prosody": SOLID, "semantic": [5, 3]}
    colours = dict(zip(table["written"].unique(), (GREY, BLUE, ORANGE), strict=True))
    styles = {
        row.series: (colours[row.written], dashes[row.kind]) for row in tidy.drop_duplicates("series").itertuples()
    }
    y = rate("share outside the 95 % limit of unpatched clips")
    lines = layer_curves(
        tidy[["layer", "value", "series", "n", "site"]], styles, y, list(styles), 2, x_title="patched layer"
    )
    sizes = table[["kind", "n_clips", "n_components"]].drop_duplicates().itertuples()
    notes = [
        model_and_data,
        *(f"{one.kind}: {one.n_clips} clips, {one.n_components} components" for one in sizes),
        LIMIT,
    ]
    return figure(lines, "Readout states, compared with those of unpatched clips", notes)
