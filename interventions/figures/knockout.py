"""Figure of a knock-out: how far the probability of the answer falls without the span, by what the answer is.

    results.cached(changes_of, "knockout-prosody")       # knockout_knockout-prosody.csv
    charts(results, experiment)                          # {"knockout_knockout-prosody": alt.Chart}

Probabilities are those among all tokens. The change is 100 · (p' − p) / p, with p of the clip's own run
(FightingFighting/cross-modal-information-flow-in-MLLM). It is averaged over the clips that answer with the label in
question: p of a label that a clip does not answer with may be close to 0.
"""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from voicepatch.analysis.cells import by_cell, ranges
from voicepatch.analysis.clusters import RESAMPLES, mean_of
from voicepatch.analysis.clusters import limits as interval
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.logits import logits_of
from voicepatch.analysis.results import Results
from voicepatch.analysis.samples import sample_of, speakers_note
from voicepatch.analysis.sharing import Draws
from voicepatch.figures.curves import KIND_COLOURS, layer_curves, number, series, zero_line
from voicepatch.figures.figure_style import GREY, SOLID, figure
from voicepatch.figures.headings import band_notes, cut_band, heading, layers_of_band, model_and_data

ALL, WORDS, VOICE = "all clips", "clips that answer with the words' label", "clips that answer with the voice's label"
COLOURS = {ALL: GREY, WORDS: KIND_COLOURS["semantic"], VOICE: KIND_COLOURS["prosody"]}
CHANGE = "change_of_answer"
LIMIT = (
    "A knock-out takes the words and the voice of the span away together. The attention that is taken from the span "
    "goes to other positions, so it also adds to what is read there. It shows at which layers an answer needs the "
    "span, not what the span holds."
)


def charts(results: Results, experiment: ExperimentResults) -> dict[str, alt.LayerChart]:
    """The change of the answer's probability by layer."""
    if experiment.swept:
        return {}
    table = results.cached(changes_of, experiment.name)
    groups = list(dict.fromkeys(table["clips"]))
    names = {group: f"{group}, n = {table['n_clips'][table['clips'] == group].iloc[0]}" for group in groups}
    tidy = pd.concat(
        [series(table[table["clips"] == group], CHANGE, name) for group, name in names.items()], ignore_index=True
    )
    styles = {name: (COLOURS[group], SOLID) for group, name in names.items()}
    y = number("change of the answer's probability, %")
    options, n_layers = experiment.settings["options"], int(results.config["model"]["n_layers"])
    x_title = f"layer at which the attention is blocked{_band(options, n_layers)}"
    chart = layer_curves(tidy, styles, y, list(styles), 1, form=".1f", x_title=x_title, below=[zero_line(y)])
    title, _ = heading(results, experiment)
    notes = ["bands: 95 % intervals; the two groups are of clips whose labels differ", model_and_data(results.config)]
    notes += filter(None, [cut_band(options, n_layers), speakers_note(experiment.pairs)])
    return {f"knockout_{experiment.name}": figure(chart, title, notes, "Knock-out of the audio span by layer")}


def _band(options: dict[str, Any], n_layers: int) -> str:
    k, band = options["k"], options["band"]
    return "" if k == 1 else f" ({min(k, n_layers)} layers {band} it, fewer at the ends)"


def tables(results: Results, experiment: ExperimentResults) -> dict[str, pd.DataFrame]:
    """How far the probabilities change, by layer."""
    return {} if experiment.swept else {f"knockout_{experiment.name}": results.cached(changes_of, experiment.name)}


def sentences(results: Results, experiment: ExperimentResults) -> list[str]:
    """At which layers fewer than half of the answers by the voice, and of those by the words, are kept."""
    if experiment.swept:
        return []
    options, records = experiment.settings["options"], experiment.records
    kept = 1 - records.pivot(index="pair_id", columns="layer", values="flip_from_base").astype(float)
    pairs = experiment.pairs.set_index("pair_id").loc[kept.index]
    answers = records.groupby("pair_id")["pred_base"].first()
    differ = pairs["semantic_label_b"] != pairs["prosody_label_b"]
    groups = {
        "with the voice's label": kept[differ & (answers == pairs["prosody_label_b"])],
        "with the words' label": kept[differ & (answers == pairs["semantic_label_b"])],
    }
    groups = {name: group for name, group in groups.items() if len(group)} or {"of all clips": kept}
    found = [f"of the {len(group)} answers {name}, {_kept(group.mean())}" for name, group in groups.items()]
    what = "audio span" if options["source"] == "span" else "question"
    lines = [f"With attention to the {what} blocked at {layers_of_band(options)}, {'; '.join(found)}."]
    n_layers = int(results.config["model"]["n_layers"])
    first, shares = int(kept.columns[0]), kept.mean()
    if options["band"] == "from" and first + options["k"] < n_layers and shares.iloc[0] > shares.min():
        lines.append(
            f"At l = {first} more are kept than at l = {shares.idxmin()}: the window that begins there leaves the "
            f"layers from {first + options['k']} on free."
        )
    return [*lines, *band_notes(options, n_layers)]


def _kept(shares: pd.Series) -> str:
    """At which layers fewer than half are kept, of the shares of answers by layer, and where the fewest are."""
    few = [int(layer) for layer in shares.index[shares < 0.5]]
    fewest = f"the fewest at l = {shares.idxmin()}: {shares.min():.0%}"
    if not few:
        return f"at least half are kept at every layer ({fewest})"
    where = "every layer" if len(few) == len(shares) else f"l = {ranges(few)}"
    return f"fewer than half are kept at {where} ({fewest})"


def limits() -> list[str]:
    """What a knock-out does not show."""
    return [LIMIT]


def changes_of(results: Results, name: str) -> pd.DataFrame:
    """`changes` of an experiment of a run."""
    experiment = results.experiment(name)
    table = changes(experiment.records, experiment.pairs, experiment.seed)
    table.attrs["caption"] = "Change of the answer's probability, %, and of the labels' mean probabilities, by layer"
    return table


def changes(records: pd.DataFrame, pairs: pd.DataFrame, seed: int = 42, resamples: int = RESAMPLES) -> pd.DataFrame:
    """A row for each group of clips and layer; a group without clips has no rows.

    Columns: clips (all, and of those whose labels differ the ones that answer with the words' and with the voice's
    label), layer, n_clips; change_of_answer in % with 95 % limits of a bootstrap of whole texts; p_answer, p_words and
    p_voice with p_answer_before, p_words_before and p_voice_before, mean probabilities of the three labels.
    """
    frame = records.assign(
        answer=records["pred_base"], words=records["semantic_label_b"], voice=records["prosody_label_b"]
    )
    for label in ("answer", "words", "voice"):
        for when, which in (("", "patch"), ("_before", "base")):
            logits = logits_of(records[f"logits_{which}"])
            frame[f"p_{label}{when}"] = np.exp(logits.of(frame[label])) / np.exp(logits.values).sum(1)
            frame[f"p_{label}{when}"] *= records[f"label_mass_{which}"]
    frame[CHANGE] = 100 * (frame["p_answer"] / frame["p_answer_before"] - 1)
    pairs = pairs.sort_values("pair_id")
    answers = pairs["pair_id"].map(frame.groupby("pair_id")["answer"].first())
    differ = pairs["semantic_label_b"] != pairs["prosody_label_b"]
    groups = {
        ALL: pairs[answers.notna()],
        WORDS: pairs[differ & (answers == pairs["semantic_label_b"])],
        VOICE: pairs[differ & (answers == pairs["prosody_label_b"])],
    }
    found = [_of_group(frame, group, members, seed, resamples) for group, members in groups.items() if len(members)]
    return pd.concat(found, ignore_index=True)


def _of_group(frame: pd.DataFrame, group: str, members: pd.DataFrame, seed: int, resamples: int) -> pd.DataFrame:
    sharing = sample_of(members).sharing
    values = by_cell(frame, members, CHANGE)
    mean = mean_of(values.to_numpy(), sharing, Draws(sharing.n_codes, resamples, seed))
    low, high = interval(mean, False)
    low = np.maximum(low, -100)
    mine = frame[frame["pair_id"].isin(set(members["pair_id"]))].groupby("layer")
    probabilities = [f"p_{label}{when}" for label in ("answer", "words", "voice") for when in ("", "_before")]
    table = {"clips": group, "layer": values.columns, "n_clips": len(members), CHANGE: mean.value}
    table |= {f"{CHANGE}_low": low, f"{CHANGE}_high": high}
    return pd.DataFrame(table | {column: mine[column].mean().to_numpy() for column in probabilities})
