"""Figures of the logit lens: which label leads after each layer, with nothing patched.

    results.cached(leads_of, "lens-prosody")           # lens_lens-prosody.csv
    charts(results, experiment)                      # {"lens_lens-prosody": alt.Chart}

The main experiment's flip-to-target curve is in the same figure: what can be read is not what is used.
"""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from voicepatch.analysis.cells import by_cell, first_from
from voicepatch.analysis.clusters import RESAMPLES, correlation, mean_of
from voicepatch.analysis.clusters import limits as interval
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.logits import logits_of
from voicepatch.analysis.results import Results
from voicepatch.analysis.samples import sample_of, speakers_note
from voicepatch.analysis.sharing import Draws
from voicepatch.figures.curves import KIND_COLOURS, TO_TARGET_ELIGIBLE, layer_curves, rate, series
from voicepatch.figures.figure_style import BLUE, GREY, SOLID, figure
from voicepatch.figures.headings import heading, model_and_data
from voicepatch.types.check import Check

WORDS, VOICE, ANSWER = "words_lead", "voice_leads", "answer_leads"
NAMES = {
    WORDS: "lens: the words' label",
    VOICE: "lens: the voice's label",
    ANSWER: "lens: the final answer",
}
COLOURS = {WORDS: KIND_COLOURS["semantic"], VOICE: KIND_COLOURS["prosody"], ANSWER: GREY}
FINAL = {
    "words_final": (WORDS, "final answer: the words' label"),
    "voice_final": (VOICE, "final answer: the voice's label"),
}
DIFFER, ALL = "labels differ", "all"
LIMIT = (
    "A logit lens shows what the final norm and the head make of the readout position's stream after a layer. It does "
    "not show what the model does with it. A label can lead there without being used. A label that is encoded in "
    "another way, or at other positions, is not seen; at early layers the stream may be far from what the head reads. "
    "The lens changes nothing, so it is no evidence of a cause."
)


def charts(results: Results, experiment: ExperimentResults) -> dict[str, alt.LayerChart]:
    """The clips whose labels differ, or all where there are none of those."""
    title, _ = heading(results, experiment)
    table, main = results.cached(leads_of, experiment.name), results.main(experiment.kind)
    table = table[table["clips"] == table["clips"].iloc[0]]
    curves = [series(table, column, name) for column, name in NAMES.items()]
    curves += [series(table, column, name) for column, (_, name) in FINAL.items()]
    styles = {NAMES[column]: (colour, SOLID) for column, colour in COLOURS.items()}
    styles |= {name: (COLOURS[column], [2, 2]) for column, name in FINAL.values()}
    if main is not None:
        flips = f"patched: eligible {main.kind} pairs that answer with B's label"
        curves.append(series(main.curve, TO_TARGET_ELIGIBLE, flips))
        styles[flips] = (BLUE, [6, 3])
    chart = layer_curves(
        pd.concat(curves, ignore_index=True),
        styles,
        rate("share of clips, or of pairs"),
        [NAMES[WORDS], NAMES[VOICE]],
        x_title="layer: output of the block (residual stream)",
    )
    which = "whose words and voice have different labels" if table["clips"].iloc[0] == DIFFER else "of the pairs"
    notes = [f"n = {table['n_clips'].iloc[0]} clips {which}; bands: 95 % intervals", model_and_data(results.config)]
    notes += filter(None, [speakers_note(experiment.pairs)])
    caption = "Which label leads, by layer"
    return {f"lens_{experiment.name}": figure(chart, title, notes, caption)}


def tables(results: Results, experiment: ExperimentResults) -> dict[str, pd.DataFrame]:
    """How often each label leads, by layer."""
    return {f"lens_{experiment.name}": results.cached(leads_of, experiment.name)}


def sentences(results: Results, experiment: ExperimentResults) -> list[str]:
    """The layers from which on the final answer leads in at least half of the clips."""
    agree = 1 - experiment.records.groupby("layer")["flip_from_base"].mean()
    layer = first_from(agree >= 0.5)
    first = "not even at the last layer" if layer is None else f"from layer {layer} on"
    return [
        f"A logit lens (final norm and head on the unpatched stream of the readout position) was applied to "
        f"{experiment.n_measured} clips; the label that leads was the final answer in at least half of them {first}."
    ]


def limits() -> list[str]:
    """What a lens does not show."""
    return [LIMIT]


def checks(results: Results, experiment: ExperimentResults) -> list[Check]:
    """At the last layer the lens is the model's own answer, exactly."""
    last = results.config["model"]["n_layers"] - 1
    rows = experiment.records[experiment.records["layer"] == last]
    if not len(rows):
        return []
    difference = float(np.abs(logits_of(rows["logits_base"]).values - logits_of(rows["logits_patch"]).values).max())
    text = f"{experiment.name}: largest |Δlogit| {difference:.2g}, must be exactly 0"
    name = "The lens at the last layer is the model's own answer"
    return [Check(name, difference == 0, text, {"max_abs_delta_logit": difference})]


def leads_of(results: Results, name: str) -> pd.DataFrame:
    """`leads` of an experiment of a run."""
    lens = results.experiment(name)
    table = leads(lens.records, lens.pairs, lens.seed)
    table.attrs["caption"] = "Which label leads the lens, by layer"
    table.attrs["shown"] = ["clips", "layer", "n_clips", *NAMES]
    return table


def leads(records: pd.DataFrame, pairs: pd.DataFrame, seed: int = 42, resamples: int = RESAMPLES) -> pd.DataFrame:
    """How often the words' label, the voice's label and the final answer lead, a row for each group of clips and layer.

    Columns: clips (those whose two labels differ, and all), layer, n_clips; words_lead, voice_leads and answer_leads,
    each with 95 % limits of a bootstrap of whole texts; words_final and voice_final, how often these labels are the
    final answer. A group without clips has no rows.
    """
    frame = records.assign(
        words_lead=records["pred_patch"] == records["semantic_label_b"],
        voice_leads=records["pred_patch"] == records["prosody_label_b"],
        answer_leads=records["pred_patch"] == records["pred_base"],
        words_final=records["pred_base"] == records["semantic_label_b"],
        voice_final=records["pred_base"] == records["prosody_label_b"],
    )
    pairs = pairs.sort_values("pair_id")
    pairs = pairs[pairs["pair_id"].isin(set(records["pair_id"]))]
    groups = {DIFFER: pairs[pairs["semantic_label_b"] != pairs["prosody_label_b"]], ALL: pairs}
    found = [_leads_in(frame, group, members, seed, resamples) for group, members in groups.items() if len(members)]
    return pd.concat(found, ignore_index=True)


def _leads_in(frame: pd.DataFrame, group: str, members: pd.DataFrame, seed: int, resamples: int) -> pd.DataFrame:
    sharing = sample_of(members).sharing
    values = [by_cell(frame, members, column) for column in NAMES]
    means = mean_of(np.hstack(values), sharing, Draws(sharing.n_codes, resamples, seed))
    layers = values[0].columns
    table: dict[str, Any] = {"clips": group, "n_clips": len(members), "layer": layers}
    for number, column in enumerate(NAMES):
        mean = means.cells(slice(number * len(layers), (number + 1) * len(layers)))
        low, high = interval(mean, True, correlation(mean))
        table |= {column: mean.value, f"{column}_low": low, f"{column}_high": high}
    mine = frame[frame["pair_id"].isin(set(members["pair_id"]))]
    return pd.DataFrame(table | {column: mine[column].mean() for column in FINAL})
