"""Figure of everything but one: how much of B's effect on the target's logit is lost where one part stays A's.

charts(results, experiment)                  # {"all_but_all-but-prosody": alt.Chart}

With all parts patched, the readout is B's own. So the loss of a pair is B's own logit of the target less the patched.
"""

import altair as alt
import pandas as pd

from interventions.figures.direct import part_name
from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.logits import logits_of
from voicepatch.analysis.results import Results
from voicepatch.analysis.rounding import estimate_text
from voicepatch.analysis.sites import NOTHING
from voicepatch.figures.cell_map import cell_map
from voicepatch.figures.headings import heading
from voicepatch.figures.maps import swept_heat_map

REPLACES_COMMON = True  # the readout is about B's own in every row
MAP_OF = HEAD = "head"
LOST = "lost_logit_target_mean"
LIMIT = (
    "Everything but one counts what a part writes directly for the answer at the readout position. A part that acts "
    "through later parts loses nothing there, because these are B's; heads --at after shows such effects."
)


def effects(records: pd.DataFrame) -> pd.Series:
    """The target's logit that is lost against all parts patched, [records]; `attrs` has the effect of all parts."""
    base, patched, donor = (
        logits_of(records[f"logits_{which}"]).of(records["target"]) for which in ("base", "patch", "donor")
    )
    lost = pd.Series(donor - patched, records.index, name="loss of the target's logit")
    whole = float((donor - base).mean())
    lost.attrs["whole"] = abs(whole), f"the effect of all parts ({whole:.3g})"
    return lost


def charts(results: Results, experiment: ExperimentResults) -> dict[str, alt.LayerChart]:
    """The loss as a map of layer × head, on a scale that reaches to the effect of all parts."""
    found = results.cached(cell_map, experiment.name)
    if found is None or experiment.swept != [HEAD]:
        return {}
    title, subtitle = heading(results, experiment)
    table, notes = found.table.rename(columns={"effect": LOST}), [*subtitle, found.note]
    table["site"] = NOTHING  # the layer is that of the part, and the write is after the last one
    caption = "The target's logit lost where one part stays A's"
    chart = swept_heat_map(table, [HEAD], LOST, title, notes, caption, found.scale, "loss of the target's logit")
    return {f"all_but_{experiment.name}": chart}


def sentences(results: Results, experiment: ExperimentResults) -> list[str]:
    """The part that loses most by staying A's."""
    found = results.cached(cell_map, experiment.name)
    if found is None or experiment.swept != [HEAD]:
        return []
    best = found.table.loc[found.table["effect"].idxmax()]
    share = f", {best['effect'] / found.scale:.1%} of the effect of all parts" if found.scale else ""
    tested = "not tested" if found.reason else "marked" if best["marked"] else "not marked"
    part = part_name(best["layer"], best[HEAD])
    loss = estimate_text(best, "effect")
    return [f"The largest loss of the target's logit is {loss}{share}, where {part} stays A's ({tested})."]


def limits() -> list[str]:
    """What it does not show."""
    return [LIMIT]
