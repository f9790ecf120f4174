"""The figure of a run's answer: until which layer B overrides A's answer, and until which layer A's span is needed.

charts(results, experiment)       # {"override_and_need": alt.VConcatChart}
"""

from collections.abc import Mapping

import altair as alt
import pandas as pd

from voicepatch.analysis.breakdown import breakdown_columns, breakdown_file
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.need import ANY, FOLLOW, LOST, VOICE, WORDS, need_by, need_of
from voicepatch.analysis.results import KINDS, Results
from voicepatch.analysis.samples import speakers_note
from voicepatch.analysis.words_and_voice import OF_B, headline, midpoints
from voicepatch.figures.curves import KIND_STYLES, TO_TARGET_ELIGIBLE, Style, layer_curves, rate, series
from voicepatch.figures.figure_style import GREY, SOLID, WIDTH, styled
from voicepatch.figures.headings import congruence_note, dose_note, model_and_data
from voicepatch.text import escape

REPLACES_COMMON = True
FEWEST_CLIPS = 3  # behind a line that is drawn
STYLES = {VOICE: KIND_STYLES["prosody"], WORDS: KIND_STYLES["semantic"], ANY: (GREY, SOLID)}
CAPTION = "Share of answers that change when the span is not attended to from layer l on"
PANEL = {"width": WIDTH, "height": 190}
LIMIT = (
    "A knock-out takes the words and the voice of the span away together, and the attention goes to other positions. "
    "That answers survive it from layer l on does not show that nothing of the span is left to read there."
)


def charts(results: Results, experiment: ExperimentResults) -> dict[str, alt.VConcatChart]:
    """Two panels by layer: the rates of patching in both kinds of pairs, and those of the knock-out."""
    found = results.cached(need_of)
    if found is None or experiment.name not in found.names:
        return {}
    mains = [main for kind in KINDS if (main := results.main(kind)) and len(main.side.records)]
    of_patching = {
        f"{OF_B[main.kind]} ({main.compared_curve['eligible_count'].max()} eligible pairs)": (
            series(main.compared_curve, TO_TARGET_ELIGIBLE, "", "eligible_count"),
            KIND_STYLES[main.kind],
        )
        for main in mains
    }
    groups = {str(group): mine for group, mine in found.table.groupby("follows", sort=False)}
    few = {group: n for group, mine in groups.items() if (n := mine["n_clips"].max()) < FEWEST_CLIPS}
    of_knock_out = {
        f"{FOLLOW[group]} ({mine['n_clips'].max()} clips)": (series(mine, LOST, "", "n_clips"), STYLES[group])
        for group, mine in groups.items()
        if group not in few
    }
    flips = "pairs that answer with B's label"
    panels = [
        _panel(of_patching, flips, "B overrides: layer after which B's states are written"),
        _panel(
            of_knock_out, "share of answers that change", "need: layer from which on attention to A's span is blocked"
        ),
    ]
    drawn = [panel for panel in panels if panel is not None]
    if not drawn:
        return {}
    chart = alt.vconcat(*drawn).resolve_scale(color="independent", strokeDash="independent")
    notes = dict.fromkeys(note for main in mains for note in (*dose_note(main), *congruence_note(main)))
    n_of = [f"{OF_B[main.kind]}: n = {main.compared_counts}" for main in mains]
    n_of += [f"{name.partition(' (')[0]}: n = {table['n'].max()} clips" for name, (table, _) in of_knock_out.items()]
    n_of += [f"not drawn, because there are few: {FOLLOW[group]}, n = {n}" for group, n in few.items()]
    speakers = [note for note in [speakers_note(*(main.pairs for main in mains), found.pairs)] if note]
    about = ["bands: 95 % intervals", *speakers, model_and_data(results.config)]
    lines = [*headline(results), *filter(None, [midpoints(results)]), *n_of, *notes, *about]
    title = "Until which layer B overrides A's answer, and until which A's span is needed"
    return {"override_and_need": styled(chart, title, lines, "Overriding and need by layer")}


def _panel(curves: Mapping[str, tuple[pd.DataFrame, Style]], y_title: str, x_title: str) -> alt.LayerChart | None:
    tables = [table.assign(series=name).dropna(subset="value") for name, (table, _) in curves.items()]
    if not any(map(len, tables)):
        return None
    tidy = pd.concat(tables, ignore_index=True)
    styles = {name: style for name, (_, style) in curves.items()}
    chart = layer_curves(tidy, styles, rate(y_title), list(styles), 1, x_title=x_title)
    return chart.properties(**PANEL)


def tables(results: Results, experiment: ExperimentResults) -> dict[str, pd.DataFrame]:
    """The share of answers that change without the span, by layer."""
    found = results.cached(need_of)
    if found is None or experiment.name not in found.names:
        return {}
    found.table.attrs["caption"] = CAPTION
    tables = {"need": found.table}
    for column in breakdown_columns(results, experiment):
        by = tables[breakdown_file("need", column)] = results.cached(need_by, column)
        by.attrs["caption"] = f"{CAPTION}, by {escape(column)}"
    return tables


def sentences(results: Results, experiment: ExperimentResults) -> list[str]:
    """Why the knock-out does not count, where it does not; otherwise its sentence is in the run's answer."""
    found = results.cached(need_of)
    if found is None or experiment.name not in found.left_out:
        return []
    return [f"{experiment.name} does not count: {found.left_out[experiment.name]}."]


def limits() -> list[str]:
    """What the knock-out does not show."""
    return [LIMIT]
