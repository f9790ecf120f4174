"""The question of a run with both kinds of pairs: do the words leave the audio span before the voice?

    results.once(contrast_of)      # of prosody and semantic; the reason where there is none
    sentence(results)              # "The words leave the audio span 0.85 layers (95 % interval 0.18 to 1.9) before …"
    charts(results, subtitle)      # {"contrast_prosody_vs_semantic": alt.Chart}

The statistics are those of `analysis.contrast_kinds`.
"""

from typing import Any

import altair as alt
import pandas as pd

from analysis.alike import curve_differences
from analysis.contrast_kinds import ALL, ELIGIBLE, Contrast, Side, contrast
from analysis.figure_style import BLUE, GREY, LIGHT_GREY, finished, layer_axis
from analysis.results import KINDS, Results

STEM = "contrast_prosody_vs_semantic"
GROUPS = {ALL: ("all pairs", BLUE, [1, 0]), ELIGIBLE: ("eligible pairs", GREY, [5, 3])}


def contrast_of(results: Results) -> Contrast | str | None:
    """The contrast of both main experiments, the reason where they ran otherwise, None without both as curves."""
    mains = [results.main(kind) for kind in KINDS]
    if not all(mains):
        return None
    found = curve_differences(*mains)
    if found:
        return f"semantic ran with {'; '.join(found)}, as prosody did; run both alike"
    return contrast(*(Side(main.kind, main.records, main.pairs) for main in mains), seed=mains[0].seed)


def sentence(results: Results) -> str:
    """The answer in a sentence; "" for a run that has not both kinds."""
    found = results.once(contrast_of)
    if isinstance(found, Contrast):
        return said(found.statistics)
    return f"Words and voice are not contrasted: {found}." if found else ""


def said(statistics: dict[str, Any]) -> str:
    """What the difference of the hand-over layers is, in a sentence."""
    whole, eligible = statistics[ALL], statistics[ELIGIBLE]
    if whole["difference"] is None:
        return f"Whether words or voice leave the audio span first cannot be told: {_named(whole['reason'])}."
    first, second = ("words", "voice") if whole["difference"] >= 0 else ("voice", "words")
    number = abs(whole["difference"])
    leave = "leave" if first == "words" else "leaves"
    text = f"The {first} {leave} the audio span {number:.2g} layers{_between(whole)} before the {second}"
    if whole["reason"]:
        return f"{text} ({_named(whole['reason'])})."
    if eligible["difference"] is not None and abs(eligible["difference"] - whole["difference"]) > 0.005:
        signed = eligible["difference"] * (1 if whole["difference"] >= 0 else -1)
        text += f"; among eligible pairs {signed:.2g}{_between(eligible, flip=whole['difference'] < 0)}"
    low, high = (whole[end] is None or whole[end] * sign <= 0 for end, sign in (("low", 1), ("high", -1)))
    return f"{text}." + (" The interval includes no difference." if low and high else "")


def charts(results: Results, subtitle: list[str]) -> dict[str, alt.LayerChart]:
    """The difference of the two curves by layer, by its file's stem; none where there is no contrast."""
    found = results.once(contrast_of)
    if not isinstance(found, Contrast):
        return {}
    return {STEM: difference_by_layer(found.table, [said(found.statistics), *subtitle])}


def difference_by_layer(table: pd.DataFrame, subtitle: list[str]) -> alt.LayerChart:
    """Prosody − semantic in flip_to_target_rate with 95 % bands; a ring where p_max is below 0.05."""
    y_title = "flip_to_target_rate: prosody − semantic"
    tidy = table.assign(series=table["pairs"].map(lambda group: GROUPS[group][0]), zero=0)
    names = [name for name, _, _ in GROUPS.values()]
    x = layer_axis(tidy)

    def y(field: str) -> alt.Y:
        return alt.Y(field, title=y_title).axis(format="+%")

    colour = alt.Color("series:N", title=None).scale(domain=names, range=[c for _, c, _ in GROUPS.values()])
    dash = alt.StrokeDash("series:N", title=None).scale(domain=names, range=[d for _, _, d in GROUPS.values()])
    base = alt.Chart(tidy)
    layers = [base.mark_rule(color=LIGHT_GREY).encode(y=y("zero:Q"))]
    for group, (_, fixed, _) in GROUPS.items():  # colours of their own, so that the legend shows the lines
        mine = alt.Chart(tidy[tidy["pairs"] == group])
        layers.append(mine.mark_area(opacity=0.13, color=fixed).encode(x=x, y=y("low:Q"), y2="high:Q"))
        layers.append(mine.mark_point(filled=True, size=36, opacity=1, color=fixed).encode(x=x, y=y("difference:Q")))
    layers += [
        base.mark_line(strokeWidth=2).encode(x=x, y=y("difference:Q"), color=colour, strokeDash=dash),
        base.mark_point(size=120, opacity=0).encode(x=x, y=y("difference:Q"), tooltip=_tooltip()),
    ]
    significant = tidy[tidy["p_max"] < 0.05]
    if len(significant):  # of none, Vega-Lite would ask for the extent
        rings = alt.Chart(significant).mark_point(size=130, color=GREY, opacity=1)
        layers.insert(-1, rings.encode(x=x, y=y("difference:Q")))
    notes = "bands: 95 % intervals; a ring: p_max below 0.05, corrected for all layers"
    chart = alt.layer(*layers)
    return finished(chart, "Prosody pairs − semantic pairs", [*filter(None, subtitle), notes], legend_columns=2)


def _tooltip() -> list[Any]:
    formats = {"difference": "+.1%", "low": "+.1%", "high": "+.1%", "p": ".3f", "p_max": ".3f"}
    return ["layer", "series", *(alt.Tooltip(f"{column}:Q", format=form) for column, form in formats.items())]


def _named(reason: str) -> str:
    return reason.replace("the first curve", "the prosody curve").replace("the second curve", "the semantic curve")


def _between(found: dict[str, Any], flip: bool | None = None) -> str:
    """The interval in the direction in which the sentence counts."""
    low, high = found["low"], found["high"]
    if low is None and high is None:
        return ""
    if found["difference"] < 0 if flip is None else flip:
        low, high = (None if high is None else -high), (None if low is None else -low)
    ends = ["beyond the layers patched" if end is None else f"{end:.2g}".replace("-", "−") for end in (low, high)]
    return f" (95 % interval {ends[0]} to {ends[1]})"
