"""Figure of direct logit attribution: what each head and MLP adds to the logit of the answer, by layer.

    results.cached(additions_of, "direct-prosody")           # direct_direct-prosody.csv
    charts(results, experiment)                              # {"direct_direct-prosody": alt.Chart}

A logit means something only beside the others, so an addition is that to the answer's logit less the mean of those to
all labels.
"""

import altair as alt
import numpy as np
import pandas as pd

from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.logits import logits_of
from voicepatch.analysis.results import Results
from voicepatch.figures.cell_map import cell_map
from voicepatch.figures.figure_style import layer_columns, styled
from voicepatch.figures.headings import heading, model_and_data
from voicepatch.figures.maps import ROW, colour_of, heat_map, with_marks
from voicepatch.types.check import Check

MAP_OF = HEAD = "head"
ADDED = "added_to_answer_mean"
WORDS, VOICE, ALL = "answer: the words' label", "answer: the voice's label", "all clips"
LIMIT = (
    "Direct logit attribution counts what a head or an MLP writes at the readout position, read out as it stands. It "
    "does not count what later layers make of it, and it shows no cause: nothing is changed."
)


def charts(results: Results, experiment: ExperimentResults) -> dict[str, alt.HConcatChart]:
    """A map of all clips with its test, and one each of those that answer with the words' and the voice's label."""
    if experiment.swept != [HEAD]:
        return {}
    table = results.cached(additions_of, experiment.name)
    order = [str(value) for value in experiment.settings["options"][HEAD]]
    found = results.cached(cell_map, experiment.name)
    table = found.mark(table)
    table["marked"] &= table["clips"] == ALL
    groups = list(dict.fromkeys(table["clips"]))
    maps = [_map(table[table["clips"] == group], table[ADDED], group, order, group == ALL) for group in groups]
    title, _ = heading(results, experiment)
    notes = ["added to the answer's logit, less the mean over all labels", model_and_data(results.config)]
    notes.append(f"tested for all clips together: {found.note}")
    chart = alt.hconcat(*maps, spacing=16)
    return {f"direct_{experiment.name}": styled(chart, title, notes, "Direct logit attribution")}


def tables(results: Results, experiment: ExperimentResults) -> dict[str, pd.DataFrame]:
    """What each part adds, for each group of clips."""
    return {f"direct_{experiment.name}": results.cached(additions_of, experiment.name)}


def sentences(results: Results, experiment: ExperimentResults) -> list[str]:
    """Which part adds most to the answer's logit, in each group of clips."""
    table = results.cached(additions_of, experiment.name) if experiment.swept == [HEAD] else None
    if table is None:
        return []
    groups = [group for group in dict.fromkeys(table["clips"]) if group != ALL] or [ALL]
    found = []
    for group in groups:
        mine = table[table["clips"] == group]
        best = mine.loc[mine[ADDED].idxmax()]
        found.append(
            f"{part_name(best['layer'], best[HEAD])} adds most ({best[ADDED]:.2f}) in {best['n_clips']} clips ({group})"
        )
    return [f"To the answer's logit, less the mean of all labels, {'; '.join(found)}."]


def part_name(layer: int, head: int | str) -> str:
    """A head, the MLP or the embeddings as a sentence names them."""
    if head == "embeddings":
        return head
    return f"the MLP of layer {layer}" if head == "mlp" else f"head {head} of layer {layer}"


def limits() -> list[str]:
    """What direct attribution does not show."""
    return [LIMIT]


def checks(results: Results, experiment: ExperimentResults) -> list[Check]:
    """The heads, the MLPs and the embeddings sum to the logits."""
    options, n_layers = experiment.settings["options"], results.config["model"]["n_layers"]
    if not {"mlp", "embeddings"} <= set(options[HEAD]) or experiment.records["layer"].nunique() < n_layers:
        return []
    base, left = (logits_of(experiment.records[f"logits_{which}"]).values for which in ("base", "patch"))
    pair = experiment.records["pair_id"]
    sums = pd.DataFrame(base - left).groupby(pair.to_numpy()).sum()
    own = pd.DataFrame(base).groupby(pair.to_numpy()).first()
    difference, largest = float(np.abs(sums - own).to_numpy().max()), float(np.abs(base).max())
    tolerance = 1e-3 * max(largest, 1)
    name = "Heads, MLPs and embeddings sum to the logits"
    text = f"{experiment.name}: largest difference {difference:.2g}, at most {tolerance:.2g} counts as rounding"
    return [Check(name, difference <= tolerance, text, {"max_abs_difference": difference})]


def effects(records: pd.DataFrame) -> pd.Series:
    """What a part adds to the logit of the clip's answer less the mean of what it adds to all labels', [records]."""
    base, left = (logits_of(records[f"logits_{which}"]) for which in ("base", "patch"))
    answer = base.of(records["pred_base"]) - left.of(records["pred_base"])
    return (answer - (base.values - left.values).mean(1)).rename("addition to the answer's logit")


def additions_of(results: Results, name: str) -> pd.DataFrame:
    """A row for each group of clips, layer and part: clips, layer, head, n_clips, added_to_answer_mean, in logits."""
    experiment = results.experiment(name)
    records = experiment.records
    frame = records[["layer", HEAD, "pred_base", "semantic_label_b", "prosody_label_b"]].assign(added=effects(records))
    differ = frame["semantic_label_b"] != frame["prosody_label_b"]
    groups = {
        ALL: frame,
        WORDS: frame[differ & (frame["pred_base"] == frame["semantic_label_b"])],
        VOICE: frame[differ & (frame["pred_base"] == frame["prosody_label_b"])],
    }
    tables = []
    for group, rows in groups.items():
        cells = rows.groupby(["layer", HEAD], sort=False)["added"]
        tables.append(cells.agg(**{"n_clips": "size", ADDED: "mean"}).reset_index().assign(clips=group))
    table = pd.concat([table for table in tables if len(table)], ignore_index=True)
    table.attrs["caption"] = "What heads and MLPs add directly to the answer's logit"
    return table[["clips", "layer", HEAD, "n_clips", ADDED]]


def _map(table: pd.DataFrame, scale: pd.Series, group: str, order: list[str], has_names: bool) -> alt.LayerChart:
    tidy = table.assign(part=table[HEAD].astype(str))
    y = alt.Y("part:N", title="head", sort=order)
    y = y if has_names else y.axis(None)
    colour = colour_of(ADDED, scale.to_frame(), form=".2f", title="added to the answer's logit")
    tooltip = ["layer", "part", alt.Tooltip(f"{ADDED}:Q", format=".3f"), "n_clips"]
    x = layer_columns(tidy.assign(site="nothing"))
    cells = with_marks(heat_map(tidy, x, y, colour, tooltip), tidy, x, y)
    title = alt.TitleParams(f"{group}, n = {table['n_clips'].iloc[0]}", fontSize=12, fontWeight="normal")
    return cells.properties(width=210, height=ROW * len(order), title=title)
