"""Figure of the map of tokens: how far B's stream at one position after the span changes A's answer, by layer.

charts(results, experiment)                  # {"tokens_tokens-prosody": alt.Chart}
"""

import altair as alt
import pandas as pd

from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.results import Results
from voicepatch.analysis.rounding import estimate_text
from voicepatch.figures.cell_map import cell_map
from voicepatch.figures.figure_style import WIDTH, layer_columns, styled
from voicepatch.figures.headings import heading
from voicepatch.figures.maps import ROW, colour_of, heat_map, with_marks
from voicepatch.text import escape

REPLACES_COMMON = True  # the maps here have the tokens' texts
MAP_OF = TOKEN = "token"
LOGIT, FLIPS = "delta_logit_target_mean", "flip_to_target_rate_eligible"


def charts(results: Results, experiment: ExperimentResults) -> dict[str, alt.HConcatChart]:
    """The change of the target's logit and the flips of eligible pairs, with the tokens' texts on the axis."""
    if set(experiment.swept) - {"patch_alpha"} != {TOKEN}:
        return {}
    texts = results.config["prompt"]["tokens_after"]
    found = results.cached(cell_map, experiment.name)
    curve = found.mark(experiment.curve)
    names = {number: f"{number}  {escape(texts[number])}" for number in sorted(curve[TOKEN].unique())}
    tidy = curve[["layer", TOKEN, LOGIT, FLIPS, "n_pairs", "eligible_count", "marked"]].assign(
        name=curve[TOKEN].map(names)
    )
    order = list(names.values())
    maps = [_map(tidy, LOGIT, order, True, found.scale), _map(tidy.assign(marked=False), FLIPS, order, False)]
    title, subtitle = heading(results, experiment)
    chart = alt.hconcat(*maps, spacing=16).resolve_scale(color="independent")
    return {f"tokens_{experiment.name}": styled(chart, title, [*subtitle, found.note], "Map of tokens")}


def sentences(results: Results, experiment: ExperimentResults) -> list[str]:
    """The token and layer at which the most eligible pairs flip, or else where the target's logit changes most."""
    if set(experiment.swept) - {"patch_alpha"} != {TOKEN}:
        return []
    curve, texts = experiment.curve.reset_index(drop=True), results.config["prompt"]["tokens_after"]
    flips = curve[FLIPS].max() > 0
    best = curve.loc[curve[FLIPS if flips else LOGIT].idxmax()]
    number, text = int(best[TOKEN]), escape(texts[int(best[TOKEN])])
    which = "the last, which is the readout" if number == len(texts) - 1 else f"counted from 0, of {len(texts)}"
    place = f"token {number} after the span ({text!r}, {which}), layer {int(best['layer'])}"
    if flips:
        most, n = estimate_text(best, FLIPS), int(best["eligible_count"])
        what = f"at most {most} of the {n} eligible pairs answer with B's label"
    else:
        what = f"no eligible pair answers with B's label; its logit rises by {estimate_text(best, LOGIT)} at most"
    return [f"With B's stream at one position after the span, {what}: {place}."]


def _map(tidy: pd.DataFrame, column: str, order: list[str], has_names: bool, reach: float = 0) -> alt.LayerChart:
    axis = alt.Axis(labelLimit=160) if has_names else None
    y = alt.Y("name:N", title="token after the span" if has_names else None, sort=order, axis=axis)
    most = max(tidy[FLIPS].max(), 0.01)
    colour = colour_of(column, tidy, form=".0%" if column == FLIPS else ".2f", most=most, reach=reach)
    form = ".0%" if column == FLIPS else ".2f"
    colour = colour.legend(orient="top", gradientLength=200, titleLimit=WIDTH, format=form)
    tooltip = ["layer", "name", alt.Tooltip(f"{column}:Q", format=".3f"), "n_pairs", "eligible_count"]
    x = layer_columns(tidy)
    cells = with_marks(heat_map(tidy, x, y, colour, tooltip), tidy, x, y)
    return cells.properties(width=260, height=ROW * len(order))
