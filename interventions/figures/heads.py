"""Figure of heads and MLPs: how far each of them alone, from B, changes the target's logit, as a map of layer × head.

charts(results, experiment)                  # {"delta_logit_curve_heads-prosody": alt.Chart}
"""

import altair as alt

from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.results import Results
from voicepatch.analysis.rounding import estimate_text
from voicepatch.figures.cell_map import cell_map
from voicepatch.figures.curves import DELTA_LOGIT, metric_declaration
from voicepatch.figures.headings import heading
from voicepatch.figures.maps import swept_heat_map

MAP_OF = HEAD = "head"


def sentences(results: Results, experiment: ExperimentResults) -> list[str]:
    """Which part from B changes the target's logit most, alone, of those that are marked."""
    found = results.cached(cell_map, experiment.name)
    if found is None or experiment.swept != [HEAD]:
        return []
    would = " by the estimates" if experiment.is_estimate else ""
    cells = found.table if found.reason else found.marked
    if cells.empty:
        return [f"No head or MLP alone has a marked effect on the target's logit{would}."]
    best = cells.loc[cells["effect"].abs().idxmax()]
    part = "The MLP" if best[HEAD] == "mlp" else f"Head {best[HEAD]}"
    which, untested = ("", ", not tested") if found.reason else ("marked ", "")
    effect = f"{estimate_text(best, 'effect', '+')} on average over {best['n_pairs']} pairs{untested}"
    return [f"{part} of layer {best['layer']} has the largest {which}effect on the target's logit{would}: {effect}."]


def charts(results: Results, experiment: ExperimentResults) -> dict[str, alt.LayerChart]:
    """A map also of few heads, in place of a curve for each of them."""
    found = results.cached(cell_map, experiment.name)
    if found is None or HEAD not in experiment.swept:
        return {}
    title, subtitle = heading(results, experiment)
    declared, metrics = metric_declaration(DELTA_LOGIT), found.mark(experiment.metrics)
    notes = [*subtitle, found.note]
    chart = swept_heat_map(metrics, experiment.swept, DELTA_LOGIT, title, notes, declared.caption, found.scale)
    return {f"{declared.stem}_{experiment.name}": chart}
