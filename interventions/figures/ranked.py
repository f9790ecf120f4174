"""Figure of ranked heads and MLPs: the faithfulness curve, how far the best k of them alone bring A's answer to B's.

tables(results, experiment)                  # {"ranked_ranked-prosody": a row for each set}
charts(results, experiment)                  # {"ranked_ranked-prosody": alt.Chart}
"""

import altair as alt
import pandas as pd

from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.ranking import (
    ALL,
    ALONE,
    JOINT,
    RANDOM,
    WITHOUT,
    estimates_of,
    half_that_ranks,
    pairs_among,
    roles,
    too_few,
)
from voicepatch.analysis.results import Results
from voicepatch.analysis.rounding import estimate_text
from voicepatch.figures.figure_style import BLUE, GREEN, GREY, ORANGE, SOLID, WIDTH, figure
from voicepatch.figures.headings import heading
from voicepatch.types.check import Check

REPLACES_COMMON = True  # a curve by layer says nothing of sets that name their layers
RECOVERY, FLIPS = "normalised_recovery_mean", "flip_to_target_rate_eligible"
STYLES = {JOINT: (BLUE, SOLID), WITHOUT: (ORANGE, SOLID), ALONE: (GREEN, [2, 2]), RANDOM: (GREY, [6, 3])}
LIMIT = (
    "The parts were ranked by estimates on one half of the texts and patched exactly on the other. A part that does "
    "little alone may still be needed, because others stand in for it; the curve without the parts shows that. "
    "Positions before those that are written keep A's own values."
)


def tables(results: Results, experiment: ExperimentResults) -> dict[str, pd.DataFrame]:
    """A row for each set: role, number (of parts; alone, the rank), draw, components, and the metrics."""
    table = results.cached(sets_table, experiment.name)
    return {} if table is None else {f"ranked_{experiment.name}": table}


def sets_table(results: Results, name: str) -> pd.DataFrame | None:
    """The sets that `confirm` chose with their metrics; None where the sets were chosen in another way."""
    experiment = results.experiment(name)
    options = experiment.settings["options"]
    known = roles(options["top"], options["draws"])
    if not isinstance(options["components"], (list, tuple)) or len(options["components"]) != len(known):
        return None
    table = pd.DataFrame(known, columns=["role", "number", "draw"]).assign(components=list(options["components"]))
    columns = [RECOVERY, FLIPS, "delta_logit_target_mean"]
    columns += [f"{column}_{side}" for column in columns for side in ("low", "high")]
    table = table.merge(experiment.curve[["components", "n_pairs", "eligible_count", *columns]], on="components")
    table.attrs["caption"] = "Sets of ranked heads and MLPs, patched exactly"
    table.attrs["shown"] = ["role", "number", "draw", "components", RECOVERY, FLIPS]
    return table


def charts(results: Results, experiment: ExperimentResults) -> dict[str, alt.LayerChart]:
    """Normalised recovery against the number of parts: jointly, all but them, each alone, and random sets."""
    table = results.cached(sets_table, experiment.name)
    if table is None:
        return {}
    first = table[(table["role"] == JOINT) & (table["number"] == 1)].assign(role=ALONE)
    curves = pd.concat([table[table["role"] != ALL], first])
    values = {column: curves[column] for column in (RECOVERY, f"{RECOVERY}_low", f"{RECOVERY}_high")}
    tidy = curves[["role", "number", "components", "n_pairs"]].assign(
        value=values[RECOVERY], low=values[f"{RECOVERY}_low"], high=values[f"{RECOVERY}_high"]
    )
    numbers = sorted(int(number) for number in tidy["number"].unique())
    step = max(1, len(numbers) // 10)
    x = alt.X("number:Q", title="number of parts, best first (alone: the rank)").axis(
        values=numbers[::step], format="d"
    )
    y = alt.Y("value:Q", title="normalised recovery (0: A, 1: B)")
    names, colours = list(STYLES), [colour for colour, _ in STYLES.values()]
    legend = alt.Legend(symbolOpacity=1, symbolType="stroke", symbolStrokeWidth=3)
    colour = alt.Color("role:N", title=None, sort=names, legend=legend).scale(domain=names, range=colours)
    dash = alt.StrokeDash("role:N", legend=None, sort=names).scale(domain=names, range=[d for _, d in STYLES.values()])
    lines = alt.Chart(tidy[tidy["role"] != RANDOM]).mark_line(strokeWidth=2, point=True)
    mean = alt.Chart(tidy[tidy["role"] == RANDOM]).mark_line(strokeWidth=2)
    draws = alt.Chart(tidy[tidy["role"] == RANDOM]).mark_point(size=16, opacity=0.6)
    bands = alt.Chart(tidy[tidy["role"].isin([JOINT, WITHOUT])]).mark_area(opacity=0.15)
    tooltip = ["role", "number", "components", alt.Tooltip("value:Q", format=".3f"), "n_pairs"]
    chart = alt.layer(
        bands.encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
        lines.encode(x=x, y=y, color=colour, strokeDash=dash, tooltip=tooltip),
        mean.encode(x=x, y=alt.Y("mean(value):Q"), color=colour, strokeDash=dash),
        draws.encode(x=x, y=y, color=colour, tooltip=tooltip),
    ).properties(width=WIDTH)
    every = table[table["role"] == ALL][RECOVERY].iloc[0]
    n = int(experiment.metrics["recovery_n"].max())
    notes = [
        f"mean over {n} eligible pairs whose A and B differ by at least one logit; all parts together: {every:.2f}"
    ]
    notes.append("bands: 95 % intervals; points: random sets from the same layers")
    title, subtitle = heading(results, experiment)
    notes += warnings(results, experiment)
    return {f"ranked_{experiment.name}": figure(chart, title, [*subtitle, *notes], "Faithfulness of ranked parts")}


def sentences(results: Results, experiment: ExperimentResults) -> list[str]:
    """How much of B's effect the best parts recover together, and without them, and how much random sets do."""
    table = results.cached(sets_table, experiment.name)
    if table is None or table[RECOVERY].isna().any():
        return []
    top = table["number"].max()
    of = {role: mine for role, mine in table[table["number"].isin([top, 0])].groupby("role")}
    joint, without, all_parts = (estimate_text(of[role].iloc[0], RECOVERY) for role in (JOINT, WITHOUT, ALL))
    best = table["components"][table["role"] == JOINT].iloc[-1]
    n = int(experiment.metrics["recovery_n"].max())
    doubt = " These are too few pairs to conclude from." if warnings(results, experiment) else ""
    return [
        f"The best {top} parts ({best}) together recover {joint} of the way from A to B, random sets "
        f"of {top} {of[RANDOM][RECOVERY].mean():.2f}, all parts but the best {without}, all parts {all_parts}; "
        f"means over {n} eligible pair{'s' if n > 1 else ''}.{doubt}"
    ]


def checks(results: Results, experiment: ExperimentResults) -> list[Check]:
    """Whether the parts are ranked, and patched, in enough pairs."""
    found = warnings(results, experiment)
    text = f"{experiment.name}: {'; '.join(found) or 'both halves of the texts have enough'}"
    return [Check("Parts are ranked and patched in enough pairs", True, text, note=bool(found))]


def warnings(results: Results, experiment: ExperimentResults) -> list[str]:
    """Where a half of the texts has too few pairs."""
    by = estimates_of(results, experiment.kind)
    ranking = too_few("ranked on", pairs_among(by.measured_pairs, half_that_ranks(by))) if by else []
    return [*ranking, *too_few("patched in", experiment.measured_pairs)]


def limits() -> list[str]:
    """What the sets do not show."""
    return [LIMIT]
