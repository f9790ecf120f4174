"""Figure of the map of tokens: how far B's stream at one position after the span changes A's answer, by layer.

charts(results, experiment)                  # {"tokens_tokens-prosody": alt.Chart}
"""

import altair as alt
import pandas as pd

from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.results import Results
from voicepatch.figures.figure_style import layer_columns, styled
from voicepatch.figures.headings import heading
from voicepatch.figures.maps import ROW, colour_of, heat_map
from voicepatch.text import escape

REPLACES_COMMON = True  # the maps here have the tokens' texts
TOKEN = "token"
LOGIT, FLIPS = "delta_logit_target_mean", "flip_to_target_rate_eligible"


def charts(results: Results, experiment: ExperimentResults) -> dict[str, alt.HConcatChart]:
    """The change of the target's logit and the flips of eligible pairs, with the tokens' texts on the axis."""
    if set(experiment.swept) - {"patch_alpha"} != {TOKEN}:
        return {}
    texts = results.config["prompt"]["tokens_after"]
    curve = experiment.curve
    names = {number: f"{number}  {escape(texts[number])}" for number in sorted(curve[TOKEN].unique())}
    tidy = curve[["layer", TOKEN, LOGIT, FLIPS, "n_pairs", "eligible_count"]].assign(name=curve[TOKEN].map(names))
    maps = [_map(tidy, LOGIT, list(names.values()), True), _map(tidy, FLIPS, list(names.values()), False)]
    title, subtitle = heading(results, experiment)
    chart = alt.hconcat(*maps, spacing=16).resolve_scale(color="independent")
    return {f"tokens_{experiment.name}": styled(chart, title, subtitle, "Map of tokens")}


def _map(tidy: pd.DataFrame, column: str, order: list[str], has_names: bool) -> alt.Chart:
    axis = alt.Axis(labelLimit=160) if has_names else None
    y = alt.Y("name:N", title="token after the span" if has_names else None, sort=order, axis=axis)
    most = max(tidy[FLIPS].max(), 0.01)
    colour = colour_of(column, tidy, form=".0%" if column == FLIPS else ".2f", most=most)
    colour = colour.legend(orient="top", gradientLength=200, title=column, format=".0%" if column == FLIPS else ".2f")
    tooltip = ["layer", "name", alt.Tooltip(f"{column}:Q", format=".3f"), "n_pairs", "eligible_count"]
    cells = heat_map(tidy, layer_columns(tidy), y, colour, tooltip)
    return cells.properties(width=260, height=ROW * len(order))
