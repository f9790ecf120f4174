"""95 % intervals around the metrics of a cell, and the contrast between a main experiment and its control.

layer_intervals(records, pairs)                              # 95 % limits beside analysis.metrics.layer_metrics
contrast(records, control_records, pairs, control_pairs)     # contrast_NAME_vs_CONTROL.csv
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.cells import at_highest_dose, by_cell, swept_columns
from analysis.clusters import (
    RESAMPLES,
    design_effect,
    limits,
    limits_of_difference,
    mean_of,
    p_of_one_text_a_row,
    p_values,
)
from analysis.metrics import derived
from analysis.sharing import Draws, Sharing, codes_of, texts_of
from errors import UserError

# What gets an interval: the column it is the mean of, and whether over eligible pairs alone.
INTERVALS = {
    "flip_to_target_rate": ("flip_to_target", False),
    "flip_from_base_rate": ("flip_from_base", False),
    "flip_to_target_rate_eligible": ("flip_to_target", True),
    "delta_logit_target_mean": ("delta_logit_target", False),
    "normalised_recovery_mean": ("recovery", True),
}


def layer_intervals(
    records: pd.DataFrame,
    pairs: pd.DataFrame,
    seed: int = 42,
    resamples: int = RESAMPLES,
    swept: Sequence[str] | None = None,
) -> pd.DataFrame:
    """95 % limits `…_low` and `…_high` of the metrics in INTERVALS, one row a cell, as in `layer_metrics`.

    The standard error is the bootstrap's. Around a mean the limits are Student's; around a rate they are Wilson's with
    as many pairs as would, if independent, have that standard error (Korn & Graubard 1998, Survey Methodology 24:193;
    Dean & Pagano 2015, J. Survey Stat. Methodol. 3:484). So a rate of 0 or 1 has a width as well: there the ratio of
    pairs to effective pairs is that of the other cells together, and with no such cell the texts count instead of the
    pairs. A mean that is the same in each pair, as Δlogit at the last layer, has limits of no width. NaN where fewer
    than two texts have a say.
    """
    pairs = pairs.sort_values("pair_id")
    sharing = Sharing.of(codes_of(texts_of(pairs)))
    records = records.assign(recovery=derived(records)["recovery"])
    cell = ["layer", *(swept_columns({}, records) if swept is None else swept)]
    values = []
    for column, eligible_only in INTERVALS.values():
        counted = records[column].astype(float).where(records["eligible"] | (not eligible_only))
        values.append(by_cell(records[["pair_id", *cell]].assign(counted=counted), pairs, "counted", cell))
    means = mean_of(np.hstack(values), sharing, Draws(sharing.n_codes, resamples, seed))
    table, cells = {}, values[0].columns
    for i, (metric, (column, _)) in enumerate(INTERVALS.items()):
        mean = means.cells(slice(i * len(cells), (i + 1) * len(cells)))
        table[f"{metric}_low"], table[f"{metric}_high"] = limits(mean, column.startswith("flip"), design_effect(mean))
    return pd.DataFrame(table, index=cells).reset_index()


def contrast(
    main: pd.DataFrame,
    control: pd.DataFrame,
    main_pairs: pd.DataFrame,
    control_pairs: pd.DataFrame,
    column: str = "flip_to_target",
    seed: int = 42,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Main − control in the mean of `column`, one row a layer that both have, each at its highest dose.

    Columns: layer, difference, low, high (95 %), p, p_max, n_pairs. A `column` whose name begins with “flip” is a rate.
    Where the control's pairs have the main pairs' recipients in the same order, the pairs that both have are compared;
    else (`no-conflict`) the two means over all of each one's pairs.

    The limits join each curve's own, less what the curves share through common texts (Newcombe 1998, Statistics in
    Medicine 17:2635; Zou & Donner 2008, ibid. 27:1693). For p the sign of a text's whole contribution is flipped at
    random; p_max compares with the largest of all layers, so that p_max < 0.05 at any layer happens in at most 5 % of
    runs without an effect (Nichols & Holmes 2002, Human Brain Mapping 15:1). With one text a pair this is a permutation
    test; with several it is its analogue, a multiplier bootstrap of deviations from the mean.
    UserError where the two have no layer in common.
    """
    shadows = list(main_pairs["clip_a"]) == list(control_pairs["clip_a"])
    texts, other_texts = texts_of(main_pairs), texts_of(control_pairs)
    main, control = (
        by_cell(at_highest_dose(main), main_pairs, column),
        by_cell(at_highest_dose(control), control_pairs, column),
    )
    layers = main.columns.intersection(control.columns).sort_values()
    if layers.empty:
        raise UserError("the main experiment and its control have no layer in common; run both at the same --layers")
    x, y = main[layers].to_numpy(), control[layers].to_numpy()
    if shadows:
        x, y = (np.where(np.isnan(x - y), np.nan, values) for values in (x, y))

    sharing = Sharing.of(codes_of(np.vstack([texts, other_texts])))
    draws = Draws(sharing.n_codes, resamples, seed)
    one = mean_of(x, sharing.part(slice(len(x))), draws)
    other = mean_of(y, sharing.part(slice(len(x), None)), draws)
    low, high = limits_of_difference(one, other, is_rate=column.startswith("flip"))

    shares, difference = np.vstack([one.shares, -other.shares]), one.value - other.value
    if (sharing.touches.sum(1) == 1).all():
        scores = shares * np.nan_to_num(np.vstack([x, y]) - (one.value + other.value) / 2)
        p, p_max = p_of_one_text_a_row(scores, sharing, resamples, seed)
    else:
        deviations = np.vstack([one.influence, -other.influence])
        p, p_max = p_values(difference, deviations, shares, sharing, resamples, seed)
    table = {"layer": layers, "difference": difference, "low": low, "high": high, "p": p, "p_max": p_max}
    return pd.DataFrame(table | {"n_pairs": one.count})
