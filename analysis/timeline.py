"""A map in time: how far B's stream over one part of the utterance moves the answer, by layer and part.

    results.once(levels_of, "timeline-prosody")              # sound_level_timeline-prosody.csv
    charts(results, experiment, title, subtitle)             # {"timeline_timeline-prosody": alt.Chart}

Time is in per cent of the aligned span, since clips are not equally long.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from analysis.figure_style import BLUE, ORANGE, WIDTH, styled
from analysis.found_clips import find_clips
from analysis.results import Measured, Results
from errors import UserError
from models.sound import SAMPLE_RATE
from pairs.sounds import read_sound

INTERVENTION, PART = "timeline", "part"
BINS = 50
FLOOR = -60.0  # dB below a clip's loudest bin; what is fainter counts as that
FLIPS, LOGIT = "flip_to_target_rate_eligible", "delta_logit_target_mean"
OWN = {"A's": "base_is_target_rate", "B's": "donor_is_target_rate"}


def is_map(experiment: dict[str, Any]) -> bool:
    """Whether an experiment is a timeline with one row a layer and part at the highest dose."""
    return experiment["intervention"] == INTERVENTION and set(experiment.get("swept", ())) - {"patch_alpha"} == {PART}


def levels_of(results: Results, name: str) -> pd.DataFrame | None:
    """The mean level of A's and B's sound over the aligned span; None where the data are not there.

    Columns: percent_low, percent_high (of the aligned span), clip (A or B), level_db, seconds (of the whole sound),
    n_clips. The level is RMS in dB below the loudest of a clip's 50 bins, at least -60, averaged over pairs.
    """
    experiment, (clips, _) = results.experiment(name), find_clips(results.config["data"])
    once = experiment.records.drop_duplicates("pair_id")
    sounds: dict[str, np.ndarray] = {}
    levels: dict[str, list[np.ndarray]] = {"A": [], "B": []}
    seconds: dict[str, list[float]] = {"A": [], "B": []}
    for row in once.to_dict("records"):
        shorter = min(row["len_a"], row["len_b"])
        for clip, side in (("A", "a"), ("B", "b")):
            share = 1.0 if experiment.settings["align"] == "resample_linear" else shorter / row[f"len_{side}"]
            sound = _sound(sounds, clips, row[f"clip_{side}"])
            if sound is not None:
                levels[clip].append(level(sound[: max(BINS, round(share * len(sound)))]))
                seconds[clip].append(len(sound) / SAMPLE_RATE)
    edges = np.linspace(0, 100, BINS + 1)
    tables = [
        pd.DataFrame(
            {
                "percent_low": edges[:-1],
                "percent_high": edges[1:],
                "clip": clip,
                "level_db": np.mean(levels[clip], axis=0),
                "seconds": np.mean(seconds[clip]),
                "n_clips": len(levels[clip]),
            }
        )
        for clip in levels
        if levels[clip]
    ]
    return pd.concat(tables) if tables else None


def level(sound: np.ndarray) -> np.ndarray:
    """RMS of each of 50 bins in dB below the loudest one."""
    edges = np.linspace(0, len(sound), BINS + 1).astype(int)
    power = np.add.reduceat(np.square(sound, dtype=float), edges[:-1]) / np.maximum(np.diff(edges), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(np.maximum(10 * np.log10(power / power.max()), FLOOR), nan=FLOOR)


def _sound(held: dict[str, np.ndarray], clips: dict[str, Any], clip_id: str) -> np.ndarray | None:
    if clip_id not in held:
        try:
            held[clip_id] = read_sound(clips[clip_id].path).waveform
        except (UserError, KeyError):
            held[clip_id] = None
    return held[clip_id]


def charts(results: Results, experiment: Measured, title: str, subtitle: Sequence[str]) -> dict[str, alt.TopLevelMixin]:
    """The figure of a timeline, by its file's stem."""
    name = experiment.name
    levels = results.once(levels_of, name)
    return {f"timeline_{name}": timeline(experiment.curve, levels, experiment.settings, title, subtitle)}


def timeline(
    metrics: pd.DataFrame,
    levels: pd.DataFrame | None,
    experiment: dict[str, Any],
    title: str,
    subtitle: Sequence[str],
) -> alt.VConcatChart:
    """Layer by time: the mean move of the target's logit, and the flips; above them the sounds' mean level."""
    slices, window = experiment["options"]["slices"], experiment["options"]["seconds"]
    tidy = metrics[["layer", PART, FLIPS, LOGIT, "eligible_count", "n_pairs"]].assign(
        layer=metrics["layer"].astype(str),
        start=100 * metrics[PART] / slices,
        end=100 * (metrics[PART] + 1) / slices,
    )
    layers = [str(layer) for layer in sorted(metrics["layer"].unique(), reverse=True)]
    reach = max(tidy[LOGIT].abs().max(), 1e-6)
    maps = [
        _map(tidy, layers, LOGIT, alt.Scale(scheme="redblue", domain=[-reach, reach]), ".2f"),
        _map(tidy, layers, FLIPS, alt.Scale(scheme="blues", domain=[0, max(tidy[FLIPS].max(), 0.01)]), ".0%"),
    ]
    notes = [f"the span is cut into {slices} parts, of which one is B's"]
    if window:
        notes = [f"windows of {window:g} s about the middles of {slices} parts, of which one is B's"]
    if levels is None:
        notes.append("without the sounds' level: the data were not there")
    else:
        lengths = [f"{s:.2f} s ({clip})" for clip, s in levels.groupby("clip")["seconds"].first().items()]
        notes.append(f"the sounds last {' and '.join(lengths)} on average")
        maps.insert(0, _levels(levels))
    own = [f"{what} own rate {metrics[column].mean():.0%}" for what, column in OWN.items()]
    stacked = alt.vconcat(*maps, spacing=14).resolve_scale(color="independent")
    return styled(stacked, title, [*subtitle, "; ".join(notes), ", ".join(own)])


def _map(tidy: pd.DataFrame, layers: list[str], column: str, scale: alt.Scale, form: str) -> alt.Chart:
    height = min(320, max(90, 14 * len(layers)))
    shown = layers[:: max(1, len(layers) // 12)]
    return (
        alt.Chart(tidy)
        .mark_rect()
        .encode(
            x=_time("start:Q", "time in the aligned span" if column == FLIPS else None),
            x2="end:Q",
            y=alt.Y("layer:N", title="patched layer", sort=layers).axis(values=shown),
            color=alt.Color(f"{column}:Q", title=column, scale=scale).legend(
                orient="right", gradientLength=height, format=form
            ),
            tooltip=["layer", PART, alt.Tooltip(f"{column}:Q", format=".3f"), "eligible_count", "n_pairs"],
        )
        .properties(width=WIDTH, height=height)
    )


def _levels(levels: pd.DataFrame) -> alt.Chart:
    tidy = levels.assign(percent=(levels["percent_low"] + levels["percent_high"]) / 2)
    return (
        alt.Chart(tidy)
        .mark_line(strokeWidth=2)
        .encode(
            x=_time("percent:Q", None),
            y=alt.Y("level_db:Q", title="level, dB", scale=alt.Scale(zero=False)).axis(tickCount=4),
            color=alt.Color("clip:N", title="sound of").scale(domain=["A", "B"], range=[BLUE, ORANGE]),
            strokeDash=alt.StrokeDash("clip:N", legend=None).scale(domain=["A", "B"], range=[[1, 0], [5, 3]]),
        )
        .properties(width=WIDTH, height=70)
    )


def _time(field: str, title: str | None) -> alt.X:
    axis = alt.Axis(values=list(range(0, 101, 10)), labelExpr="datum.value + ' %'", grid=False)
    return alt.X(field, title=title, scale=alt.Scale(domain=[0, 100], nice=False), axis=axis)
