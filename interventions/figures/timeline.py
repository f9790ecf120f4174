"""Figures of the map in time: how far B's stream over one part of the utterance changes the answer, by layer and part.

    results.cached(levels_of, "timeline-prosody")              # sound_level_timeline-prosody.csv
    charts(results, experiment)                              # {"timeline_timeline-prosody": alt.Chart}

Time is in per cent of the aligned span, since clips are not equally long.
"""

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.results import Results
from voicepatch.analysis.tables import lengths_apart
from voicepatch.audio.cache import read_sound
from voicepatch.audio.decode import SAMPLE_RATE
from voicepatch.errors import UserError
from voicepatch.figures.cell_map import cell_map
from voicepatch.figures.figure_style import BLUE, FROM_THE_START, ORANGE, SOLID, WIDTH, styled
from voicepatch.figures.headings import heading
from voicepatch.figures.maps import colour_of, heat_map, with_marks

MAP_OF = PART = "part"
BINS = 50
FLOOR = -60.0  # dB below a clip's loudest bin; fainter bins get this value
FLIPS, LOGIT = "flip_to_target_rate_eligible", "delta_logit_target_mean"
OWN_RATES = {"A's": "base_is_target_rate", "B's": "donor_is_target_rate"}


def charts(results: Results, experiment: ExperimentResults) -> dict[str, alt.VConcatChart]:
    """The map: the mean level of the sounds, the change of the target's logit, and the flips, one above the other."""
    if not _is_map(experiment):
        return {}
    found, options = results.cached(cell_map, experiment.name), experiment.settings["options"]
    metrics = found.mark(experiment.curve)
    slices, window = options["slices"], options["seconds"]
    tidy = metrics[["layer", PART, FLIPS, LOGIT, "eligible_count", "n_pairs", "marked"]].assign(
        layer=metrics["layer"].astype(str),
        start=100 * metrics[PART] / slices,
        end=100 * (metrics[PART] + 1) / slices,
        middle=100 * (metrics[PART] + 0.5) / slices,
    )
    maps = [_map(tidy, LOGIT, ".2f", found.scale), _map(tidy.assign(marked=False), FLIPS, ".0%")]
    notes = [f"the span is cut into {slices} parts, and one of them is B's"]
    if window:
        notes = [f"windows of {window:g} s around the middles of {slices} parts, and one of them is B's"]
    levels = results.cached(levels_of, experiment.name)
    if levels is None:
        notes.append("the level of the sounds is missing, because the data were not found")
    else:
        lengths = [f"{s:.2f} s ({clip})" for clip, s in levels.groupby("clip")["seconds"].first().items()]
        notes.append(f"the sounds last {' and '.join(lengths)} on average")
        maps.insert(0, _levels(levels))
    own_rates = ", ".join(f"{whose} own rate {metrics[column].mean():.0%}" for whose, column in OWN_RATES.items())
    stacked = alt.vconcat(*maps, spacing=14).resolve_scale(color="independent")
    title, subtitle = heading(results, experiment)
    chart = styled(stacked, title, [*subtitle, "; ".join(notes), own_rates, found.note], "Map in time")
    return {f"timeline_{experiment.name}": chart}


def tables(results: Results, experiment: ExperimentResults) -> dict[str, pd.DataFrame]:
    """The level of the sounds over the aligned span, where the data are there."""
    levels = results.cached(levels_of, experiment.name) if _is_map(experiment) else None
    return {} if levels is None else {f"sound_level_{experiment.name}": levels}


def simplifications(results: Results, experiment: ExperimentResults) -> list[str]:
    """How the parts of A and B are aligned, and how far the two clips' lengths differ."""
    first = experiment.records.drop_duplicates("pair_id")
    apart = lengths_apart(first).abs()
    if experiment.settings["align"] == "resample_linear":
        how = "B's span is interpolated to A's length, so that a part of A gets the same part of B"
    else:
        how = (
            "the spans are aligned at their start, so that a part of A gets what B says after the same number of "
            "seconds. If the same words are spoken at another tempo, that is another word (--align resample_linear "
            "follows the tempo)"
        )
    return [
        f"{experiment.name}: {how}. The two clips' lengths differ by {apart.median():.0%} of the longer one in the "
        f"median pair, and by {apart.max():.0%} at most. {(apart <= 0.05).sum()} of {len(first)} pairs are equally "
        "long within 5 %."
    ]


def pair_map(experiment: ExperimentResults, combinations: list[str]) -> dict[str, Any]:
    """The parts of A's span that the pair browser draws."""
    if experiment.swept != [PART]:
        return {}
    whole = experiment.settings["align"] == "resample_linear"  # the aligned span is all of A's
    parts = [int(name.removeprefix(f"{PART} ")) for name in combinations]
    return {"map": {"slices": experiment.settings["options"]["slices"], "parts": parts, "whole": whole}}


def levels_of(results: Results, name: str) -> pd.DataFrame | None:
    """The mean level of A's and B's sound over the aligned span; None where the data are not there.

    Columns: percent_low, percent_high (of the aligned span), clip (A or B), level_db, seconds (of the whole sound),
    n_clips. The level is RMS in dB below the loudest of a clip's 50 bins, at least -60, averaged over pairs.
    """
    experiment, (clips, _) = results.experiment(name), results.clips
    sounds: dict[str, np.ndarray | None] = {}
    found: dict[str, list[tuple[np.ndarray, float]]] = {"A": [], "B": []}
    for row in experiment.records.drop_duplicates("pair_id").to_dict("records"):
        shorter = min(row["len_a"], row["len_b"])
        for clip, side in (("A", "a"), ("B", "b")):
            share = 1.0 if experiment.settings["align"] == "resample_linear" else shorter / row[f"len_{side}"]
            sound = _sound(sounds, clips, row[f"clip_{side}"])
            if sound is not None:
                aligned = sound[: max(BINS, round(share * len(sound)))]
                found[clip].append((level(aligned), len(sound) / SAMPLE_RATE))
    edges = np.linspace(0, 100, BINS + 1)
    tables = []
    for clip, values in found.items():
        if values:
            levels, seconds = (np.mean(part, axis=0) for part in zip(*values, strict=True))
            columns = {"percent_low": edges[:-1], "percent_high": edges[1:], "clip": clip, "level_db": levels}
            tables.append(pd.DataFrame(columns | {"seconds": seconds, "n_clips": len(values)}))
    if not tables:
        return None
    table = pd.concat(tables)
    table.attrs["caption"] = "Mean level of the sounds over the aligned span"
    return table


def level(sound: np.ndarray) -> np.ndarray:
    """RMS of each of 50 bins in dB below the loudest one."""
    edges = np.linspace(0, len(sound), BINS + 1).astype(int)
    power = np.add.reduceat(np.square(sound, dtype=float), edges[:-1]) / np.maximum(np.diff(edges), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(np.maximum(10 * np.log10(power / power.max()), FLOOR), nan=FLOOR)


def _is_map(experiment: ExperimentResults) -> bool:
    """Whether there is one row for each layer and part at the highest dose."""
    return set(experiment.swept) - {"patch_alpha"} == {PART}


def _sound(sounds: dict[str, np.ndarray | None], clips: Mapping[str, Any], clip_id: str) -> np.ndarray | None:
    if clip_id not in sounds:
        try:
            sounds[clip_id] = read_sound(clips[clip_id].path).waveform
        except (UserError, KeyError):
            sounds[clip_id] = None
    return sounds[clip_id]


def _map(tidy: pd.DataFrame, column: str, form: str, reach: float = 0) -> alt.LayerChart:
    layers = sorted(tidy["layer"].unique(), key=int, reverse=True)
    height = min(320, max(90, 14 * len(layers)))
    y = alt.Y("layer:N", title="patched layer", sort=layers).scale(align=FROM_THE_START)
    y = y.axis(values=layers[:: max(1, len(layers) // 12)])
    colour = colour_of(column, tidy, form=form, length=height, most=max(tidy[FLIPS].max(), 0.01), reach=reach)
    tooltip = ["layer", PART, alt.Tooltip(f"{column}:Q", format=".3f"), "eligible_count", "n_pairs"]
    title = "time in the aligned span" if column == FLIPS else None
    cells = heat_map(tidy, _time("start:Q", title), y, colour, tooltip).encode(x2="end:Q")
    return with_marks(cells, tidy, _time("middle:Q", title), y).properties(width=WIDTH, height=height)


def _levels(levels: pd.DataFrame) -> alt.Chart:
    tidy = levels.assign(percent=(levels["percent_low"] + levels["percent_high"]) / 2)
    lines = alt.Chart(tidy).mark_line(strokeWidth=2)
    return lines.encode(
        x=_time("percent:Q", None),
        y=alt.Y("level_db:Q", title="level, dB", scale=alt.Scale(zero=False)).axis(tickCount=4),
        color=alt.Color("clip:N", title="sound of").scale(domain=["A", "B"], range=[BLUE, ORANGE]),
        strokeDash=alt.StrokeDash("clip:N", legend=None).scale(domain=["A", "B"], range=[SOLID, [5, 3]]),
    ).properties(width=WIDTH, height=70)


def _time(field: str, title: str | None) -> alt.X:
    axis = alt.Axis(values=list(range(0, 101, 10)), labelExpr="datum.value + ' %'", grid=False)
    return alt.X(field, title=title, scale=alt.Scale(domain=[0, 100], nice=False), axis=axis)
