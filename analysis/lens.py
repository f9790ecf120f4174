"""A logit lens over the clips of a run: which label leads after each layer, with nothing patched.

    results.once(leads_of, "lens-prosody")           # lens_lens-prosody.csv
    charts(results, experiment, title, subtitle)     # {"lens_lens-prosody": alt.Chart}

Over it the flip-to-target curve of the run's main experiment, which patches: what can be read is not what is used.
"""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from analysis.cells import by_cell
from analysis.clusters import RESAMPLES, design_effect, limits, mean_of
from analysis.curves import KIND_COLOURS, TO_TARGET
from analysis.figure_style import BLUE, GREY, finished, layer_axis, share
from analysis.logits import matrix
from analysis.results import Measured, Results
from analysis.sharing import Draws, Sharing, codes_of, texts_of

INTERVENTION = "lens"
WORDS, VOICE, ANSWER = "words_lead", "voice_leads", "answer_leads"
NAMES = {
    WORDS: "lens: the words' label leads",
    VOICE: "lens: the voice's label leads",
    ANSWER: "lens: the final answer leads",
}
COLOURS = {WORDS: KIND_COLOURS["semantic"], VOICE: KIND_COLOURS["prosody"], ANSWER: GREY}
FINAL = {WORDS: "final answer: the words' label", VOICE: "final answer: the voice's label"}
DIFFER, ALL = "labels differ", "all"
SHOWN = ["clips", "layer", "n_clips", WORDS, VOICE, ANSWER]
Y_TITLE = "share of clips, or of pairs"


def is_lens(experiment: dict[str, Any]) -> bool:
    """Whether an experiment reads streams out and patches nothing."""
    return experiment["intervention"] == INTERVENTION


def leads(records: pd.DataFrame, pairs: pd.DataFrame, seed: int = 42, resamples: int = RESAMPLES) -> pd.DataFrame:
    """How often the words' label, the voice's and the final answer lead the lens, a row a layer and group of clips.

    Columns: clips (those whose two labels differ, and all), layer, n_clips, and each of words_lead, voice_leads and
    answer_leads with 95 % limits of a bootstrap of whole texts, and words_final and voice_final, how often those labels
    are the final answer. No group without clips.
    """
    frame = records.assign(
        **{
            WORDS: records["pred_patch"] == records["semantic_label_b"],
            VOICE: records["pred_patch"] == records["prosody_label_b"],
            ANSWER: records["pred_patch"] == records["pred_base"],
            "words_final": records["pred_base"] == records["semantic_label_b"],
            "voice_final": records["pred_base"] == records["prosody_label_b"],
        }
    )
    pairs = pairs.sort_values("pair_id")
    pairs = pairs[pairs["pair_id"].isin(set(records["pair_id"]))]
    tables = []
    for group, members in ((DIFFER, pairs[pairs["semantic_label_b"] != pairs["prosody_label_b"]]), (ALL, pairs)):
        if not len(members):
            continue
        sharing = Sharing.of(codes_of(texts_of(members)))
        values = [by_cell(frame, members, column) for column in NAMES]
        means = mean_of(np.hstack(values), sharing, Draws(sharing.n_codes, resamples, seed))
        layers = values[0].columns
        table: dict[str, Any] = {"layer": layers}
        for i, column in enumerate(NAMES):
            mean = means.cells(slice(i * len(layers), (i + 1) * len(layers)))
            low, high = limits(mean, True, design_effect(mean))
            table |= {column: mean.value, f"{column}_low": low, f"{column}_high": high}
        mine = frame[frame["pair_id"].isin(set(members["pair_id"]))]
        final = {column: mine[column].mean() for column in ("words_final", "voice_final")}
        tables.append(pd.DataFrame({"clips": group, "n_clips": len(members), **table, **final}))
    return pd.concat(tables, ignore_index=True)


def leads_of(results: Results, name: str) -> pd.DataFrame:
    """`leads` of an experiment of a run."""
    lens = results.experiment(name)
    return leads(lens.records, lens.pairs, lens.seed)


def largest_difference(records: pd.DataFrame) -> float:
    """How far, in logits, the lens at the last layer read is from the model's own answer; it is the answer itself."""
    last = records[records["layer"] == records["layer"].max()]
    return float(np.abs(matrix(last["logits_base"]) - matrix(last["logits_patch"])).max())


def charts(results: Results, experiment: Measured, title: str, subtitle: list[str]) -> dict[str, Any]:
    """The figure of a lens, by its file's stem: clips whose labels differ, or all where there are none of those."""
    table = results.once(leads_of, experiment.name)
    table = table[table["clips"] == table["clips"].iloc[0]]
    main = results.main(experiment.kind)
    which = "whose words and voice have different labels" if table["clips"].iloc[0] == DIFFER else "of the pairs"
    notes = [f"n = {table['n_clips'].iloc[0]} clips {which}; bands: 95 % intervals", *subtitle]
    return {f"lens_{experiment.name}": lens(table, main, title, notes)}


def lens(table: pd.DataFrame, main: Measured | None, title: str, subtitle: list[str]) -> alt.LayerChart:
    """Which label leads by layer, how often that is the final answer, and the main experiment's flips if there are."""
    curves = [_series(table, column, name) for column, name in NAMES.items()]
    for column, name in FINAL.items():
        final = table[column.replace("_leads", "_final").replace("_lead", "_final")]
        curves.append(pd.DataFrame({"layer": table["layer"], "rate": final, "series": name}))
    styles = {NAMES[column]: (colour, [1, 0]) for column, colour in COLOURS.items()}
    styles |= {FINAL[column]: (COLOURS[column], [2, 2]) for column in FINAL}
    if main is not None:
        flips = f"patched: {TO_TARGET} of the {main.kind} pairs"
        curves.append(_series(main.curve, TO_TARGET, flips))
        styles[flips] = (BLUE, [6, 3])
    tidy = pd.concat(curves, ignore_index=True)
    names, x = list(styles), layer_axis(tidy).title("layer: output of the block (residual stream)")
    y = share("rate:Q", Y_TITLE)
    legend = alt.Legend(title=None, orient="bottom", columns=1, labelLimit=400)
    colour = alt.Color("series:N", legend=legend).scale(domain=names, range=[c for c, _ in styles.values()])
    dash = alt.StrokeDash("series:N", legend=legend).scale(domain=names, range=[d for _, d in styles.values()])
    bands = [
        alt.Chart(tidy[tidy["series"] == name])
        .mark_area(opacity=0.13, color=styles[name][0])
        .encode(x=x, y=share("low:Q", Y_TITLE), y2="high:Q")
        for name in (NAMES[WORDS], NAMES[VOICE])
    ]
    lines = alt.Chart(tidy).mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, strokeDash=dash)
    hover = (
        alt.Chart(tidy)
        .mark_point(size=120, opacity=0)
        .encode(x=x, y=y, tooltip=["layer", "series", alt.Tooltip("rate:Q", format=".1%")])
    )
    return finished(alt.layer(*bands, lines, hover), title, subtitle)


def _series(table: pd.DataFrame, column: str, name: str) -> pd.DataFrame:
    bounds = {side: table.get(f"{column}_{side}") for side in ("low", "high")}
    return pd.DataFrame({"layer": table["layer"], "rate": table[column], **bounds, "series": name})
