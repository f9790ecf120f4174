"""One row a cell, a layer and the values of the swept options, with 95 % limits (SPEC sections 5 and 8).

    layer_metrics(records)                           # patching_metrics_prosody.csv without limits
    layer_intervals(records, pairs)                  # the limits

Everything is computed from the records, so a run can be summarised again without its model.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from voicepatch.analysis.cells import DOSE, by_cell
from voicepatch.analysis.clusters import RESAMPLES, correlation, limits, mean_of
from voicepatch.analysis.logits import logits_of
from voicepatch.analysis.metrics import BUILT_IN, METRICS, Metric
from voicepatch.analysis.samples import sample_of
from voicepatch.analysis.sharing import Draws
from voicepatch.types.record import APPROXIMATE

NEAR_TIE_MARGIN = 1e-3  # logits; float32 on another device moves a logit by less


def near_ties(logits: pd.Series, margin: float) -> np.ndarray:
    """Whether the best two labels of each row are equal, or less than `margin` logits apart."""
    lead = logits_of(logits).lead()
    return (lead < margin) | (lead == 0)


def layer_metrics(
    records: pd.DataFrame,
    margin: float = NEAR_TIE_MARGIN,
    swept: Sequence[str] = (),
    metrics: Sequence[Metric] = (),
) -> pd.DataFrame:
    """The means of the built-in and of further `metrics` in each cell, over all or over eligible pairs.

    `metrics` are columns of the records already (`with_metrics`). Eligible are pairs whose unpatched answer is not the
    target. `near_tie_count` counts patched answers whose best two labels are less than `margin` logits apart.
    """
    cell = ["layer", *swept]
    frame = records.assign(near_tie=near_ties(records["logits_patch"], margin))
    cells = frame.groupby(cell)
    table = pd.DataFrame({"n_pairs": cells.size(), "eligible_count": cells["eligible"].sum()})
    for one in (*BUILT_IN, *metrics):
        counted = frame[cell].assign(counted=_values(records, one)).groupby(cell)["counted"]
        table[one.column] = counted.mean()
        if one.quartiles:
            table[f"{one.name}_q25"], table[f"{one.name}_q75"] = counted.quantile(0.25), counted.quantile(0.75)
        if one.count:
            table[one.count] = counted.count()
    if DOSE not in cell:
        table[DOSE] = cells[DOSE].first()
    table["near_tie_count"] = cells["near_tie"].sum()
    table["site"] = cells["site"].agg(lambda sites: " + ".join(dict.fromkeys(sites)))
    further = [column for one in metrics for column in one.columns]
    first = [column for column in METRICS if column not in swept]  # the columns whose order is fixed
    if APPROXIMATE in records:
        table[APPROXIMATE] = True
        first.append(APPROXIMATE)
    return table.reset_index()[[*first, *swept, *further]]


def layer_intervals(
    records: pd.DataFrame,
    pairs: pd.DataFrame,
    seed: int = 42,
    resamples: int = RESAMPLES,
    swept: Sequence[str] = (),
    metrics: Sequence[Metric] = (),
) -> pd.DataFrame:
    """95 % limits `…_low` and `…_high` of the metrics that have them, one row a cell, as in `layer_metrics`.

    The standard error is the bootstrap's. Around a mean the limits are Student's; around a rate they are Wilson's with
    as many pairs as would, if independent, have that standard error, so that a rate of 0 or 1 has a width as well
    (docs/statistics.md). A mean that is the same in each pair, as Δlogit at the last layer, has limits of no width. NaN
    where fewer than two texts have a value.
    """
    pairs, cell = pairs.sort_values("pair_id"), ["layer", *swept]
    sharing = sample_of(pairs).sharing
    with_limits = sorted((one for one in (*BUILT_IN, *metrics) if one.limits), key=lambda one: not one.is_rate)
    values = [
        by_cell(records[["pair_id", *cell]].assign(counted=_values(records, one)), pairs, "counted", cell)
        for one in with_limits
    ]
    means = mean_of(np.hstack(values), sharing, Draws(sharing.n_codes, resamples, seed))
    table: dict[str, Any] = {}
    cells = values[0].columns
    for i, one in enumerate(with_limits):
        mean = means.cells(slice(i * len(cells), (i + 1) * len(cells)))
        low, high = limits(mean, one.is_rate, correlation(mean))
        table |= {f"{one.column}_low": low, f"{one.column}_high": high}
    return pd.DataFrame(table, index=cells).reset_index()


def _values(records: pd.DataFrame, one: Metric) -> pd.Series:
    """The values of a metric, NaN where it counts eligible pairs alone and the pair is not eligible."""
    found = records[one.name] if one.name in records else one.values(records)
    values = pd.Series(np.asarray(found, float), records.index)
    return values.where(records["eligible"].astype(bool)) if one.eligible else values
