"""The question of a run with both kinds of pairs: do the words leave the audio span before the voice?

    write(run, config)             # contrast_prosody_vs_semantic.csv, statistics_prosody_vs_semantic.json
    sentence(run, config)          # "The words leave the audio span 0.85 layers (95 % interval 0.18 to 1.9) before …"
    charts(run, config)            # {"contrast_prosody_vs_semantic": alt.Chart}

The statistics are those of `analysis.contrast_kinds`.
"""

import json
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from analysis.cells import is_one_curve, swept_columns
from analysis.contrast_kinds import ALL, ELIGIBLE, Side, contrast
from analysis.figure_style import BLUE, GREY, LIGHT_GREY, finished, layer_axis
from analysis.metrics import read_pairs, read_records
from errors import UserError
from files import read_json, write_whole

KINDS = ("prosody", "semantic")
STEM = "contrast_prosody_vs_semantic"
STATISTICS = "statistics_prosody_vs_semantic.json"
GROUPS = {ALL: ("all pairs", BLUE, [1, 0]), ELIGIBLE: ("eligible pairs", GREY, [5, 3])}
# What must be the same in both for their difference to be one of words and voice alone.
ALIKE = {"align": "--align", "patch_alpha": "--alpha"}


def write(run: Path, config: dict[str, Any]) -> None:
    """Write the contrast where both main experiments are finished curves; without it, the statistics say why."""
    sides = _sides(run, config)
    if sides is None:
        return
    seed = config["experiments"][KINDS[0]]["pair_sampling_seed"]
    try:
        _refuse_unlike(config)
        found = contrast(*sides, seed=seed)
    except UserError as error:
        (run / f"{STEM}.csv").unlink(missing_ok=True)
        _write_json(run, {"contrast": None, "reason": str(error)})
        return
    write_whole(run / f"{STEM}.csv", found.table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    _write_json(run, {"contrast": found.statistics, "reason": None})


def sentence(run: Path, config: dict[str, Any]) -> str:
    """The answer in a sentence; "" for a run that has not both kinds."""
    if not _both_finished(config):
        return ""
    found = read_json(run / STATISTICS)
    if not found:
        return ""
    if found["contrast"] is None:
        return f"Words and voice are not contrasted: {found['reason']}."
    whole, eligible = found["contrast"][ALL], found["contrast"][ELIGIBLE]
    if whole["difference"] is None:
        return f"Whether words or voice leave the audio span first cannot be told: {_named(whole['reason'])}."
    first, second = ("words", "voice") if whole["difference"] >= 0 else ("voice", "words")
    number = abs(whole["difference"])
    leave = "leave" if first == "words" else "leaves"
    said = f"The {first} {leave} the audio span {number:.2g} layers{_between(whole)} before the {second}"
    if whole["p"] is None:
        return f"{said} ({_named(whole['reason'])})."
    if eligible["difference"] is not None and abs(eligible["difference"] - whole["difference"]) > 0.005:
        signed = eligible["difference"] * (1 if whole["difference"] >= 0 else -1)
        said += f"; among eligible pairs {signed:.2g}{_between(eligible, flip=whole['difference'] < 0)}"
    return f"{said}; p = {whole['p']:.2g}." + ("" if whole["p"] < 0.05 else " The interval includes no difference.")


def charts(run: Path, config: dict[str, Any], subtitle: list[str]) -> dict[str, alt.LayerChart]:
    """The difference of the two curves by layer, by its file's stem; none where there is no contrast."""
    path = run / f"{STEM}.csv"
    if not _both_finished(config) or not path.exists():
        return {}
    return {STEM: difference_by_layer(pd.read_csv(path), [sentence(run, config), *subtitle])}


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
    significant = alt.Chart(tidy[tidy["p_max"] < 0.05])
    layers += [
        base.mark_line(strokeWidth=2).encode(x=x, y=y("difference:Q"), color=colour, strokeDash=dash),
        significant.mark_point(size=130, color=GREY, opacity=1).encode(x=x, y=y("difference:Q")),
        base.mark_point(size=120, opacity=0).encode(x=x, y=y("difference:Q"), tooltip=_tooltip()),
    ]
    notes = "bands: 95 % intervals; a ring: p_max below 0.05, corrected for all layers"
    chart = alt.layer(*layers)
    return finished(chart, "Prosody pairs − semantic pairs", [*filter(None, subtitle), notes], legend_columns=2)


def _tooltip() -> list[Any]:
    formats = {"difference": "+.1%", "low": "+.1%", "high": "+.1%", "p": ".3f", "p_max": ".3f"}
    return ["layer", "series", *(alt.Tooltip(f"{column}:Q", format=form) for column, form in formats.items())]


def _both_finished(config: dict[str, Any]) -> bool:
    return all(config["experiments"].get(kind, {}).get("finished") for kind in KINDS)


def _sides(run: Path, config: dict[str, Any]) -> list[Side] | None:
    if not _both_finished(config):
        return None
    sides = []
    for kind in KINDS:
        path = run / f"patching_records_{kind}.jsonl"
        if not path.exists():
            return None
        records = read_records(path)
        if not is_one_curve(swept_columns(config["experiments"][kind], records)):
            return None
        sides.append(Side(kind, records, read_pairs(run / f"pair_list_{kind}.jsonl")))
    return sides


def _refuse_unlike(config: dict[str, Any]) -> None:
    one, other = (config["experiments"][kind] for kind in KINDS)
    for key, option in ALIKE.items():
        of_one, of_other = (_highest(settings.get(key)) for settings in (one, other))
        if of_one != of_other:
            raise UserError(f"prosody ran with {option} {of_one}, semantic with {of_other}; run both with the same")


def _highest(value: Any) -> Any:
    return max(value) if isinstance(value, list) else value  # the dose at which a curve is taken


def _write_json(run: Path, content: dict[str, Any]) -> None:
    write_whole(run / STATISTICS, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


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
